package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/store"
	"cbt/internal/text"
	"cbt/sparse"
)

type hashOptions struct {
	source openerOptions
	ref    refOptions
	chain  store.ChainOptions
	algos  []string
	piece  sizeValue
	offset sizeValue
	length sizeValue
	name   string
	check  bool
}

func newHashCommand(a *app) *cobra.Command {
	opt := &hashOptions{}
	c := &cobra.Command{
		Use:   "hash REF...",
		Short: "print the hashes of images",
		Long: `hash reads each image once and prints its digests by all algorithms of --algo.
Holes count as the zeros they are, without being read. --piece prints the hash
of each piece of that size too, in the same pass.

The list is one for sha256sum -c (md5sum, ...): "HASH  NAME" for one algorithm,
for several "SHA256 (NAME) = HASH", of which each program checks its own lines
and cksum -c all. NAME is the reference as it was given: of a raw file its path.
What else cbt hashes is an image and no file; cbt hash --check checks it, or
sha256sum when it reads the image (see the examples). The bytes of a file
itself, whatever it is, are hashed with --format raw.

With --check the arguments are such lists (- is standard input).`,
		Example: `  cbt hash disk.raw > list && sha256sum -c list
  cbt hash --algo md5,sha1,sha256 --piece 1M disk.qcow2@monday > list && cbt hash --check list
  cbt hash --name - disk.qcow2@monday > list && cbt cat disk.qcow2@monday | sha256sum -c list`,
		Annotations: exits(fail.Done, fail.Failed, fail.UsageCode, fail.FindingsCode, fail.WrongBaseCode, fail.BusyCode),
		Args:        wantArgs("REF..."),
		RunE: func(c *cobra.Command, args []string) error {
			if opt.check {
				for _, name := range []string{"algo", "piece", "offset", "length", "name"} {
					if c.Flags().Changed(name) {
						return fail.Usage("--check and --%s exclude each other: the list says what is hashed", name)
					}
				}
				return a.hashCheck(c.Context(), args, opt)
			}
			return a.hash(c.Context(), args, opt)
		},
	}
	flags := c.Flags()
	flags.StringSliceVar(&opt.algos, "algo", []string{"sha256"}, "hash by these `ALGORITHMS`: md5, sha1, sha256, sha512")
	flags.Var(&opt.piece, "piece", "also print the hash of each piece of this many bytes (1M, ...)")
	flags.Var(&opt.offset, "offset", "start at this byte (64K, 1G, ...)")
	flags.Var(&opt.length, "length", "hash this many bytes (default: up to the end)")
	flags.StringVar(&opt.name, "name", "", "print `NAME` in place of the reference")
	flags.BoolVar(&opt.check, "check", false, "check the lists that are named")
	opt.source.addFlags(flags)
	opt.ref.addFlags(flags, "", "REF")
	addChainFlag(&opt.chain, flags)
	return c
}

func (a *app) hash(ctx context.Context, refs []string, opt *hashOptions) error {
	algos, err := parseAlgorithms(opt.algos)
	if err != nil {
		return err
	}
	switch {
	case opt.piece.set && opt.piece.n == 0:
		return fail.Usage("--piece 0: a piece has at least a byte")
	case opt.name != "" && len(refs) > 1:
		return fail.Usage("--name is for one image, got %d", len(refs))
	}
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	o.empty = emptyTaken
	o.chainFrom(opt.chain)
	out := &hashPrinter{w: bufio.NewWriterSize(a.Stdout, 64<<10), json: a.json, algos: algos}
	for _, ref := range refs {
		if err := a.hashOne(ctx, o, out, ref, opt); err != nil {
			return err
		}
	}
	if err := out.end(); err != nil {
		return err
	}
	return a.syncStdout()
}

// hashOne hashes one image. Its digests are printed when it is known that
// nobody changed it meanwhile.
func (a *app) hashOne(ctx context.Context, o *opener, out *hashPrinter, ref string, opt *hashOptions) error {
	src, err := o.open(ctx, ref, opt.ref)
	if err != nil {
		return err
	}
	defer src.Close()
	off, n, err := rangeOf(src, opt.offset, opt.length)
	if err != nil {
		return err
	}
	if err := refuseUnknown(ctx, src, off, n); err != nil {
		return err
	}
	if src.Format != formatRaw && opt.name == "" && infile.Exists(ref) && !a.json {
		a.Notef("%s: these are the hashes of the image in it, not of the file (--format raw: of the file)", text.Printable(ref))
	}
	if n == 0 && src.View.Size() > 0 {
		return fail.Usage("%s: no bytes to hash from offset %d on", text.Printable(ref), off)
	}
	name := cmp.Or(opt.name, o.Resolved[ref], ref)
	out.begin(name, src.View.Size(), off, n, opt.piece.n > 0)
	s := newSummer(out.algos, off, opt.piece.n, out.onPiece)
	defer s.close()
	bar := a.Start("hash", n)
	err = sparse.WriteRange(ctx, s, src.View, off, n, bar.Add)
	bar.Finish()
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if err := s.endPiece(); err != nil {
		return err
	}
	if err := src.Recheck(); err != nil {
		return err
	}
	return out.finish(s.sums())
}

// hashPrinter prints hashes as a list, or as JSON: an array with an object for
// each image. Nothing is kept, however many pieces there are.
type hashPrinter struct {
	w     *bufio.Writer
	json  bool
	algos []algorithm

	images       int
	name         string
	size, off, n int64
	pieces       bool
	printed      int // pieces of this image
}

func (p *hashPrinter) begin(name string, size, off, n int64, pieces bool) {
	p.name, p.size, p.off, p.n, p.pieces, p.printed = name, size, off, n, pieces, 0
	if !p.json {
		return
	}
	quoted, _ := json.Marshal(name) // a string always can
	fmt.Fprintf(p.w, "%s{ \"image\": %s, \"size\": %d, \"offset\": %d, \"length\": %d",
		[]string{"[", ",\n"}[min(p.images, 1)], text.EscapeJSON(string(quoted)), size, off, n)
	if pieces {
		_, _ = io.WriteString(p.w, ", \"pieces\": [") // errors stick
	}
	p.images++
}

func (p *hashPrinter) onPiece(off, n int64, sums []string) error {
	if !p.json {
		return p.lines(nameOfPart(p.name, off, n), sums)
	}
	_, err := fmt.Fprintf(p.w, "%s\n  { \"offset\": %d, \"length\": %d, %s }", []string{"", ","}[min(p.printed, 1)], off, n, p.object(sums))
	p.printed++
	return err
}

func (p *hashPrinter) finish(sums []string) error {
	if p.json {
		if p.pieces {
			_, _ = io.WriteString(p.w, " ]") // errors stick
		}
		_, err := fmt.Fprintf(p.w, ", %s }", p.object(sums))
		return err
	}
	name := p.name
	if p.n < p.size {
		name = nameOfPart(name, p.off, p.n)
	}
	return p.lines(name, sums)
}

func (p *hashPrinter) lines(name string, sums []string) error {
	for i, sum := range sums {
		if _, err := fmt.Fprintln(p.w, hashLine{p.algos[i], sum, name}.print(len(sums) > 1)); err != nil {
			return err
		}
	}
	return nil
}

// object is the part of an object that has the digests.
func (p *hashPrinter) object(sums []string) string {
	text := ""
	for i, sum := range sums {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%q: %q", p.algos[i].name, sum)
	}
	return text
}

func (p *hashPrinter) end() error {
	if p.json {
		_, _ = io.WriteString(p.w, "]\n") // errors stick
	}
	return p.w.Flush()
}
