package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Limits of options. No option has more data than a name and a few queries.
const (
	maxOption  = 64 << 10
	maxSkipped = 1 << 20 // of an option that is refused
	maxQueries = 64      // queries of one option
)

// errDone says that the client ended the negotiation as it may.
var errDone = errors.New("done")

// handshake negotiates until the client has chosen an export. io.EOF and
// errDone say that it went without.
func (s *session) handshake() error {
	s.conn.SetDeadline(time.Now().Add(s.srv.limits.Handshake))
	hello := binary.BigEndian.AppendUint64(nil, magicHello)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagFixedNewstyle|flagNoZeroes)
	if _, err := s.conn.Write(hello); err != nil {
		return errDone
	}
	var b [optionSize]byte
	if _, err := io.ReadFull(s.in, b[:4]); err != nil {
		return gone(err)
	}
	flags := binary.BigEndian.Uint32(b[:])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("unknown handshake flags 0x%x", flags)
	}
	s.noZeroes = flags&flagNoZeroes != 0
	for s.export == nil {
		if _, err := io.ReadFull(s.in, b[:]); err != nil {
			return gone(err)
		}
		if magic := binary.BigEndian.Uint64(b[:]); magic != magicOption {
			return fmt.Errorf("0x%016x is not the magic number of an option", magic)
		}
		option, n := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
		if flags&flagFixedNewstyle == 0 && option != optExportName {
			return fmt.Errorf("option %d without fixed newstyle negotiation", option)
		}
		if err := s.option(option, n); err != nil {
			return err
		}
	}
	return s.conn.SetDeadline(time.Time{})
}

// gone is what remains of an error of a connection that a client left, or on
// which it said nothing in time: nothing to tell.
func gone(error) error { return errDone }

// option answers one option with n bytes of data.
func (s *session) option(option, n uint32) error {
	switch option {
	case optExportName:
		return s.exportName(n)
	case optAbort:
		s.reply(option, repAck, nil) // the client may have gone
		return errDone
	case optList, optStartTLS, optStructuredReply, optInfo, optGo, optListMeta, optSetMeta:
	default:
		return s.refuseSkip(option, n, repErrUnsup, "unknown option")
	}
	if n > maxOption {
		return s.refuseSkip(option, n, repErrTooBig, "too much data")
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(s.in, data); err != nil {
		return gone(err)
	}
	switch option {
	case optInfo, optGo:
		return s.info(option, data)
	case optListMeta, optSetMeta:
		return s.meta(option, data)
	}
	switch {
	case n != 0:
		return s.refuse(option, repErrInvalid, "this option has no data")
	case option == optStartTLS:
		return s.refuse(option, repErrPolicy, "there is no encryption here")
	case option == optStructuredReply:
		s.structured = true
	default:
		return s.list()
	}
	return s.reply(option, repAck, nil)
}

// exportName answers the one option that cannot be refused but by going.
func (s *session) exportName(n uint32) error {
	if n > maxName {
		return fmt.Errorf("an export name of %d bytes", n)
	}
	name := make([]byte, n)
	if _, err := io.ReadFull(s.in, name); err != nil {
		return gone(err)
	}
	e := s.srv.byName[string(name)]
	if e == nil {
		return fmt.Errorf("no export has the name %s", short(string(name)))
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(e.size))
	b = binary.BigEndian.AppendUint16(b, e.flags(s.structured))
	if !s.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	if _, err := s.conn.Write(b); err != nil {
		return gone(err)
	}
	s.export = e
	return nil
}

func (s *session) list() error {
	for _, e := range s.srv.exports {
		b := appendString(nil, e.Name)
		if err := s.reply(optList, repServer, append(b, e.Description...)); err != nil {
			return err
		}
	}
	return s.reply(optList, repAck, nil)
}

// info answers INFO and GO.
func (s *session) info(option uint32, data []byte) error {
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 2 || len(rest)-2 != 2*int(binary.BigEndian.Uint16(rest)) {
		return s.refuse(option, repErrInvalid, "lengths that do not fit each other")
	}
	e, err := s.find(option, name)
	if e == nil {
		return err
	}
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(e.size))
	if err := s.reply(option, repInfo, binary.BigEndian.AppendUint16(b, e.flags(s.structured))); err != nil {
		return err
	}
	told := [4]bool{infoExport: true}
	for rest = rest[2:]; len(rest) > 0; rest = rest[2:] {
		what := binary.BigEndian.Uint16(rest)
		if int(what) >= len(told) || told[what] {
			continue
		}
		told[what] = true
		b := binary.BigEndian.AppendUint16(nil, what)
		switch what {
		case infoName:
			b = append(b, e.Name...)
		case infoDescription:
			if e.Description == "" {
				continue
			}
			b = append(b, e.Description...)
		case infoBlockSize:
			for _, n := range []uint32{1, preferred, maxRequest} {
				b = binary.BigEndian.AppendUint32(b, n)
			}
		}
		if err := s.reply(option, repInfo, b); err != nil {
			return err
		}
	}
	if err := s.reply(option, repAck, nil); err != nil {
		return err
	}
	if option == optGo {
		s.export = e
	}
	return nil
}

