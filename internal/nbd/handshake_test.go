package nbd

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"cbt/internal/testnbd"
)

func dial(t testing.TB, socket string, flags uint32) *testnbd.Client {
	t.Helper()
	c, err := testnbd.Dial("unix", socket, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func twoExports() []Export {
	return []Export{{Name: "first", Description: "the first one", View: newMemImage(5000)}, {Name: "second", View: writableImage{newMemImage(1 << 20)}}}
}

// refused checks for a refusal.
func refused(t *testing.T, c *testnbd.Client, option uint32, data []byte, code uint32) {
	t.Helper()
	_, err := c.Option(option, data)
	var r testnbd.OptionReply
	if !errors.As(err, &r) || r.Type != code {
		t.Errorf("option %d with %.40q: %v, want reply 0x%x", option, data, err, code)
	}
}

func TestOptions(t *testing.T) {
	socket, _, _ := serve(t, Limits{}, nil, twoExports()...)
	c := dial(t, socket, 3)
	refused(t, c, 99, []byte("data"), repErrUnsup)
	refused(t, c, 11, nil, repErrUnsup) // extended headers
	refused(t, c, 99, make([]byte, 1<<20), repErrUnsup)
	refused(t, c, optStartTLS, nil, repErrPolicy)
	refused(t, c, optStartTLS, []byte("x"), repErrInvalid)
	refused(t, c, optList, []byte("x"), repErrInvalid)
	refused(t, c, optStructuredReply, []byte("x"), repErrInvalid)
	refused(t, c, optGo, nil, repErrInvalid)
	refused(t, c, optGo, testnbd.String("first"), repErrInvalid)
	refused(t, c, optGo, append(testnbd.String("first"), 0, 1), repErrInvalid)
	refused(t, c, optGo, append(testnbd.String("first"), 0, 0, 0), repErrInvalid)
	refused(t, c, optGo, append([]byte{255, 255, 255, 255}, "first"...), repErrInvalid)
	refused(t, c, optGo, append(testnbd.String("third"), 0, 0), repErrUnknown)
	refused(t, c, optInfo, append(testnbd.String("fi\x00rst\xff"), 0, 0), repErrUnknown)
	refused(t, c, optGo, append(testnbd.String(strings.Repeat("x", 5000)), 0, 0), repErrTooBig)
	refused(t, c, optGo, make([]byte, 100<<10), repErrTooBig)
	refused(t, c, optSetMeta, testnbd.Query("first", "base:allocation"), repErrInvalid) // not yet structured
	if _, err := c.Option(optStructuredReply, nil); err != nil {
		t.Fatal(err)
	}
	refused(t, c, optSetMeta, testnbd.Query("third", "base:allocation"), repErrUnknown)
	refused(t, c, optSetMeta, append(testnbd.Query("first"), 1), repErrInvalid)
	refused(t, c, optListMeta, testnbd.Query("first", strings.Split(strings.Repeat("x:y ", 65), " ")...), repErrTooBig)
	refused(t, c, optListMeta, append(testnbd.Query("first", "x:y")[:15], 0, 0, 0, 9), repErrInvalid)

	list, err := c.Option(optList, nil)
	if err != nil || len(list) != 2 || string(list[0].Data) != "\x00\x00\x00\x05firstthe first one" || string(list[1].Data) != "\x00\x00\x00\x06second" {
		t.Errorf("LIST: %q, %v", list, err)
	}
	// Everything that may be asked for, twice, and what nobody knows.
	info, err := c.Option(optInfo, append(testnbd.String(""), 0, 6, 0, 3, 0, 1, 0, 2, 0, 3, 0, 0, 0, 99))
	if err != nil || len(info) != 4 {
		t.Fatalf("INFO: %q, %v", info, err)
	}
	for i, want := range []string{
		"\x00\x00\x00\x00\x00\x00\x00\x00\x13\x88\x05\x87",
		"\x00\x03\x00\x00\x00\x01\x00\x00\x10\x00\x02\x00\x00\x00",
		"\x00\x01first", "\x00\x02the first one",
	} {
		if string(info[i].Data) != want {
			t.Errorf("INFO %d: %q, want %q", i, info[i].Data, want)
		}
	}
	if err := c.Go("second", false); err != nil || c.Size != 1<<20 || c.Flags != sendHasFlags|sendFlush|sendFUA|sendTrim|sendWriteZeroes|sendDF|sendCanMultiConn|sendCache {
		t.Errorf("GO: size %d, flags %x, %v", c.Size, c.Flags, err)
	}
}

func TestMetaContexts(t *testing.T) {
	socket, _, _ := serve(t, Limits{}, nil, twoExports()...)
	for _, c := range []struct {
		option  uint32
		queries []string
		found   bool
	}{
		{optListMeta, nil, true},
		{optListMeta, []string{"base:"}, true},
		{optListMeta, []string{"qemu:", "base:allocation"}, true},
		{optListMeta, []string{"qemu:", "x"}, false},
		{optSetMeta, nil, false},
		{optSetMeta, []string{"base:"}, false},
		{optSetMeta, []string{"base:other", "base:allocation", "base:allocation"}, true},
	} {
		client := dial(t, socket, 3)
		if _, err := client.Option(optStructuredReply, nil); err != nil {
			t.Fatal(err)
		}
		list, err := client.Option(c.option, testnbd.Query("first", c.queries...))
		if err != nil || (len(list) == 1) != c.found || c.found && string(list[0].Data[4:]) != metaName {
			t.Errorf("option %d, queries %q: %q, %v", c.option, c.queries, list, err)
		}
	}
}

// Contexts are of one export, and of the last request that succeeded.
func TestMetaContextOfAnotherExport(t *testing.T) {
	socket, _, _ := serve(t, Limits{}, nil, twoExports()...)
	for _, last := range []string{"second", "none"} {
		c := dial(t, socket, 3)
		c.Option(optStructuredReply, nil)
		c.Structured = true
		for _, name := range []string{"first", last} {
			c.Option(optSetMeta, testnbd.Query(name, metaName))
		}
		if err := c.Go("", false); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Status(0, 0, 4096); !errors.Is(err, testnbd.Errno(eInval)) {
			t.Errorf("after %s: BLOCK_STATUS gives %v, want EINVAL", last, err)
		}
	}
}

func TestExportName(t *testing.T) {
	socket, _, _ := serve(t, Limits{}, nil, twoExports()...)
	for _, c := range []struct {
		flags uint32
		name  string
		want  int // bytes of the reply
	}{
		{3, "first", 10}, {1, "first", 134}, {0, "", 134}, {2, "second", 10}, {3, "third", 0}, {3, strings.Repeat("x", 4097), 0},
	} {
		client := dial(t, socket, c.flags)
		client.Write(testnbd.Option(optExportName, []byte(c.name)))
		if c.want > 0 {
			client.Write(testnbd.Request(0, cmdDisc, 1, 0, 0))
		}
		client.SetReadDeadline(time.Now().Add(testnbd.Patience))
		reply, err := io.ReadAll(client.In)
		if err != nil || len(reply) != c.want {
			t.Errorf("flags %d, name %.10q: %d bytes, %v, want %d", c.flags, c.name, len(reply), err, c.want)
		}
	}
}

// What no client says ends the connection.
func TestEndsHandshake(t *testing.T) {
	socket, _, _ := serve(t, Limits{Handshake: 200 * time.Millisecond}, nil, twoExports()...)
	for what, c := range map[string]struct {
		flags uint32
		say   []byte
	}{
		"unknown flags":             {4, nil},
		"nonsense":                  {3, bytes.Repeat([]byte("x"), 64<<10)},
		"option without newstyle":   {2, testnbd.Option(optList, nil)},
		"a request":                 {3, testnbd.Request(0, cmdRead, 1, 0, 512)},
		"more data than any option": {3, append(testnbd.Option(99, nil)[:12], 0xff, 0xff, 0xff, 0xff)},
		"silence":                   {3, nil},
		"half an option":            {3, testnbd.Option(optGo, make([]byte, 100))[:50]},
	} {
		client := dial(t, socket, c.flags)
		client.Write(c.say)
		client.SetReadDeadline(time.Now().Add(testnbd.Patience))
		if b, err := io.ReadAll(client.In); len(b) > 0 || errors.Is(err, io.ErrNoProgress) || err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: %q, %v", what, b, err)
		}
	}
}

func TestAbort(t *testing.T) {
	socket, _, _ := serve(t, Limits{}, nil, twoExports()...)
	c := dial(t, socket, 3)
	if _, err := c.Option(optAbort, nil); err != nil {
		t.Error(err)
	}
	if _, err := c.In.ReadByte(); err != io.EOF {
		t.Errorf("after ABORT: %v", err)
	}
}

func TestNew(t *testing.T) {
	v := newMemImage(1)
	for _, exports := range [][]Export{nil, {{Name: "a", View: v}, {Name: "a", View: v}}, {{Name: "\xff", View: v}}, {{Name: strings.Repeat("x", 4097), View: v}}} {
		if _, err := New(exports, Limits{}, nil); err == nil {
			t.Errorf("%d exports are taken", len(exports))
		}
	}
}
