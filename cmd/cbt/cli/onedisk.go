package cli

import (
	"cbt/internal/fail"
	"cbt/internal/text"
)

// oneImage refuses a disk that is another state of the image of one before it: a delta has one state of each disk.
func oneImage(disks []disk, img *source, again string) error {
	for _, d := range disks {
		same := d.img.img != nil && d.img.img == img.img
		if same || d.img.Ref == img.Ref {
			return fail.Usage("%s and %s are two states of one disk, and a delta has one state of each disk: %s", text.Printable(d.img.Ref), text.Printable(img.Ref), again)
		}
	}
	return nil
}

// warnOneDisk warns of volumes that are states of one volume, as its snapshots are. It may be meant: what was
// written to since is a disk of its own, and nothing tells.
func (a *app) warnOneDisk(disks []disk) {
	for i := range disks {
		for k := range i {
			x, y := disks[k].img, disks[i].img
			if id := x.identity(); id != "" && id == y.identity() && x.vol != nil && y.vol != nil {
				a.Warnf("%s and %s are of one volume, and become two disks of one delta: two states of one disk are backed up one after the other, the older one first", text.Printable(x.Ref), text.Printable(y.Ref))
			}
		}
	}
}
