package vmstate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

const (
	maxDescription = 16 << 20
	maxFields      = 1 << 18
	maxDepth       = 64
)

// description tells how the sections of devices are structured (vmdesc). off is the offset of its
// type byte, end the offset of what follows it.
type description struct {
	off, end int64
	pageSize uint64
	devices  map[deviceKey][]*device // a name and instance may occur twice: isa-ide does
	fields   int                     // read so far

	// Where the text describes the configuration again, as QEMU does from 10.0 on. The range
	// includes the comma before or after it.
	configFrom, configTo int64
}

type deviceKey struct {
	name     string
	instance uint32
}

type device struct {
	version   uint32
	versioned bool // sections of old handlers have no version here
	structure
}

type structure struct {
	fields      []field
	subsections []subsection
}

// field is repeat times size bytes or, if inner is not nil, repeat times inner.
type field struct {
	name         string // only for the fields of a device itself
	size, repeat uint64
	inner        *structure
}

// null reports whether a field is a null pointer. QEMU up to 9 describes one as a structure of one
// byte without fields.
func (f *field) null() bool {
	return f.inner != nil && f.size == 1 && len(f.inner.fields) == 0 && len(f.inner.subsections) == 0
}

type subsection struct {
	name    string
	version uint32
	structure
}

// device returns the description of the section with that name and instance that has before such
// sections before it, or nil if there is none.
func (d *description) device(key deviceKey, before int) *device {
	if list := d.devices[key]; before < len(list) {
		return list[before]
	}
	return nil
}

// parseDescription reads the JSON text of a description. It takes tokens one by one: with a hostile
// text, the memory of encoding/json for the whole would have no limit.
func parseDescription(text []byte) (*description, error) {
	d := &description{devices: map[deviceKey][]*device{}}
	r := describer{json.NewDecoder(bytes.NewReader(text)), d}
	r.UseNumber()
	before := int64(1) // end of the previous value
	err := r.object(func(key string) (err error) {
		defer func() { before = r.InputOffset() }()
		switch key {
		case "configuration":
			if d.configTo != 0 {
				return errors.New("the configuration twice")
			}
			if err = r.skip(); before == 1 && r.More() {
				d.configFrom, d.configTo = 1, r.afterComma(text)
			} else {
				d.configFrom, d.configTo = before, r.InputOffset()
			}
		case "page_size":
			d.pageSize, err = r.number(63)
		case "devices":
			err = r.array(r.device)
		default:
			err = r.skip()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("JSON text of %d bytes, before %d: %w", len(text), r.InputOffset(), err)
	}
	return d, nil
}

// afterComma returns the end of the next comma and of the spaces after it.
func (r describer) afterComma(text []byte) int64 {
	rest := bytes.TrimLeft(text[r.InputOffset():], ", \t\r\n")
	return int64(len(text) - len(rest))
}

type describer struct {
	*json.Decoder
	d *description
}

func (r describer) delim(want json.Delim) error {
	t, err := r.Token()
	if err == nil && t != want {
		err = fmt.Errorf("%v in place of %v", t, want)
	}
	return err
}

func (r describer) object(each func(key string) error) error {
	if err := r.delim('{'); err != nil {
		return err
	}
	for r.More() {
		key, err := r.text()
		if err != nil {
			return err
		}
		if err := each(key); err != nil {
			return err
		}
	}
	return r.delim('}')
}

func (r describer) array(each func() error) error {
	if err := r.delim('['); err != nil {
		return err
	}
	for r.More() {
		if r.d.fields++; r.d.fields > maxFields {
			return fmt.Errorf("more than %d fields", maxFields)
		}
		if err := each(); err != nil {
			return err
		}
	}
	return r.delim(']')
}

func (r describer) text() (string, error) {
	t, err := r.Token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("%v in place of a text", t)
	}
	return s, nil
}

// number reads a non-negative number of at most bits bits.
func (r describer) number(bits int) (uint64, error) {
	t, err := r.Token()
	if err != nil {
		return 0, err
	}
	n, ok := t.(json.Number)
	if !ok {
		return 0, fmt.Errorf("%v in place of a number", t)
	}
	return strconv.ParseUint(string(n), 10, bits)
}

func (r describer) skip() error {
	for depth := 0; ; {
		t, err := r.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func (r describer) device() error {
	v := &device{}
	var key deviceKey
	err := r.object(func(k string) (err error) {
		var n uint64
		switch k {
		case "name":
			key.name, err = r.text()
		case "instance_id":
			n, err = r.number(32)
			key.instance = uint32(n)
		case "version":
			n, err = r.number(32)
			v.version, v.versioned = uint32(n), true
		default:
			err = r.part(k, &v.structure, 0)
		}
		return err
	})
	r.d.devices[key] = append(r.d.devices[key], v)
	return err
}

// part reads the fields or the subsections of st, or skips anything else.
func (r describer) part(k string, st *structure, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("structures nested more than %d deep", maxDepth)
	}
	switch k {
	case "fields":
		return r.array(func() error {
			f, err := r.field(depth)
			st.fields = append(st.fields, f)
			return err
		})
	case "subsections":
		return r.array(func() error {
			sub, err := r.subsection(depth)
			st.subsections = append(st.subsections, sub)
			return err
		})
	}
	return r.skip()
}

func (r describer) field(depth int) (field, error) {
	f := field{repeat: 1}
	var kind string
	var inner *structure
	err := r.object(func(k string) (err error) {
		switch k {
		case "name":
			if f.name, err = r.text(); depth > 0 {
				f.name = ""
			}
		case "type":
			kind, err = r.text()
		case "size":
			f.size, err = r.number(62)
		case "array_len":
			f.repeat, err = r.number(62)
		case "struct":
			inner = &structure{}
			err = r.object(func(k string) error { return r.part(k, inner, depth+1) })
		default:
			err = r.skip()
		}
		return err
	})
	if err == nil && kind == "struct" {
		if f.inner = inner; inner == nil {
			err = fmt.Errorf("a struct without its fields")
		}
	}
	return f, err
}

func (r describer) subsection(depth int) (sub subsection, err error) {
	err = r.object(func(k string) (err error) {
		switch k {
		case "vmsd_name":
			sub.name, err = r.text()
		case "version":
			var n uint64
			n, err = r.number(32)
			sub.version = uint32(n)
		default:
			err = r.part(k, &sub.structure, depth+1)
		}
		return err
	})
	return sub, err
}
