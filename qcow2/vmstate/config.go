package vmstate

import (
	"encoding/binary"
	"fmt"

	"cbt/sparse"
)

const (
	defaultPageSize = 4096
	maxNameLen      = 4096
	maxCapabilities = 256
)

// configuration reads the CONFIGURATION, which follows the header and may be missing. It has a
// length and the machine's name, then subsections until something else comes
// (vmstate_configuration). The header and configuration of the canonical stream go to rest.prefix.
func (p *parser) configuration() error {
	const what = "configuration"
	lit := binary.BigEndian.AppendUint32(nil, streamMagic)
	lit = binary.BigEndian.AppendUint32(lit, streamVersion)
	defer func() { p.s.rest.prefix = lit }()
	b, err := p.c.peek(what, 1)
	if err != nil {
		return err
	}
	if b[0] != vmConfiguration {
		return nil
	}
	at := p.c.pos
	p.c.pos++
	n, err := p.c.u32(what)
	if err != nil {
		return err
	}
	if n > maxNameLen {
		return &sparse.FormatError{Struct: what, Field: "len", Off: at + 1, Value: n, Msg: "longer than a machine's name"}
	}
	name, err := p.c.take(what, int(n))
	if err != nil {
		return err
	}
	p.s.MachineType = string(name)
	lit = append(lit, vmConfiguration)
	lit = binary.BigEndian.AppendUint32(lit, n)
	lit = append(lit, name...)
	for range 16 {
		b, err := p.c.peek(what, 1)
		if err != nil {
			return err
		}
		if b[0] != vmSubsection {
			return nil
		}
		kept, err := p.configSubsection()
		if err != nil {
			return err
		}
		lit = append(lit, kept...)
	}
	return &sparse.FormatError{Struct: what, Off: at, Msg: "more than 16 subsections"}
}

// configSubsection reads one subsection and returns it in the form of the canonical stream, or nil
// if that does not have it.
func (p *parser) configSubsection() ([]byte, error) {
	const what = "configuration subsection"
	at := p.c.pos
	p.c.pos++
	name, err := p.c.counted(what)
	if err != nil {
		return nil, err
	}
	version, err := p.c.u32(what)
	if err != nil {
		return nil, err
	}
	fault := func(field string, value any, msg string) error {
		return &sparse.FormatError{Struct: what, Field: field, Off: at, Value: value, Msg: msg}
	}
	if version != 1 {
		return nil, fault("version", version, fmt.Sprintf("of %q: only 1 is known", name))
	}
	lit := append([]byte{vmSubsection, byte(len(name))}, name...)
	lit = binary.BigEndian.AppendUint32(lit, version)
	switch name {
	case "configuration/target-page-bits":
		bits, err := p.c.u32(what)
		if err != nil {
			return nil, err
		}
		if bits < 10 || bits > 16 {
			return nil, fault("target_page_bits", bits, "not from 10 to 16")
		}
		p.s.PageSize, p.pageBits = 1<<bits, true
		return binary.BigEndian.AppendUint32(lit, bits), nil
	case "configuration/uuid":
		b, err := p.c.take(what, 16)
		if err != nil {
			return nil, err
		}
		p.s.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
		return append(lit, b...), nil
	case "configuration/capabilities":
		kept, err := p.capabilities()
		if err != nil || len(kept) == 0 {
			return nil, err
		}
		lit = binary.BigEndian.AppendUint32(lit, uint32(len(kept)))
		for _, c := range kept {
			lit = append(append(lit, byte(len(c))), c...)
		}
		return lit, nil
	}
	return nil, fault("name", name, "unknown")
}

// capabilities reads the list and returns those that a canonical stream has. mapped-ram is not
// among them, because such a stream does not keep the places of the pages.
func (p *parser) capabilities() (kept []string, err error) {
	const what = "configuration/capabilities"
	at := p.c.pos
	n, err := p.c.u32(what)
	if err != nil {
		return nil, err
	}
	if n > maxCapabilities {
		return nil, &sparse.FormatError{Struct: what, Field: "count", Off: at, Value: n, Msg: "too many"}
	}
	for range n {
		name, err := p.c.counted(what)
		if err != nil {
			return nil, err
		}
		p.s.Capabilities = append(p.s.Capabilities, name)
		switch name {
		case "mapped-ram":
			p.mapped = true
			continue
		case "x-ignore-shared":
			p.ignoreShared = true
		default:
			return nil, fmt.Errorf("machine state: capability %q is not supported", name)
		}
		kept = append(kept, name)
	}
	return kept, nil
}

// Commands (MIG_CMD_*).
var commands = map[uint16]string{
	1: "open-return-path", 2: "ping", 3: "postcopy-advise", 4: "postcopy-listen", 5: "postcopy-run", 6: "postcopy-ram-discard",
	7: "postcopy-resume", 8: "packaged", 9: "recv-bitmap", 10: "enable-colo", 11: "switchover-start",
}

// command reads a COMMAND. It refuses those of postcopy, which mean that RAM is somewhere else.
func (p *parser) command() error {
	at := p.c.pos
	p.c.pos++
	id, err := p.c.u16("command")
	if err != nil {
		return err
	}
	n, err := p.c.u16("command")
	if err != nil {
		return err
	}
	name, known := commands[id]
	switch {
	case !known:
		return &sparse.FormatError{Struct: "command", Off: at, Value: id, Msg: "unknown"}
	case id == 3 && n == 0 || id == 1 || id == 2 || id == 11:
		return p.c.skip("command", uint64(n))
	}
	return fmt.Errorf("machine state: command %s at 0x%x: postcopy and the like are not supported", name, at)
}
