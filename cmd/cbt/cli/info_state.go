package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"cbt/internal/text"
	"cbt/qcow2/vmstate"
)

// stateInfo is what info says of a saved machine state. It has the keys of
// qemu-img info where there are some.
type stateInfo struct {
	Filename   string       `json:"filename"`
	Format     string       `json:"format"`
	ActualSize int64        `json:"actual-size,omitempty"`
	Point      string       `json:"point,omitempty"`
	Machine    *machineJSON `json:"machine"`
	Problems   []string     `json:"problems,omitempty"`
}

type machineJSON struct {
	Container    string       `json:"container"`
	Type         string       `json:"type,omitempty"`
	UUID         string       `json:"uuid,omitempty"`
	Capabilities []string     `json:"capabilities,omitempty"`
	PageSize     int64        `json:"page-size"`
	RAM          int64        `json:"ram"`              // bytes
	Stored       *int64       `json:"stored,omitempty"` // bytes of pages that are not zero
	Whole        *bool        `json:"whole,omitempty"`  // the end is known to be there
	Blocks       []blockJSON  `json:"blocks"`
	Devices      []deviceJSON `json:"devices,omitzero"`
	Domain       *domainJSON  `json:"domain,omitempty"`
}

type blockJSON struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Pages  int64  `json:"pages"`
	Stored *int64 `json:"stored-pages,omitempty"`
	Shared bool   `json:"shared,omitempty"`
}

type deviceJSON struct {
	Name     string `json:"name"`
	Instance uint32 `json:"instance"`
	Version  uint32 `json:"version"`
	Size     int64  `json:"size"`
}

type domainJSON struct {
	Name    string `json:"name"`
	UUID    string `json:"uuid,omitempty"`
	Running bool   `json:"running"`
}

// describeMachine says what a state is. What only unpacking it would tell is left
// out, if it was not unpacked.
func describeMachine(s *vmstate.State) *machineJSON {
	j := &machineJSON{Container: s.Container, Type: s.MachineType, UUID: s.UUID, Capabilities: s.Capabilities, PageSize: s.PageSize}
	total := int64(0)
	for _, b := range s.Blocks {
		block := blockJSON{Name: b.Name, Size: b.Size(), Pages: b.Pages(), Shared: b.Shared}
		if !s.HeadOnly {
			stored := b.Stored()
			block.Stored = &stored
			total += stored * s.PageSize
		}
		j.Blocks = append(j.Blocks, block)
		j.RAM += b.Size()
	}
	if !s.HeadOnly {
		whole := s.Complete() == nil
		j.Stored, j.Whole, j.Devices = &total, &whole, []deviceJSON{}
	}
	for _, d := range s.Devices {
		j.Devices = append(j.Devices, deviceJSON(d))
	}
	if l := s.Libvirt; l != nil {
		j.Domain = &domainJSON{Name: l.Name, UUID: l.UUID, Running: l.WasRunning}
	}
	return j
}

// infoState describes a saved machine state that is no part of an image.
func (a *app) infoState(ctx context.Context, o *opener, ref string, opt refOptions) error {
	m, err := o.openMachine(ctx, ref, opt)
	if err != nil {
		return err
	}
	info := stateInfo{Filename: ref, Format: formatState, Point: m.point, Machine: describeMachine(m.State)}
	if m.vol == nil {
		info.ActualSize = m.size
	}
	if err := m.Complete(); err != nil && !m.HeadOnly {
		info.Problems = append(info.Problems, text.OneLine(err.Error()))
	}
	if a.json {
		return writeJSON(a.Stdout, info)
	}
	t := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		fmt.Fprintf(t, "%s:\t%s\n", key, fmt.Sprintf(format, args...))
	}
	row("state", "%s", text.Printable(ref))
	row("format", "%s", formatName(formatState))
	if info.ActualSize > 0 {
		row("size", "%s", text.Size(info.ActualSize))
	}
	info.Machine.rows(row)
	if info.Point != "" {
		row("point", "%s", info.Point)
	}
	for _, p := range info.Problems {
		row("problem", "%s", p)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return info.Machine.tables(a.Stdout)
}

func (j *machineJSON) rows(row func(key, format string, args ...any)) {
	row("kept as", "%s", j.Container)
	if d := j.Domain; d != nil {
		running := "running"
		if !d.Running {
			running = "paused"
		}
		row("domain", "%s %s, %s when it was saved", text.Printable(d.Name), text.Printable(d.UUID), running)
	}
	if j.Type != "" {
		row("machine type", "%s", text.Printable(j.Type))
	}
	if j.UUID != "" {
		row("machine UUID", "%s", j.UUID)
	}
	if j.Stored == nil {
		row("RAM", "%s, in pages of %s (what is not zero, and the devices: -v unpacks it all)", text.Size(j.RAM), text.Size(j.PageSize))
	} else {
		row("RAM", "%s, of which %s are not zero, in pages of %s", text.Size(j.RAM), text.Size(*j.Stored), text.Size(j.PageSize))
	}
}

func (j *machineJSON) tables(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprint(t, "\nRAM blocks:\n  NAME\tSIZE\tPAGES\tNOT ZERO\n")
	for _, b := range j.Blocks {
		stored := "-"
		switch {
		case b.Shared:
			stored = "not in the state"
		case b.Stored != nil:
			stored = fmt.Sprint(*b.Stored)
		}
		fmt.Fprintf(t, "  %s\t%s\t%d\t%s\n", text.Printable(b.Name), text.Size(b.Size), b.Pages, stored)
	}
	if err := t.Flush(); err != nil || len(j.Devices) == 0 {
		return err
	}
	fmt.Fprint(t, "\ndevices:\n  NAME\tINSTANCE\tVERSION\tSIZE\n")
	for _, d := range j.Devices {
		fmt.Fprintf(t, "  %s\t%d\t%d\t%s\n", text.Printable(d.Name), d.Instance, d.Version, text.Size(d.Size))
	}
	return t.Flush()
}
