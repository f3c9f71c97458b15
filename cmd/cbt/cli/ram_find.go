package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/report"
	"cbt/internal/text"
	"cbt/sparse"
)

// maxPattern is the longest pattern in bytes.
const maxPattern = 64 << 10

type ramFindOptions struct {
	ramOptions
	text, hex string
	utf16     bool
	most      int64
}

func newRAMFindCommand(a *app) *cobra.Command {
	opt := &ramFindOptions{}
	c := &cobra.Command{
		Use:   "find REF --text T | --hex H",
		Short: "find a pattern in RAM",
		Long: `find prints where in RAM a pattern is: the guest physical address, QEMU's RAM block
and the offset in it. It goes on across the ends of pages, as they follow one
another in physical memory. The address is - where nothing tells it, as for the
memory of graphics cards.

REF may also be an ELF core file, of cbt ram dump, of virsh dump --memory-only or
of QEMU, and any other file: that is taken for physical memory from address 0 on.`,
		Example: `  cbt ram find --text passphrase disk.qcow2@monday
  cbt ram find --text passphrase --utf16 vm.save
  cbt ram find --hex 4d5a9000 tuesday.cbt
  cbt ram find --text passphrase monday.core`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("REF"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.ramFind(c.Context(), args[0], opt)
		},
	}
	flags := c.Flags()
	flags.StringVar(&opt.text, "text", "", "look for `TEXT`, in UTF-8")
	flags.StringVar(&opt.hex, "hex", "", "look for bytes, given in `HEX`: 4d5a9000 or \"4d 5a 90 00\"")
	flags.BoolVar(&opt.utf16, "utf16", false, "the text is in UTF-16, little endian, as Windows keeps it")
	flags.Int64Var(&opt.most, "max-count", 0, "stop after `N` places (default: find all)")
	opt.addFlags(flags)
	return c
}

// pattern is what to look for.
func (opt *ramFindOptions) pattern() ([]byte, error) {
	switch {
	case (opt.text == "") == (opt.hex == ""):
		return nil, fail.Usage("ram find: either --text or --hex says what to look for")
	case opt.utf16 && opt.hex != "":
		return nil, fail.Usage("--utf16 is about --text")
	case opt.most < 0:
		return nil, fail.Usage("--max-count %d: must not be negative", opt.most)
	}
	p := []byte(opt.text)
	if opt.utf16 {
		p = nil
		for _, u := range utf16.Encode([]rune(opt.text)) {
			p = append(p, byte(u), byte(u>>8))
		}
	}
	if opt.hex != "" {
		var err error
		if p, err = hex.DecodeString(strings.Join(strings.Fields(opt.hex), "")); err != nil || len(p) == 0 {
			return nil, fail.Usage("--hex %s: is not pairs of hexadecimal digits", text.Printable(opt.hex))
		}
	}
	if len(p) > maxPattern {
		return nil, fail.Usage("a pattern of %d bytes: %d are the limit", len(p), maxPattern)
	}
	if sparse.IsZero(p) {
		return nil, fail.Usage("nothing but zeros is everywhere")
	}
	return p, nil
}

// place is where the pattern is.
type foundPlace struct {
	Address *uint64 `json:"address,omitempty"` // guest physical
	Block   string  `json:"block"`
	Offset  int64   `json:"offset"`
}

func (a *app) ramFind(ctx context.Context, ref string, opt *ramFindOptions) error {
	pattern, err := opt.pattern()
	if err != nil {
		return err
	}
	o, pieces, changed, err := a.findIn(ctx, ref, opt)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	total := int64(0)
	for _, p := range pieces {
		total += p.n
	}
	out := &placePrinter{w: bufio.NewWriter(a.Stdout), json: a.json}
	bar := a.Start("searching", total)
	defer bar.Finish()
	for _, p := range pieces {
		err = search(ctx, p.v, p.off, p.n, pattern, bar, func(at int64) (bool, error) {
			place := foundPlace{Block: p.block, Offset: at}
			if p.known {
				address := p.addr + uint64(at-p.off)
				place.Address = &address
			}
			err := out.print(place)
			return opt.most == 0 || int64(out.count) < opt.most, err
		})
		if err != nil {
			return refError(ref, err)
		}
		if opt.most > 0 && int64(out.count) >= opt.most {
			break
		}
	}
	bar.Finish()
	if err := changed(); err != nil {
		return err
	}
	if err := out.end(); err != nil {
		return err
	}
	if out.count == 0 {
		a.Notef("%s: the pattern is not in its RAM", text.Printable(ref))
	}
	return nil
}

