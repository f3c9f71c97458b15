package cli

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"cbt/internal/fail"
	"cbt/internal/text"
	"cbt/lvm"
	"cbt/lvm/thin"
)

// infoVolume describes what a volume reference names; ok is false if ref is
// none.
func (a *app) infoVolume(ctx context.Context, o *opener, ref string, opt refOptions) (ok bool, err error) {
	switch {
	case ref == "" && len(o.PVs) > 0:
		return true, a.infoGroups(ctx, o, "")
	case ref == "" && o.ThinMetadata != "":
		return true, a.infoPool(ctx, o)
	case ref == "":
		return true, fail.Usage("info: needs REF, or --pv, or --thin-metadata")
	case !opt.Path && strings.HasPrefix(ref, lvmPrefix) && !strings.Contains(ref, "/"):
		return true, a.infoGroups(ctx, o, strings.TrimPrefix(ref, lvmPrefix))
	}
	v, ok, err := o.parseVolumeRef(ref, opt)
	if err != nil || !ok || o.holdsImage(opt) {
		return false, err
	}
	if v.thin {
		return true, a.infoThin(ctx, o, ref, v.id)
	}
	return true, a.infoLV(ctx, o, ref, v, opt)
}

type lvInfoJSON struct {
	Filename    string     `json:"filename"`
	Format      string     `json:"format"`
	VirtualSize int64      `json:"virtual-size"`
	Group       string     `json:"volume-group"`
	GroupID     string     `json:"volume-group-id"`
	Volume      volumeJSON `json:"volume"`
	Content     string     `json:"content,omitempty"`
	Instant     string     `json:"instant,omitempty"`
	Point       string     `json:"point,omitempty"`
	Problems    []string   `json:"problems,omitempty"`
}

// infoLV describes one volume. What keeps it from being read is a problem of
// its, not an error.
func (a *app) infoLV(ctx context.Context, o *opener, ref string, r volumeRef, opt refOptions) error {
	lv, err := o.findLV(ctx, r)
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	j := lvInfoJSON{
		Filename: ref, Format: formatVolume, VirtualSize: lv.VolumeSize(),
		Group: lv.Group().Name, GroupID: lv.Group().ID, Volume: describeVolume(lv),
	}
	var src *source
	if lv.Type() != "thin-pool" {
		src, err = o.openVolume(ctx, ref, r, opt)
	}
	if err == nil && src != nil {
		j.Content = contentOf(src)
		if t := src.vol.Thin(); t != nil {
			d := t.Device()
			n := int64(d.MappedBlocks) * src.vol.Pool().Superblock().DataBlockSize
			j.Volume.Mapped = &n
		}
		if !src.Instant.IsZero() {
			j.Instant = src.Instant.Format(text.TimeLayout)
		}
		if !o.inUse {
			j.Point, err = src.vol.point(ctx, o.Frozen, nil)
		}
	}
	if err != nil {
		j.Problems = append(j.Problems, err.Error())
	}
	if a.json {
		return writeJSON(a.Stdout, j)
	}
	t := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		fmt.Fprintf(t, "%s:\t%s\n", key, fmt.Sprintf(format, args...))
	}
	row("volume", "%s", text.Printable(lv.FullName()))
	row("id", "%s", lv.ID)
	row("type", "%s", text.Printable(lv.Type()))
	row("virtual size", "%s (%d bytes)", text.Size(j.VirtualSize), j.VirtualSize)
	if v := j.Volume; v.Pool != "" {
		row("pool", "%s, device %d, transaction %d", text.Printable(v.Pool), *v.DeviceID, *v.TransactionID)
		if v.Mapped != nil {
			row("mapped", "%s", text.Size(*v.Mapped))
		}
	}
	if j.Volume.Origin != "" {
		row("origin", "%s", text.Printable(j.Volume.Origin))
	}
	if j.Volume.ExternalOrigin != "" {
		row("external origin", "%s", text.Printable(j.Volume.ExternalOrigin))
	}
	if j.Volume.ChunkSize != 0 {
		row("chunk size", "%s", text.Size(j.Volume.ChunkSize))
	}
	if j.Content != "" {
		row("content", "starts like a %s image (--format %s describes it)", j.Content, j.Content)
	}
	row("created", "%s", formatUnix(j.Volume.Created))
	if j.Point != "" {
		row("point", "%s", j.Point)
	}
	for _, p := range j.Problems {
		row("problem", "%s", text.OneLine(p))
	}
	return t.Flush()
}

// contentOf is formatQcow2 if a volume starts like such an image.
func contentOf(s *source) string {
	head := make([]byte, len(signatures[0].magic))
	if _, err := s.View.ReadAt(head, 0); err != nil || string(head) != signatures[0].magic {
		return ""
	}
	return formatQcow2
}