// meta answers LIST_META_CONTEXT and SET_META_CONTEXT.
func (s *session) meta(option uint32, data []byte) error {
	if option == optSetMeta {
		s.status = nil
	}
	name, rest, ok := cutString(data)
	if !ok || len(rest) < 4 {
		return s.refuse(option, repErrInvalid, "lengths that do not fit each other")
	}
	queries := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	if queries > maxQueries {
		return s.refuse(option, repErrTooBig, "too many queries")
	}
	wanted := queries == 0 && option == optListMeta
	for range queries {
		var query string
		if query, rest, ok = cutString(rest); !ok {
			return s.refuse(option, repErrInvalid, "lengths that do not fit each other")
		}
		wanted = wanted || query == metaName || query == "base:" && option == optListMeta
	}
	if len(rest) != 0 {
		return s.refuse(option, repErrInvalid, "data behind the last query")
	}
	if !s.structured {
		return s.refuse(option, repErrInvalid, "structured replies must be negotiated before")
	}
	e, err := s.find(option, name)
	if e == nil {
		return err
	}
	if wanted {
		id := uint32(metaID)
		if option == optListMeta {
			id = 0 // reserved
		} else {
			s.status = e
		}
		b := binary.BigEndian.AppendUint32(nil, id)
		if err := s.reply(option, repMeta, append(b, metaName...)); err != nil {
			return err
		}
	}
	return s.reply(option, repAck, nil)
}

// find returns the export of that name, or nil after it was refused.
func (s *session) find(option uint32, name string) (*export, error) {
	if len(name) > maxName {
		return nil, s.refuse(option, repErrTooBig, "the name is too long")
	}
	if e := s.srv.byName[name]; e != nil {
		return e, nil
	}
	return nil, s.refuse(option, repErrUnknown, "no export has the name "+short(name))
}

// refuseSkip refuses an option whose data, n bytes, are not looked at.
func (s *session) refuseSkip(option, n, code uint32, why string) error {
	if n > maxSkipped {
		return fmt.Errorf("option %d with %d bytes", option, n)
	}
	if _, err := s.in.Discard(int(n)); err != nil {
		return gone(err)
	}
	return s.refuse(option, code, why)
}

func (s *session) refuse(option, code uint32, why string) error {
	return s.reply(option, code, []byte(why))
}

// reply sends a reply to an option.
func (s *session) reply(option, code uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 20+len(data)), magicReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	if _, err := s.conn.Write(append(b, data...)); err != nil {
		return gone(err)
	}
	return nil
}

// cutString takes a string with its length in front of it off b.
func cutString(b []byte) (string, []byte, bool) {
	if len(b) < 4 {
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if b = b[4:]; uint64(n) > uint64(len(b)) {
		return "", nil, false
	}
	return string(b[:n]), b[n:], true
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// short is a name for messages.
func short(name string) string {
	const most = 100
	if len(name) > most {
		name = name[:most] + "..."
	}
	return fmt.Sprintf("%q", strings.ToValidUTF8(name, "?"))
}
