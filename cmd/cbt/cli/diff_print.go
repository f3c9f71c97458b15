package cli

import (
	"bufio"
	"encoding/json"
	"fmt"

	"cbt/internal/text"
	"cbt/sparse"
)

// changedExtent is one line of the output.
type changedExtent struct {
	Disk   string `json:"disk,omitempty"`
	Start  int64  `json:"start"`
	Length int64  `json:"length"`
	Data   bool   `json:"data"`
	Zero   bool   `json:"zero"`
}

// extentPrinter prints extents one by one, as a table or as a JSON array.
type extentPrinter struct {
	w     *bufio.Writer
	json  bool
	named bool // say which disk
	count int
}

func newExtentPrinter(a *app, named bool) *extentPrinter {
	return &extentPrinter{w: bufio.NewWriter(a.Stdout), json: a.json, named: named}
}

func (p *extentPrinter) print(disk string, e sparse.Extent) error {
	p.count++
	if !p.json {
		if p.count == 1 {
			fmt.Fprintf(p.w, "%16s %16s  %s\n", "start", "length", "kind")
		}
		fmt.Fprintf(p.w, "%16d %16d  %s", e.Off, e.Len, e.Kind)
		if p.named {
			fmt.Fprintf(p.w, "  %s", text.Printable(disk))
		}
		return p.w.WriteByte('\n')
	}
	line := changedExtent{Start: e.Off, Length: e.Len, Data: e.Kind == sparse.Data, Zero: e.Kind.ReadsZero()}
	if p.named {
		line.Disk = disk
	}
	str, err := json.Marshal(line)
	if err != nil {
		return err
	}
	sep := ",\n"
	if p.count == 1 {
		sep = "["
	}
	p.w.WriteString(sep)
	_, err = p.w.WriteString(text.EscapeJSON(string(str)))
	return err
}

// end completes the output.
func (p *extentPrinter) end() error {
	if p.json {
		if p.count == 0 {
			p.w.WriteByte('[')
		}
		p.w.WriteString("]\n")
	}
	return p.w.Flush()
}
