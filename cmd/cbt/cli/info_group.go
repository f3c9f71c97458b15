package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"cbt/internal/text"
	"cbt/lvm"
	"cbt/lvm/thin"
)

// infoGroups describes the volume groups that --pv names, or one of this host;
// name is empty for all of them.
func (a *app) infoGroups(ctx context.Context, o *opener, name string) error {
	groups, err := o.allGroups(ctx, name)
	if err != nil {
		return err
	}
	list := make([]groupJSON, 0, len(groups))
	for _, g := range groups {
		list = append(list, describeGroup(g, len(o.PVs) > 0))
	}
	if a.json {
		return writeJSON(a.Stdout, map[string]any{"volume-groups": list})
	}
	for i := range list {
		if i > 0 {
			fmt.Fprintln(a.Stdout)
		}
		if err := list[i].print(a.Stdout, a.verbose); err != nil {
			return err
		}
	}
	return nil
}

// allGroups are the groups that a name means.
func (o *opener) allGroups(ctx context.Context, name string) ([]*lvm.Group, error) {
	if len(o.PVs) == 0 {
		h, err := o.openHost(ctx)
		if err != nil {
			return nil, err
		}
		if name == "" {
			return h.all(ctx, o.Warnf)
		}
		g, err := h.group(ctx, name, o.Warnf)
		return []*lvm.Group{g}, err
	}
	pvs, err := o.physical(ctx)
	if err != nil {
		return nil, err
	}
	if name == "" {
		if len(pvs.groups) == 0 {
			o.Warnf("the physical volumes are in no volume group")
		}
		return pvs.groups, nil
	}
	g, err := lvm.FindGroup(pvs.groups, name)
	if err != nil {
		return nil, noGroup(err, pvs.groups)
	}
	return []*lvm.Group{g}, nil
}

type groupJSON struct {
	Name       string       `json:"name"`
	ID         string       `json:"id"`
	SeqNo      int64        `json:"seqno"`
	ExtentSize int64        `json:"extent-size"`
	Size       int64        `json:"size"`
	Status     []string     `json:"status"`
	Written    int64        `json:"written-sec,omitempty"` // the text
	Host       string       `json:"written-on,omitempty"`
	PVs        []pvJSON     `json:"physical-volumes"`
	LVs        []volumeJSON `json:"logical-volumes"`
	Problems   []string     `json:"problems,omitempty"`
}

type pvJSON struct {
	Name    string `json:"name"` // in the text
	ID      string `json:"id"`
	On      string `json:"on,omitempty"`     // what --pv named, or the device
	Device  string `json:"device,omitempty"` // where it was when the text was written
	Size    int64  `json:"size"`
	Extents int64  `json:"extents"`
	Missing string `json:"missing,omitempty"`
}

type volumeJSON struct {
	Name           string   `json:"name"`
	ID             string   `json:"id"`
	Type           string   `json:"type"`
	Size           int64    `json:"size"`
	Visible        bool     `json:"visible"`
	Created        int64    `json:"creation-sec,omitempty"`
	Status         []string `json:"status,omitempty"`
	Pool           string   `json:"pool,omitempty"`
	DeviceID       *uint32  `json:"device-id,omitempty"`
	TransactionID  *int64   `json:"transaction-id,omitempty"`
	ChunkSize      int64    `json:"chunk-size,omitempty"`
	Mapped         *int64   `json:"mapped,omitempty"` // bytes
	Origin         string   `json:"origin,omitempty"`
	ExternalOrigin string   `json:"external-origin,omitempty"`
	Problem        string   `json:"problem,omitempty"`
}

// describeGroup notes what the text says and, with records, what the metadata
// of pools that are not in use say.
func describeGroup(g *lvm.Group, records bool) groupJSON {
	j := groupJSON{
		Name: g.Name, ID: g.ID, SeqNo: g.SeqNo, ExtentSize: g.ExtentSize, Status: g.Status,
		Written: g.CreationTime, Host: g.CreationHost, Problems: slices.Clone(g.Warnings),
		PVs: []pvJSON{}, LVs: []volumeJSON{},
	}
	for _, m := range g.PVs {
		p := pvJSON{Name: m.Name, ID: m.ID, Device: m.Device, Size: m.DeviceSize, Extents: m.Extents, Missing: m.Missing}
		if m.Disk != nil {
			p.On = m.Disk.Name
		}
		j.Size += m.Extents * g.ExtentSize
		j.PVs = append(j.PVs, p)
	}
	pools := map[string]*poolRecords{}
	for _, lv := range g.LVs {
		v := describeVolume(lv)
		if name := lv.Pool(); name != "" && records {
			r, ok := pools[name]
			if !ok {
				var err error
				if r, err = recordsOf(g, name); err != nil {
					j.Problems = append(j.Problems, err.Error())
				}
				pools[name] = r
			}
			if r != nil {
				r.describe(&v)
			}
		}
		j.LVs = append(j.LVs, v)
	}
	return j
}

