package cbt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"cbt/sparse"
)

// decodeHeader decodes a header's body. encoding/json alone would accept keys in any case, take the
// last of several equal keys, and accept text that is not UTF-8.
func decodeHeader(body []byte) (Header, error) {
	bad := func(err error) (Header, error) {
		return Header{}, &sparse.FormatError{Struct: "delta header", Off: int64(len(magicFrame)), Err: err}
	}
	if err := checkKeys(body); err != nil {
		return bad(err)
	}
	// The version comes first: another version may give other types to the rest.
	var v struct {
		Version  int      `json:"cbt"`
		Required []string `json:"required"`
	}
	if err := json.Unmarshal(body, &v); err == nil && (v.Version != Version || len(v.Required) > 0) {
		h := Header{Version: v.Version, Required: v.Required}
		return Header{}, h.Validate()
	}
	var w struct {
		Header
		Instant *string      `json:"instant"`
		Machine *string      `json:"machine"`
		Streams []wireStream `json:"streams"`
	}
	if err := json.Unmarshal(body, &w); err != nil {
		return bad(err)
	}
	h := w.Header
	if w.Instant != nil {
		at, err := time.Parse(time.RFC3339Nano, *w.Instant)
		if err != nil || !strings.HasSuffix(*w.Instant, "Z") {
			return bad(fmt.Errorf("instant %q is no time in UTC", *w.Instant))
		}
		h.Instant = &at
	}
	if w.Machine != nil {
		if *w.Machine == "" {
			return bad(errors.New("the machine is empty"))
		}
		h.Machine = *w.Machine
	}
	if len(w.Streams) > maxStreams {
		return bad(fmt.Errorf("%d streams: must be 1 to %d", len(w.Streams), maxStreams))
	}
	for i, s := range w.Streams {
		stream, err := s.stream()
		if err != nil {
			return bad(fmt.Errorf("stream %d: %w", i, err))
		}
		h.Streams = append(h.Streams, stream)
	}
	if err := h.Validate(); err != nil {
		return Header{}, err
	}
	return h, nil
}

// wireStream tells absent keys from those that are zero.
type wireStream struct {
	Name string  `json:"name"`
	Size *int64  `json:"size"`
	To   *string `json:"to"`
	Full bool    `json:"full"`
	From *struct {
		Point *string `json:"point"`
		Size  *int64  `json:"size"`
	} `json:"from"`
	Source *string `json:"source"`
}

func (w wireStream) stream() (Stream, error) {
	s := Stream{Name: w.Name, Full: w.Full}
	switch {
	case strings.ContainsRune(w.Name, utf8.RuneError):
		return s, errors.New("the name holds U+FFFD, which stands for text that is no UTF-8")
	case w.Size == nil || w.From != nil && w.From.Size == nil:
		return s, errors.New("the size is missing")
	case w.To != nil && *w.To == "" || w.From != nil && w.From.Point != nil && *w.From.Point == "":
		return s, errors.New("a point is empty")
	case w.Source != nil && *w.Source == "":
		return s, errors.New("the source is empty")
	}
	s.Size = *w.Size
	if w.To != nil {
		s.To = *w.To
	}
	if w.Source != nil {
		s.Source = *w.Source
	}
	if w.From != nil {
		s.From = &Base{Size: *w.From.Size}
		if w.From.Point != nil {
			s.From.Point = *w.From.Point
		}
	}
	return s, nil
}

// checkKeys walks one JSON value and refuses keys that another reader might understand differently:
// keys given twice in one object, or with characters other than a to z, 0 to 9 and "-".
func checkKeys(body []byte) error {
	if !utf8.Valid(body) {
		return errors.New("is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

const maxNesting = 32

func checkValue(dec *json.Decoder, depth int) error {
	if depth > maxNesting {
		return errors.New("JSON nested too deep")
	}
	t, err := dec.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if open == '{' {
			t, err := dec.Token()
			if err != nil {
				return err
			}
			key, _ := t.(string)
			if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || key == "" {
				return fmt.Errorf("key %q has other characters than a to z, 0 to 9 and -", key)
			}
			if seen[key] {
				return fmt.Errorf("key %q is given twice", key)
			}
			seen[key] = true
		}
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the end
	return err
}