// search calls found with the places of the pattern in [off, off+n) of v, until
// it wants no more. Of long stretches of zeros it looks at the ends alone.
const searchChunk = 1 << 20

func search(ctx context.Context, v sparse.View, off, n int64, pattern []byte, bar report.Bar, found func(at int64) (bool, error)) error {
	s := searcher{pattern: pattern, found: found, start: off}
	buf := make([]byte, searchChunk)
	for e, err := range v.Extents(off, n) {
		if err != nil {
			return err
		}
		for e.Len > 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			part := min(e.Len, int64(len(buf)))
			if edge := int64(len(pattern)); e.Kind.ReadsZero() && e.Len > 2*edge {
				part = e.Len
				if err := s.zeros(e.Off, e.Len, edge); err != nil {
					return err
				}
			} else {
				clear(buf[:part])
				if !e.Kind.ReadsZero() {
					if _, err := sparse.ReadFull(v, buf[:part], e.Off); err != nil {
						return err
					}
				}
				if err := s.feed(buf[:part]); err != nil {
					return err
				}
			}
			if s.enough {
				return nil
			}
			bar.Add(part)
			e.Off, e.Len = e.Off+part, e.Len-part
		}
	}
	return nil
}

// searcher finds a pattern in bytes that come in pieces.
type searcher struct {
	pattern []byte
	found   func(at int64) (bool, error)
	start   int64  // of kept
	kept    []byte // the end of what came before, shorter than the pattern
	enough  bool
}

func (s *searcher) feed(b []byte) error {
	s.kept = append(s.kept, b...)
	at := 0
	for !s.enough {
		i := bytes.Index(s.kept[at:], s.pattern)
		if i < 0 {
			break
		}
		more, err := s.found(s.start + int64(at+i))
		if err != nil {
			return err
		}
		s.enough = !more
		at += i + 1
	}
	if cut := max(at, len(s.kept)-len(s.pattern)+1); cut > 0 {
		s.start += int64(cut)
		s.kept = append(s.kept[:0], s.kept[cut:]...)
	}
	return nil
}

// zeros feeds n zeros, of which only the first and last few can matter.
func (s *searcher) zeros(off, n, edge int64) error {
	if err := s.feed(make([]byte, edge)); err != nil {
		return err
	}
	s.start, s.kept = off+n-edge, append(s.kept[:0], make([]byte, edge)...)
	return nil
}

type placePrinter struct {
	w     *bufio.Writer
	json  bool
	count int
}

func (p *placePrinter) print(place foundPlace) error {
	p.count++
	if p.json {
		front := ",\n  "
		if p.count == 1 {
			front = "[\n  "
		}
		text, err := json.Marshal(place)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(p.w, "%s%s", front, text)
		return err
	}
	if p.count == 1 {
		fmt.Fprintf(p.w, "%18s %18s  %s\n", "address", "offset", "block")
	}
	address := "-"
	if place.Address != nil {
		address = fmt.Sprintf("0x%x", *place.Address)
	}
	_, err := fmt.Fprintf(p.w, "%18s %18s  %s\n", address, fmt.Sprintf("0x%x", place.Offset), text.Printable(place.Block))
	return err
}

func (p *placePrinter) end() error {
	if p.json {
		if p.count == 0 {
			fmt.Fprint(p.w, "[")
		} else {
			fmt.Fprint(p.w, "\n")
		}
		fmt.Fprint(p.w, "]\n")
	}
	return p.w.Flush()
}