// poolRecords are the records of a pool's devices.
type poolRecords struct {
	chunk   int64 // bytes
	devices map[uint32]thin.Device
}

// recordsOf reads the records of a pool that is not in use.
func recordsOf(g *lvm.Group, pool string) (*poolRecords, error) {
	r := &poolRecords{devices: map[uint32]thin.Device{}}
	m, err := g.Pool(pool, lvm.OpenOptions{AllowNeedsCheck: true})
	if errors.Is(err, thin.ErrUnformatted) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := m.Devices()
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", g.Name, pool, err)
	}
	r.chunk = m.Superblock().DataBlockSize
	for _, d := range list {
		r.devices[d.ID] = d
	}
	return r, nil
}

// describe adds to a thin volume what its record says.
func (r *poolRecords) describe(v *volumeJSON) {
	d, ok := r.devices[*v.DeviceID]
	if !ok {
		v.Problem = "its pool has no device of that id"
		return
	}
	v.Mapped = new(int64(d.MappedBlocks) * r.chunk)
}

func describeVolume(lv *lvm.LV) volumeJSON {
	v := volumeJSON{
		Name: lv.Name, ID: lv.ID, Type: lv.Type(), Size: lv.VolumeSize(), Visible: lv.Visible(), Created: lv.CreationTime,
		Status: lv.Status, Pool: lv.Pool(), Origin: lv.Origin(), ExternalOrigin: lv.ExternalOrigin(),
	}
	if id, ok := lv.DeviceID(); ok {
		v.DeviceID = &id
	}
	if lv.Snapshot != nil {
		v.ChunkSize = lv.Snapshot.ChunkSize
	}
	switch {
	case lv.Fault != nil:
		v.Problem = lv.Fault.Error()
	case len(lv.Segments) > 0 && lv.Segments[0].Type == "thin-pool":
		v.ChunkSize = lv.Segments[0].ChunkSize
		v.TransactionID = &lv.Segments[0].TransactionID
	case len(lv.Segments) > 0 && lv.Segments[0].Type == "thin":
		v.TransactionID = &lv.Segments[0].TransactionID
	}
	for i := range lv.Segments {
		if r := lv.Segments[i].Refused; r != "" && v.Problem == "" {
			v.Problem = "cannot be read: " + r
		}
	}
	return v
}

// print shows what users see; with all, the volumes that others are made of
// too, in brackets as lvs has them.
func (j *groupJSON) print(w io.Writer, all bool) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		fmt.Fprintf(t, "%s:\t%s\n", key, fmt.Sprintf(format, args...))
	}
	row("volume group", "%s", text.Printable(j.Name))
	row("id", "%s", j.ID)
	row("metadata", "number %d of %s, by %s", j.SeqNo, formatUnix(j.Written), text.Printable(j.Host))
	row("size", "%s in extents of %s", text.Size(j.Size), text.Size(j.ExtentSize))
	row("status", "%s", text.Printable(strings.Join(j.Status, ", ")))
	for _, p := range j.Problems {
		row("problem", "%s", text.OneLine(p))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprint(t, "\nphysical volumes:\n  NAME\tSIZE\tON\n")
	for _, p := range j.PVs {
		on := text.Printable(p.On)
		if p.Missing != "" {
			on = text.OneLine(strings.TrimSpace(on + " (" + p.Missing + ")"))
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", text.Printable(p.Name), text.Size(p.Extents*j.ExtentSize), on)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprint(t, "\nlogical volumes:\n  NAME\tTYPE\tSIZE\tMAPPED\tPOOL\tTHIN ID\tORIGIN\tCREATED\n")
	for _, v := range j.LVs {
		if v.Visible || all {
			v.print(t)
		}
	}
	return t.Flush()
}

func (v *volumeJSON) print(w io.Writer) {
	name, id, mapped := text.Printable(v.Name), "-", "-"
	if !v.Visible {
		name = "[" + name + "]"
	}
	if v.DeviceID != nil {
		id = fmt.Sprint(*v.DeviceID)
	}
	if v.Mapped != nil {
		mapped = text.Size(*v.Mapped)
	}
	origin := orDash(v.Origin)
	if v.ExternalOrigin != "" && v.ExternalOrigin != v.Origin {
		origin = strings.TrimPrefix(origin+" over "+text.Printable(v.ExternalOrigin), "- ")
	}
	problem := ""
	if v.Problem != "" {
		problem = "\t" + text.OneLine(v.Problem)
	}
	fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%s%s\n", name, text.Printable(v.Type), text.Size(v.Size), mapped,
		orDash(v.Pool), id, origin, formatUnix(v.Created), problem)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return text.Printable(s)
}

// formatUnix prints seconds since 1970, 0 as unknown.
func formatUnix(sec int64) string {
	if sec == 0 {
		return "-"
	}
	return time.Unix(sec, 0).UTC().Format(text.TimeLayout)
}
