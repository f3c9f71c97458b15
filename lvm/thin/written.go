package thin

import "context"

// WrittenSinceCreation reports whether the device has a mapping as young as itself. If a snapshot
// has one, it was written to and is no longer as it was when it was taken. A device that is not a
// snapshot has one as soon as it was written to. Blocks that were only discarded are not noticed.
//
// It reads all leaves of the mapping tree, except those that the device shares with one of the
// related devices and that existed when the two parted: a mapping in such a leaf is older than
// both. That is certain if the device was never the origin of a snapshot, or if the related device
// is older. Other related devices, and those of other metadata, do not help and are ignored.
func (v *View) WrittenSinceCreation(ctx context.Context, related ...*View) (bool, error) {
	w := v.m.walk(v.dev.Root, mappings, v.t, v.height, 0, 1<<64-1)
	defer w.close()
	var beside []*walk
	for _, r := range related {
		parted := v.dev.SnapshottedTime == v.dev.CreationTime || r.dev.CreationTime < v.dev.CreationTime
		if r.m == v.m && r.dev.ID != v.dev.ID && parted {
			o := r.m.walk(r.dev.Root, mappings, r.t, r.height, 0, 1<<64-1)
			defer o.close()
			beside = append(beside, o)
		}
	}
	if len(beside) > 0 {
		w.other = beside[0]
	}
	for {
		if f := w.atEntry(); f != nil {
			for i := f.i; i < f.node.len(); i++ {
				if mapping(f.node.u64(i)).time() >= v.dev.CreationTime {
					return true, nil
				}
			}
			f.i = f.node.len()
			w.settle()
			continue
		}
		block, key, ok := w.atSubtree()
		if !ok {
			return false, nil
		}
		shared := false
		for _, o := range beside {
			found, err := o.has(block, key, w.levels())
			if err != nil {
				return false, err
			}
			shared = shared || found
		}
		if shared {
			w.skip()
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return false, err
		}
		if err := w.expand(); err != nil {
			return false, err
		}
	}
}

// has reports whether the tree of w contains the given block as a subtree with that many levels,
// whose lowest key is key. It moves forward from the previous call's place, and reads no leaf and
// nothing lower than what it looks for.
func (w *walk) has(block, key uint64, levels int) (bool, error) {
	for {
		at, low, ok := w.atSubtree()
		switch {
		case !ok:
			return false, nil
		case at == block:
			return true, nil
		case low > key:
			return false, nil
		case !w.holds(key):
			w.skip()
		case w.levels() <= levels:
			return false, nil
		default:
			if err := w.expand(); err != nil {
				return false, err
			}
		}
	}
}

// holds reports whether the subtree at the top is the one whose keys include key.
func (w *walk) holds(key uint64) bool {
	if !w.begun {
		return true
	}
	f := &w.frames[w.depth-1]
	return key <= f.node.below(f.place, f.i).hi
}
