package cbt

import (
	"errors"
	"strings"
	"testing"

	"cbt/sparse"
)

const goodHeader = `{"cbt":1,"consistency":"crash","streams":[{"name":"disk/0","size":5,"to":"x","from":{"point":"y","size":4}}]}`

func TestHeaderJSONIsUnambiguous(t *testing.T) {
	if _, err := decodeHeader([]byte(goodHeader)); err != nil {
		t.Fatal(err)
	}
	for old, new := range map[string]string{
		`"cbt":1`:              `"cbt":2,"cbt":1`,
		`"consistency"`:        `"required":["x"],"required":[],"consistency"`,
		`"size":5`:             `"size":5,"size":9`,
		`"size":5,`:            `"size":5,"SIZE":9,`,
		`"name"`:               `"Name"`,
		`"size":5,"to"`:        `"to"`,
		`"size":4`:             `"other":4`,
		`disk/0`:               "disk/\xff",
		`disk/0"`:              `disk/\ud800"`,
		`"to":"x"`:             `"to":""`,
		`"point":"y"`:          `"point":""`,
		`"cbt":1,`:             `"cbt":1,"instant":"2026-01-01T00:00:00+02:00",`,
		`{"cbt"`:               `{"\u017fize":1,"cbt"`,
		`"streams":[`:          `"nested":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `,"streams":[`,
		`"size":5,"to":"x"`:    `"size":5.5,"to":"x"`,
		`"crash","streams"`:    `"crash","streams":null,"a":1,"b"`,
		`"from":{"point":"y",`: `"from":{"point":"y z",`,
		`]}`:                   `]}{}`,
		`"crash",`:             `"crash","machine":"",`,
		`"crash","s`:           `"crash","machine":"a b","s`,
		`"crash","st`:          `"crash","machine":"` + strings.Repeat("m", 201) + `","st`,
		`"crash","str`:         `"crash","machine":"v\u00fcm","str`,
		`"crash","stre`:        `"crash","machine":{"name":"vm1"},"stre`,
		`"to":"x",`:            `"to":"x","source":"",`,
		`"to":"x","`:           `"to":"x","source":"a\nb","`,
		`"to":"x","f`:          `"to":"x","source":"` + strings.Repeat("s", 201) + `","f`,
	} {
		text := strings.Replace(goodHeader, old, new, 1)
		if text == goodHeader {
			t.Fatalf("%q is not in the header", old)
		}
		h, err := decodeHeader([]byte(text))
		var format *sparse.FormatError
		if !errors.As(err, &format) {
			t.Errorf("%s: %+v, %v", text, h, err)
		}
	}
	h, err := decodeHeader([]byte(strings.NewReplacer(`"crash",`, `"crash","machine":"vm1",`, `"to":"x",`, `"to":"x","source":"file:1",`).Replace(goodHeader)))
	if err != nil || h.Machine != "vm1" || h.Streams[0].Source != "file:1" {
		t.Errorf("machine and source: %+v, %v", h, err)
	}
	// Keys that a later version may add are ignored.
	if _, err := decodeHeader([]byte(strings.Replace(goodHeader, `"cbt":1`, `"cbt":1,"new-key":{"a":[1,2]}`, 1))); err != nil {
		t.Error(err)
	}
	for old, new := range map[string]string{`"cbt":1`: `"cbt":2`, `"cbt":1,`: `"cbt":1,"required":["dedup"],`} {
		if _, err := decodeHeader([]byte(strings.Replace(goodHeader, old, new, 1))); err == nil {
			t.Errorf("%s: accepted", new)
		}
	}
}
