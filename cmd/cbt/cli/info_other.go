package cli

import (
	"fmt"
	"text/tabwriter"

	"cbt/internal/overlay"
	"cbt/internal/text"
	"cbt/qcow2/vmstate"
)

// coreInfo is what info says of a core file.
type coreInfo struct {
	Filename   string        `json:"filename"`
	Format     string        `json:"format"`
	ActualSize int64         `json:"actual-size"`
	Machine    string        `json:"architecture"`
	CPUs       int           `json:"processors"`
	Memory     int64         `json:"memory"` // bytes
	Segments   []segmentJSON `json:"segments"`
}

type segmentJSON struct {
	Address uint64 `json:"address"` // guest physical
	Length  int64  `json:"length"`
	Offset  int64  `json:"offset"` // in the file
}

// overlayInfo is what info says of an overlay.
type overlayInfo struct {
	Filename    string `json:"filename"`
	Format      string `json:"format"`
	VirtualSize int64  `json:"virtual-size"`
	ActualSize  int64  `json:"actual-size"`
	Written     int64  `json:"written"` // bytes
	Zeroed      int64  `json:"zeroed"`
	Base        string `json:"base-identity"` // a hash
}

// infoOther describes what is no image, but what cbt or QEMU wrote of one, and says
// whether ref is such a file.
func (a *app) infoOther(o *opener, ref string, opt refOptions) (bool, error) {
	f, format, err := o.plainFile(ref, opt)
	if f == nil || err != nil {
		return false, err
	}
	defer f.Close()
	switch format {
	case formatELFCore:
		d, err := vmstate.OpenDump(f, f.Info.Size)
		if err != nil {
			return true, refError(ref, err)
		}
		return true, a.printCore(ref, f, d)
	case formatOverlay:
		s, err := overlay.Describe(f, f.Info.Size)
		if err != nil {
			return true, refError(ref, err)
		}
		return true, a.printOverlay(ref, f, s)
	}
	return false, nil
}

// plainFile opens a file that ref names without a snapshot and without saying what
// it is, and says what it starts like. What it starts like does not count where a
// guest may have written it. The file is nil if ref is something else.
func (o *opener) plainFile(ref string, opt refOptions) (*file, string, error) {
	if opt.Format != "" || o.Format != "" || ref == "" {
		return nil, "", nil
	}
	r, err := parseRef(ref, opt, o.hasSnapshot)
	if err != nil || r.byName || r.byID {
		return nil, "", nil // which says so when it is opened
	}
	f, err := openFile(r.path, &o.reads, nil)
	if err != nil {
		return nil, "", nil
	}
	format, err := sniff(f, f.Info.Size)
	if err == nil && format != formatState && guestWritten(f.Input) {
		format = formatRaw
	}
	if err != nil {
		f.Close()
		return nil, "", err
	}
	return f, format, nil
}

func (a *app) printCore(ref string, f *file, d *vmstate.Dump) error {
	info := coreInfo{Filename: ref, Format: "elf-core", ActualSize: f.Info.Size, Machine: d.Architecture, CPUs: d.CPUs, Segments: []segmentJSON{}}
	for _, s := range d.Segments {
		info.Memory += s.Len
		info.Segments = append(info.Segments, segmentJSON{s.Addr, s.Len, s.Off})
	}
	if a.json {
		return writeJSON(a.Stdout, info)
	}
	t := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "file:\t%s\nformat:\t%s\nsize:\t%s\n", text.Printable(ref), formatELFCore, text.Size(info.ActualSize))
	fmt.Fprintf(t, "architecture:\t%s\nprocessors:\t%d\nmemory:\t%s\n", text.Printable(d.Architecture), d.CPUs, text.Size(info.Memory))
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprint(t, "\nsegments:\n  ADDRESS\tLENGTH\tOFFSET\n")
	for _, s := range info.Segments {
		fmt.Fprintf(t, "  0x%x\t0x%x\t0x%x\n", s.Address, s.Length, s.Offset)
	}
	return t.Flush()
}

func (a *app) printOverlay(ref string, f *file, s *overlay.Summary) error {
	info := overlayInfo{ref, "cbt-overlay", s.Size, f.Info.Size, s.Written, s.Zeroed, s.Base}
	if a.json {
		return writeJSON(a.Stdout, info)
	}
	t := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "file:\t%s\nformat:\t%s: what was written over an image\nimage:\t%s (%d bytes)\n", text.Printable(ref), formatOverlay, text.Size(s.Size), s.Size)
	fmt.Fprintf(t, "written:\t%s, and %s of zeros\n", text.Size(s.Written), text.Size(s.Zeroed))
	fmt.Fprintf(t, "made over:\tan image with the identity %s\n", s.Base)
	return t.Flush()
}
