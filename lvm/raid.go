package lvm

import (
	"errors"
	"fmt"

	"cbt/sparse"
)

// raid returns the content of a raid segment that is healthy, or that has copies of everything that
// is lost.
func (r *resolver) raid(lv *LV, s *Segment) (sparse.View, error) {
	switch {
	case s.Reshaping != "":
		return nil, lv.refuse(fmt.Sprintf("%s: it is being reshaped (%s)", s.Type, s.Reshaping))
	case lv.has("RESHAPE") || lv.has("REBUILD"):
		return nil, lv.refuse(s.Type + ": it is being reshaped or rebuilt")
	}
	size := s.Count * lv.group.ExtentSize
	l := raidLevels[s.Type]
	lay := layout{legs: int64(len(s.Images)), parity: l.parity, copies: s.DataCopies, image: l.image}
	each := size // size of an image in bytes
	if l.name != "raid1" {
		if size%s.StripeSize != 0 {
			return nil, lv.formatError(s.StripeSize, fmt.Sprintf("the stripe size does not divide the %d bytes", size))
		}
		each = lay.rows(size/s.StripeSize) * s.StripeSize
	}
	images, why, err := r.images(lv, s, each)
	if err != nil {
		return nil, err
	}
	metas := make([]sparse.View, len(s.Metas))
	for i, name := range s.Metas {
		v, err := r.component(lv, name)
		if missing := new(MissingError); err != nil && !errors.As(err, &missing) {
			return nil, err
		}
		metas[i] = v
	}
	synced := true
	if len(metas) > 0 {
		var lost []string
		if lost, synced, err = raidHealth(s, metas); err != nil {
			return nil, fmt.Errorf("%s: %w", lv.FullName(), err)
		}
		for i := range lost {
			if why[i] == nil && lost[i] != "" {
				images[i], why[i] = nil, lv.refuse(fmt.Sprintf("%s: %s: %s", s.Type, s.Images[i], lost[i]))
			}
		}
	}
	switch l.name {
	case "raid1":
		return lv.anyImage(s, images, why, synced)
	case "raid10":
		if err := lv.enoughCopies(s, &lay, images, why, synced); err != nil {
			return nil, err
		}
	default:
		for _, err := range why {
			if err != nil {
				return nil, fmt.Errorf("%w: %s is degraded, and is not put together from parity", err, lv.FullName())
			}
		}
	}
	return &striped{layout: lay, unit: s.StripeSize, size: size, legs: images}, nil
}

// images opens the images, each of which must have at least each bytes. For an image that must not
// be read, why holds the reason.
func (r *resolver) images(lv *LV, s *Segment, each int64) (images []sparse.View, why []error, err error) {
	images, why = make([]sparse.View, len(s.Images)), make([]error, len(s.Images))
	for i, name := range s.Images {
		if image := r.g.lvs[name]; image != nil && image.has("REBUILD") {
			why[i] = lv.refuse(fmt.Sprintf("%s: %s is being rebuilt", s.Type, name))
			continue
		}
		v, err := r.component(lv, name)
		if missing := new(MissingError); errors.As(err, &missing) {
			why[i] = err
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if v.Size() < each {
			return nil, nil, lv.formatError(v.Size(), fmt.Sprintf("image %s has fewer than %d bytes", name, each))
		}
		images[i] = section(v, 0, each)
	}
	return images, why, nil
}

// anyImage returns the first image of a raid1 that may be read. All reads go to one image, because
// images may differ where nothing was ever written.
func (lv *LV) anyImage(s *Segment, images []sparse.View, why []error, synced bool) (sparse.View, error) {
	for i, v := range images {
		if v == nil {
			continue
		}
		if i > 0 && (!synced || lv.has("NOTSYNCED")) {
			return nil, fmt.Errorf("%w: the other images may differ from it", why[0])
		}
		return v, nil
	}
	return nil, why[0]
}

// enoughCopies returns an error if a raid10 has lost all copies of some data.
func (lv *LV) enoughCopies(s *Segment, l *layout, images []sparse.View, why []error, synced bool) error {
	// The pattern of the copies repeats after legs units.
	for unit := range l.legs {
		c := int64(0)
		for ; c < l.copies; c++ {
			if leg, _ := l.copy(unit, c); images[leg] != nil {
				break
			}
		}
		leg, _ := l.copy(unit, 0)
		if c == l.copies {
			return fmt.Errorf("%w: %s has lost all copies of some data", why[leg], lv.FullName())
		}
		if c > 0 && (!synced || lv.has("NOTSYNCED")) {
			return fmt.Errorf("%w: its copy may differ from it", why[leg])
		}
	}
	return nil
}
