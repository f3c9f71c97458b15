package cli

import (
	"fmt"
	"sync/atomic"
	"time"

	"cbt/internal/fail"
	"cbt/internal/imagelock"
	"cbt/internal/record"
	"cbt/internal/text"
)

// deviceWatch notices that a device is written to, or begins to be used, while
// it is read. Files have times for that; the times of a device are its node's.
type deviceWatch struct {
	writes string // the kernel's counts when it was opened; empty: not known
	frozen bool   // whoever uses it, nobody writes to it
	looked atomic.Int64
}

// lookEvery is how often those who look after each read look at more than the
// counts.
const lookEvery = 100 * time.Millisecond

// refuseWritten refuses a source that something on this host may write to,
// but QEMU's machines, which hold finds: what is mounted, used by other devices,
// behind a loop device. Only --frozen is the user's word that nobody does. Info
// only looks.
func (o *opener) refuseWritten(f *file) error {
	// What lies on a device that others are made of may be frozen while others
	// write to the rest of it; of a volume they do not.
	if o.metadataOnly || o.Frozen && f.lv == nil || f.vol != nil || f.watch != nil {
		return nil
	}
	if !o.Frozen {
		if err := f.refuseWritten(o.canFreeze); err != nil {
			return err
		}
	}
	if !f.Info.Block {
		return nil
	}
	// What is in the page cache yet is read, and must not count as written later.
	_ = f.Sync()
	f.watch = &deviceWatch{writes: record.DeviceWrites(f.Info), frozen: o.Frozen}
	f.watch.looked.Store(time.Now().UnixNano())
	return nil
}

func (f *file) refuseWritten(canFreeze bool) error {
	by, advice, err := imagelock.Written(f.File)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	if by == "" {
		return nil
	}
	if canFreeze && advice != "" {
		advice += "; "
	}
	if canFreeze {
		advice += "--frozen: nobody writes to it"
	}
	if advice != "" {
		advice = " (" + advice + ")"
	}
	return fail.Busy("%s: is in use: %s%s", f.Path, text.Printable(by), advice)
}

// check says whether a device was written to since it was opened.
func (w *deviceWatch) check(f *file) error {
	now, last := time.Now().UnixNano(), w.looked.Load()
	if now-last > int64(lookEvery) && w.looked.CompareAndSwap(last, now) {
		_ = f.Sync() // what others wrote and the kernel holds back counts too
		if !w.frozen {
			if err := f.refuseWritten(false); err != nil {
				return err
			}
		}
	}
	if w.writes != "" && record.Sectors(record.DeviceWrites(f.Info)) != record.Sectors(w.writes) {
		return fmt.Errorf("%s: was written to while it was read", f.Path)
	}
	return nil
}
