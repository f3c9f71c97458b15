package cli

import (
	"errors"
	"fmt"

	"cbt/internal/fail"
	"cbt/internal/text"
	"cbt/qcow2"
	"cbt/sparse"
)

// method is a way to find the changed extents of NEW against OLD.
type method struct {
	name string // as --method takes it
	text string // as the summary says it

	// changed names the changed extents of [off, off+n) with NEW's kinds; it
	// may name too much.
	changed func(off, n int64) sparse.Seq
	// trusted: changed goes by metadata that no byte was compared for.
	trusted bool
	// exact, if not nil, is changed without what does not differ after all.
	exact func() sparse.Seq
	// recheck, if not nil, says whether what changed is still all that changed.
	recheck func() error
}

const (
	methodAuto    = "auto"
	methodTables  = "tables"
	methodOverlay = "overlay"
	methodThin    = "thin"
	methodThick   = "thick"
	methodBitmap  = "bitmap"
	methodContent = "content"
)

// findMethod takes the cheapest method that is right for the two images, or
// the one that is asked for.
func findMethod(old, img *source, want, bitmap string) (method, error) {
	if bitmap != "" {
		if want != methodAuto && want != methodBitmap {
			return method{}, fail.Usage("--method %s and --bitmap exclude each other", text.Printable(want))
		}
		return bitmapMethod(old, img, bitmap)
	}
	switch want {
	case methodAuto:
		m, err := metadataMethod(old, img)
		if errors.Is(err, sparse.ErrUnrelated) {
			return contentMethod(old.View, img.View), nil
		}
		return m, err
	case methodTables, methodOverlay, methodThin, methodThick:
		m, err := metadataMethod(old, img)
		if errors.Is(err, sparse.ErrUnrelated) || err == nil && m.name != want {
			return method{}, fail.Usage("--method %s does not fit %s and %s", want, old.Ref, img.Ref)
		}
		return m, err
	case methodContent:
		return contentMethod(old.View, img.View), nil
	case methodBitmap:
		return method{}, fail.Usage("--method bitmap needs --bitmap NAME")
	}
	return method{}, fail.Usage("--method %s: must be auto, tables, overlay, thin, thick, bitmap or content", text.Printable(want))
}

// metadataMethod finds changes in tables that the two images share, or returns
// sparse.ErrUnrelated.
func metadataMethod(old, img *source) (method, error) {
	if m, ok := volumeMethod(old, img); ok {
		return m, nil
	}
	view, ok := img.View.(*qcow2.View)
	if !ok {
		return method{}, sparse.ErrUnrelated
	}
	m := method{
		name: methodOverlay, text: "overlay over its backing chain", trusted: true,
		changed: func(off, n int64) sparse.Seq { return view.ChangedOver(old.View, off, n) },
	}
	if old.Img == img.Img {
		m.name, m.text = methodTables, "shared tables of one image"
	}
	for _, err := range m.changed(0, 0) {
		return m, err
	}
	return m, nil
}

// bitmapMethod goes by what a persistent bitmap recorded since OLD.
func bitmapMethod(old, img *source, name string) (method, error) {
	view, ok := img.View.(*qcow2.View)
	if !ok {
		return method{}, fail.Usage("%s: is not a qcow2 image, so it has no bitmap %s", img.Ref, text.Printable(name))
	}
	m := method{
		name: methodBitmap, text: "bitmap " + text.Printable(name), trusted: true,
		changed: func(off, n int64) sparse.Seq { return view.ChangedByBitmap(old.View, name, off, n) },
	}
	for _, err := range m.changed(0, 0) {
		if errors.Is(err, qcow2.ErrBitmapDisabled) {
			return m, fail.Usage("%s: bitmap %s is disabled: it misses what was written since", img.Ref, text.Printable(name))
		}
		return m, fmt.Errorf("%s: %w", img.Ref, err)
	}
	return m, nil
}

// contentMethod names what is stored in either image: all else reads as zeros
// in both.
func contentMethod(old, img sparse.View) method {
	return method{
		name: methodContent, text: "content of what either image stores",
		changed: func(off, n int64) sparse.Seq {
			all := sparse.Extent{Off: off, Len: n}.Clip(0, img.Size())
			both := all.Clip(0, old.Size())
			news := img.Extents(all.Off, all.Len)
			grown := sparse.Clip(news, both.End(), all.End()-both.End())
			return sparse.Overlay(sparse.Overlay(sparse.Select(news, stored), sparse.Freed(old, img, both.Off, both.Len)), grown)
		},
		exact: func() sparse.Seq { return sparse.Compare(old, img, 0, max(old.Size(), img.Size())) },
	}
}

func stored(e sparse.Extent) bool { return e.Kind == sparse.Data }
