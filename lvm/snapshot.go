package lvm

import (
	"fmt"
	"io"

	"cbt/lvm/cow"
)

// snapshot opens a thick snapshot: its store over the current content of its origin.
func (r *resolver) snapshot(v *Volume) error {
	s := v.lv.Snapshot
	store, size, err := r.store(v.lv)
	if err != nil {
		return err
	}
	origin, err := r.volume(s.Origin)
	if err != nil {
		return fmt.Errorf("%s: origin: %w", v.lv.FullName(), err)
	}
	st, err := cow.Open(store, size, cow.Options{})
	if err != nil {
		return fmt.Errorf("%s: %w", v.lv.FullName(), err)
	}
	if v.cow, err = cow.NewView(st, origin, v.lv.SnapshotSize); err != nil {
		return fmt.Errorf("%s: %w", v.lv.FullName(), err)
	}
	v.view = v.cow
	return nil
}

// store returns the content of the exception store and its size in bytes.
func (r *resolver) store(lv *LV) (io.ReaderAt, int64, error) {
	d, err := r.device(lv, LayerStore, lv.Size)
	if err != nil || d != nil {
		return d, lv.Size, err
	}
	raw, err := r.raw(lv)
	if err != nil {
		return nil, 0, err
	}
	return raw, raw.Size(), nil
}