// findLV finds what the text says of a volume.
func (o *opener) findLV(ctx context.Context, r volumeRef) (*lvm.LV, error) {
	if len(o.PVs) == 0 {
		h, err := o.openHost(ctx)
		if err != nil {
			return nil, err
		}
		_, lv, err := h.find(ctx, r, o.Warnf)
		return lv, err
	}
	groups, err := o.allGroups(ctx, r.group)
	if err != nil {
		return nil, err
	}
	lv := groups[0].LV(r.name)
	if lv == nil {
		return nil, noVolume(groups[0], r.name)
	}
	return lv, nil
}

type poolJSON struct {
	Filename      string           `json:"filename"`
	Format        string           `json:"format"`
	ChunkSize     int64            `json:"chunk-size"`
	TransactionID uint64           `json:"transaction-id"`
	Time          uint32           `json:"time"`
	NeedsCheck    bool             `json:"needs-check"`
	HeldRoot      uint64           `json:"held-root,omitempty"`
	DataBlocks    uint64           `json:"data-blocks"`
	DataUsed      uint64           `json:"data-blocks-used"`
	Metadata      uint64           `json:"metadata-blocks"`
	MetadataUsed  uint64           `json:"metadata-blocks-used"`
	Devices       []thinDeviceJSON `json:"devices"`
}

type thinDeviceJSON struct {
	ID            uint32 `json:"id"`
	Mapped        uint64 `json:"mapped-blocks"`
	TransactionID uint64 `json:"transaction-id"`
	CreationTime  uint32 `json:"creation-time"`
	Snapshotted   uint32 `json:"snapshotted-time"`
}

// infoPool describes the pool of --thin-metadata.
func (a *app) infoPool(ctx context.Context, o *opener) error {
	o.Force = true // only looked at
	p, err := o.openBarePool(ctx)
	if err != nil {
		return err
	}
	sb := p.meta.Superblock()
	devices, err := p.meta.Devices()
	if err != nil {
		return fmt.Errorf("%s: %w", o.ThinMetadata, err)
	}
	j := poolJSON{
		Filename: o.ThinMetadata, Format: "thin pool", ChunkSize: sb.DataBlockSize, TransactionID: sb.TransactionID, Time: sb.Time,
		NeedsCheck: sb.NeedsCheck(), HeldRoot: sb.HeldRoot, DataBlocks: sb.Data.Blocks, DataUsed: sb.Data.Allocated,
		Metadata: sb.Metadata.Blocks, MetadataUsed: sb.Metadata.Allocated, Devices: []thinDeviceJSON{},
	}
	for _, d := range devices {
		j.Devices = append(j.Devices, describeDevice(d))
	}
	if a.json {
		return writeJSON(a.Stdout, j)
	}
	t := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		fmt.Fprintf(t, "%s:\t%s\n", key, fmt.Sprintf(format, args...))
	}
	row("thin pool", "%s", text.Printable(o.ThinMetadata))
	row("chunk size", "%s", text.Size(sb.DataBlockSize))
	row("transaction", "%d", sb.TransactionID)
	row("data", "%d of %d chunks used", sb.Data.Allocated, sb.Data.Blocks)
	row("metadata", "%d of %d blocks used", sb.Metadata.Allocated, sb.Metadata.Blocks)
	if sb.NeedsCheck() {
		row("problem", "needs checking: an operation of the pool failed")
	}
	if sb.HeldRoot != 0 {
		row("metadata snapshot", "held at block %d", sb.HeldRoot)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprint(t, "\ndevices:\n  ID\tMAPPED\tTRANSACTION\tCREATED AT\tSNAPSHOTTED AT\n")
	for _, d := range j.Devices {
		fmt.Fprintf(t, "  %d\t%d chunks\t%d\t%d\t%d\n", d.ID, d.Mapped, d.TransactionID, d.CreationTime, d.Snapshotted)
	}
	return t.Flush()
}

func describeDevice(d thin.Device) thinDeviceJSON {
	return thinDeviceJSON{d.ID, d.MappedBlocks, d.TransactionID, d.CreationTime, d.SnapshottedTime}
}

// infoThin describes one device of the pool of --thin-metadata.
func (a *app) infoThin(ctx context.Context, o *opener, ref string, id uint32) error {
	src, err := o.openThin(ctx, ref, id)
	if err != nil {
		return err
	}
	d := describeDevice(src.View.(*thin.View).Device())
	if a.json {
		return writeJSON(a.Stdout, map[string]any{
			"filename": ref, "format": formatVolume, "virtual-size": src.View.Size(), "device": d,
		})
	}
	t := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "device:\t%d of %s\n", id, text.Printable(o.ThinMetadata))
	fmt.Fprintf(t, "virtual size:\tat least %s (%d bytes): the end of what is mapped\n", text.Size(src.View.Size()), src.View.Size())
	fmt.Fprintf(t, "mapped:\t%d chunks of %s\n", d.Mapped, text.Size(src.bare.meta.Superblock().DataBlockSize))
	fmt.Fprintf(t, "transaction:\t%d\n", d.TransactionID)
	return t.Flush()
}
