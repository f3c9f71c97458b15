package cli

import (
	"fmt"

	"cbt/lvm"
	"cbt/lvm/thin"
	"cbt/sparse"
)

// volumeMethod finds changes between volumes in metadata that they share; ok
// is false if they share none.
func volumeMethod(old, img *source) (m method, ok bool) {
	m.trusted = true
	switch {
	case old.vol != nil && img.vol != nil:
		how := lvm.MethodOf(old.vol.Volume, img.vol.Volume)
		if how == "" {
			return m, false
		}
		m.name, m.text = methodThin, "thin metadata"
		if how == lvm.MethodCOW {
			m.name, m.text = methodThick, "exception tables of thick snapshots"
			m.recheck = originRecheck(old.vol.Volume, img.vol.Volume)
		}
		m.changed = func(off, n int64) sparse.Seq {
			return lvm.Changed(old.vol.Volume, img.vol.Volume, off, n)
		}
	case old.bare != nil && old.bare == img.bare:
		m.name, m.text = methodThin, "thin metadata"
		m.changed = func(off, n int64) sparse.Seq {
			return thin.Changed(old.View.(*thin.View), img.View.(*thin.View), off, n)
		}
	default:
		return m, false
	}
	return m, true
}

// originRecheck says, where one of the two is the origin of the other, whether
// that was written to since: the table has grown then.
func originRecheck(a, b *lvm.Volume) func() error {
	for _, v := range []*lvm.Volume{a, b} {
		if c := v.COW(); c != nil && (c.Origin() == a || c.Origin() == b) {
			return func() error {
				if err := c.Recheck(); err != nil {
					return fmt.Errorf("%s: %w", v.LV().FullName(), err)
				}
				return nil
			}
		}
	}
	return nil
}
