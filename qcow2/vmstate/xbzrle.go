package vmstate

import "errors"

var errXBZRLE = errors.New("not an XBZRLE encoding of a page")

// decodeXBZRLE changes page according to enc. There, runs of unchanged bytes and runs of new bytes
// alternate, each preceded by its length (xbzrle_decode_buffer). Empty runs are an error, except
// for a first run of unchanged bytes.
func decodeXBZRLE(page, enc []byte) error {
	at := 0
	for first := true; len(enc) > 0; first = false {
		stay, rest, ok := uleb14(enc)
		if !ok || stay == 0 && !first || stay > len(page)-at {
			return errXBZRLE
		}
		at, enc = at+stay, rest
		fresh, rest, ok := uleb14(enc)
		if !ok || fresh == 0 || fresh > len(page)-at || fresh > len(rest) {
			return errXBZRLE
		}
		copy(page[at:], rest[:fresh])
		at, enc = at+fresh, rest[fresh:]
	}
	return nil
}

// uleb14 reads a number of one or two bytes with seven bits each.
func uleb14(b []byte) (n int, rest []byte, ok bool) {
	switch {
	case len(b) >= 1 && b[0] < 0x80:
		return int(b[0]), b[1:], true
	case len(b) >= 2 && b[1] < 0x80:
		return int(b[0]&0x7f) | int(b[1])<<7, b[2:], true
	}
	return 0, nil, false
}
