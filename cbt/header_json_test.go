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
	// What a later version may add is ignored.
	if _, err := decodeHeader([]byte(strings.Replace(goodHeader, `"cbt":1`, `"cbt":1,"new-key":{"a":[1,2]}`, 1))); err != nil {
		t.Error(err)
	}
	for old, new := range map[string]string{`"cbt":1`: `"cbt":2`, `"cbt":1,`: `"cbt":1,"required":["dedup"],`} {
		if _, err := decodeHeader([]byte(strings.Replace(goodHeader, old, new, 1))); err == nil {
			t.Errorf("%s: accepted", new)
		}
	}
}
