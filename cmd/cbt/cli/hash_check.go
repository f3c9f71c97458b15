package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/text"
	"cbt/sparse"
)

// hashLineLimit is how long a line of a list may be.
const hashLineLimit = 64 << 10

// hashChecker checks lists. Lines that follow one another and name the same
// bytes are checked in one pass.
type hashChecker struct {
	*app
	opener *opener
	opt    *hashOptions

	src            *source    // opened last: the pieces of an image follow one another
	same           []hashLine // lines of one name
	failed, unread int        // names
	total          int
	list           []hashChecked
}

// hashChecked is a result of --check.
type hashChecked struct {
	Name  string `json:"name"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"` // it could not be read
}

func (a *app) hashCheck(ctx context.Context, lists []string, opt *hashOptions) error {
	o, err := a.newOpener(opt.source)
	if err != nil {
		return err
	}
	defer a.closeOpener(o)
	o.empty = emptyTaken
	o.chainFrom(opt.chain)
	c := &hashChecker{app: a, opener: o, opt: opt, list: []hashChecked{}}
	defer c.close()
	for _, path := range lists {
		if err := c.checkList(ctx, path); err != nil {
			return err
		}
	}
	if a.json {
		if err := writeJSON(a.Stdout, c.list); err != nil {
			return err
		}
	}
	switch {
	case c.failed > 0:
		return fail.Findings("%d of %s differ", c.failed, text.Count(c.total, "name"))
	case c.unread > 0:
		return fmt.Errorf("%d of %s could not be read", c.unread, text.Count(c.total, "name"))
	}
	return nil
}

func (c *hashChecker) checkList(ctx context.Context, path string) error {
	in, name := c.Stdin, "standard input"
	if path != stdinName {
		f, err := openFile(path, &c.opener.reads, nil)
		if err != nil {
			return err
		}
		defer f.Close()
		in, name = io.NewSectionReader(f, 0, f.Info.Size), path
	}
	lines := bufio.NewScanner(&infile.Interruptible{Ctx: ctx, R: in})
	lines.Buffer(nil, hashLineLimit)
	n := 0
	for ; lines.Scan(); n++ {
		l, ok := parseHashLine(lines.Text())
		if !ok {
			return fmt.Errorf("%s: line %d is no line of a hash list", name, n+1)
		}
		if len(c.same) > 0 && c.same[0].name != l.name {
			if err := c.check(ctx); err != nil {
				return err
			}
		}
		c.same = append(c.same, l)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: line %d: %w", name, n+1, err)
	}
	if n == 0 {
		return fmt.Errorf("%s: is empty: nothing is checked", name)
	}
	return c.check(ctx)
}

// check checks the lines that were gathered.
func (c *hashChecker) check(ctx context.Context) error {
	if len(c.same) == 0 {
		return nil
	}
	name := c.same[0].name
	ok, err := c.compare(ctx, c.same)
	c.same = c.same[:0]
	if ctx.Err() != nil {
		return err
	}
	c.total++
	result, str := hashChecked{Name: name, OK: ok && err == nil}, "OK"
	switch {
	case err != nil:
		c.unread++
		result.Error, str = err.Error(), "FAILED: "+text.OneLine(err.Error())
	case !ok:
		c.failed++
		str = "FAILED"
	}
	if c.json {
		c.list = append(c.list, result)
		return nil
	}
	if result.OK && c.quiet {
		return nil
	}
	_, err = fmt.Fprintf(c.Stdout, "%s: %s\n", text.Printable(name), str)
	return err
}

// open opens an image, unless it is the one that was opened last.
func (c *hashChecker) open(ctx context.Context, ref string) (_ *source, err error) {
	if c.src != nil && c.src.Ref == ref {
		return c.src, nil
	}
	c.close()
	c.src, err = c.opener.open(ctx, ref, c.opt.ref)
	return c.src, err
}

func (c *hashChecker) close() {
	if c.src != nil {
		_ = c.src.Close() // it was only read
		c.src = nil
	}
}

// compare hashes what lines, all of one name, are about.
func (c *hashChecker) compare(ctx context.Context, lines []hashLine) (bool, error) {
	ref, off, n, part := splitPart(lines[0].name)
	if ref == stdinName {
		return false, fmt.Errorf("- is no reference: sha256sum -c checks what comes on its standard input")
	}
	var algos []algorithm
	used := map[string]int{}
	for _, l := range lines {
		if _, again := used[l.algo.name]; !again {
			used[l.algo.name] = len(algos)
			algos = append(algos, l.algo)
		}
	}
	src, err := c.open(ctx, ref)
	if err != nil {
		return false, err
	}
	size := src.View.Size()
	switch {
	case !part:
		n = size
	case off > size || n > size-off:
		return false, nil // it became smaller
	}
	s := newSummer(algos, off, 0, nil)
	defer s.close()
	bar := c.Start("hash", n)
	err = sparse.WriteRange(ctx, s, src.View, off, n, bar.Add)
	bar.Finish()
	if err != nil {
		return false, err
	}
	if err := src.Recheck(); err != nil {
		return false, err
	}
	sums := s.sums()
	for _, l := range lines {
		if sums[used[l.algo.name]] != l.sum {
			return false, nil
		}
	}
	return true, nil
}
