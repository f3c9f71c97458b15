package vmstate

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// TestDescribedConfiguration has descriptions that repeat the configuration, as those of QEMU 10
// do. The canonical stream is the same as without it.
func TestDescribedConfiguration(t *testing.T) {
	plain := unpacked(t, "plain.state")
	at := bytes.LastIndex(plain, []byte(`{"page_size"`))
	text := plain[at:]
	want := stream(t, open(t, plain, Options{}))
	with := func(text string) []byte {
		b := binary.BigEndian.AppendUint32(bytes.Clone(plain[:at-4]), uint32(len(text)))
		return append(b, text...)
	}
	const config = `"configuration": {"vmsd_name": "configuration", "version": 1, "fields": [{"name": "len"}]}`
	for name, b := range map[string][]byte{
		"first":  with(`{` + config + `, ` + string(text[1:])),
		"last":   with(string(text[:len(text)-1]) + `, ` + config + `}`),
		"middle": with(string(bytes.Replace(text, []byte(`"page_size": 4096,`), []byte(`"page_size": 4096, `+config+`,`), 1))),
	} {
		s := open(t, b, Options{})
		if !s.Described || !bytes.Equal(stream(t, s), want) {
			t.Errorf("%s: another canonical stream", name)
		}
	}
	twice := with(`{` + config + `, ` + config + `, ` + string(text[1:]))
	if _, err := Open(bytes.NewReader(twice), int64(len(twice)), Options{}); err == nil {
		t.Error("the configuration may come twice")
	}
}
