package qcow2

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"cbt/internal/lru"
	"cbt/sparse"
)

// Options tells Open how to get the files that an image names, and which damage to accept.
type Options struct {
	// Backing opens the backing file of an image that has one. The format is empty if the image
	// names none. If Backing is nil, such images are refused.
	Backing func(name, format string) (sparse.View, error)
	// Data opens the external data file of an image that has one and returns its bytes and its
	// size. The name is empty if the image names none. If Data is nil, such images are refused.
	Data func(name string) (io.ReaderAt, int64, error)
	// Holes, if not nil, returns the extents of the file (or of the external data file if there is
	// one) as the file system knows them; see sparse.Raw. Extents then reports clusters that were
	// preallocated but never written as Zero.
	Holes func(off, n int64) sparse.Seq
	// AllowCorrupt accepts images that are marked corrupt, and images that end inside their L1
	// tables. Of those, the part that the file still has is read (see View.CutL1).
	AllowCorrupt bool
	// AllowEncrypted opens encrypted images for what their metadata tell. Reading stored data still
	// fails with ErrEncrypted.
	AllowEncrypted bool
}

// Image is an open qcow2 image. It is safe for concurrent use.
type Image struct {
	file   file
	data   file // holds the guest data: the image itself or its data file
	header Header
	layout layout
	ext    extensions

	snapshots []Snapshot
	backing   sparse.View // nil if the image has none
	active    *View

	holes    func(off, n int64) sparse.Seq // of data; may be nil
	lastHost atomic.Pointer[sparse.Extent] // the extent last returned by holes

	tables   *lru.Cache[slice, []byte]   // slices of L1 and L2 tables
	clusters *lru.Cache[l2Entry, []byte] // decompressed clusters, by descriptor

	allowCut bool // L1 tables may reach past the end of the file
}

// Open reads the header, the snapshot table and the active L1 table of the image in the first size
// bytes of r. These must stay readable and must not change while the image is used. One exception:
// a file that a machine runs on may grow while internal snapshots are read, and Recheck allows for
// that. A fault of the image is returned as a *sparse.FormatError; errors of r and of the callbacks
// are passed on.
func Open(r io.ReaderAt, size int64, opt Options) (*Image, error) {
	img := &Image{
		file:     file{r, size},
		holes:    opt.Holes,
		tables:   lru.New[slice, []byte](tableCache),
		clusters: lru.New[l2Entry, []byte](decodeCache),
		allowCut: opt.AllowCorrupt,
	}
	if err := img.readMetadata(opt); err != nil {
		return nil, err
	}
	if err := img.openData(opt); err != nil {
		return nil, err
	}
	if err := img.openBacking(opt); err != nil {
		return nil, err
	}
	var err error
	if img.active, err = img.newView(nil); err != nil {
		return nil, err
	}
	return img, nil
}

// readMetadata reads and checks the header, the extensions and the snapshot table. It judges
// features as soon as their names are known. So an image in a future format is refused for its
// unknown features, not for something else that is new in it.
func (img *Image) readMetadata(opt Options) error {
	err := img.readHead(opt)
	if err == nil {
		img.snapshots, err = img.header.readSnapshots(img.file.r, img.file.size)
	}
	return err
}

// readHead does what readMetadata does, except for the snapshot table.
func (img *Image) readHead(opt Options) error {
	h, err := readHeader(img.file.r, img.file.size)
	if err != nil {
		return err
	}
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		return h.Validate(img.file.size)
	}
	var extErr error
	img.ext, extErr = h.readExtensions(img.file.r, img.file.size)
	if err := h.validateFeatures(img.ext.features, opt); err != nil {
		return err
	}
	if err := h.validate(img.file.size, opt.AllowCorrupt); err != nil {
		return err
	}
	if extErr != nil {
		return extErr
	}
	if err := h.readBackingName(img.file.r, img.file.size); err != nil {
		return err
	}
	img.header, img.layout = h, h.layout()
	return nil
}

func (img *Image) openData(opt Options) error {
	img.data = img.file
	if !img.header.HasDataFile() {
		return nil
	}
	if opt.Data == nil {
		return fmt.Errorf("qcow2: external data file %q: not allowed", img.ext.dataFile)
	}
	r, size, err := opt.Data(img.ext.dataFile)
	if err != nil {
		return fmt.Errorf("qcow2: external data file %q: %w", img.ext.dataFile, err)
	}
	if size < 0 {
		return fmt.Errorf("qcow2: external data file %q: negative size %d", img.ext.dataFile, size)
	}
	img.data = file{r, size}
	return nil
}

func (img *Image) openBacking(opt Options) error {
	name := img.header.BackingFile
	if name == "" {
		return nil
	}
	if opt.Backing == nil {
		return fmt.Errorf("qcow2: backing file %q: not allowed", name)
	}
	v, err := opt.Backing(name, img.ext.backingFormat)
	if err != nil {
		return fmt.Errorf("qcow2: backing file %q: %w", name, err)
	}
	if v == nil {
		return errors.New("qcow2: Options.Backing returned no view and no error")
	}
	img.backing = v
	return nil
}

// Header returns the header of the image.
func (img *Image) Header() Header { return img.header }

// BackingFormat returns the format of the backing file as the image names it.
func (img *Image) BackingFormat() string { return img.ext.backingFormat }

// DataFile returns the name of the external data file as the image names it.
func (img *Image) DataFile() string { return img.ext.dataFile }

// Extensions returns the header extensions in the order of the file.
func (img *Image) Extensions() []Extension { return append([]Extension(nil), img.ext.all...) }

// FeatureNames returns the names of the features that are set, one list for each kind.
func (img *Image) FeatureNames() (incompatible, compatible, autoclear []string) {
	h := &img.header
	return featureList(img.ext.features, 0, uint64(h.Incompatible)),
		featureList(img.ext.features, 1, uint64(h.Compatible)),
		featureList(img.ext.features, 2, uint64(h.Autoclear))
}

// Dirty reports whether refcounts may be wrong because a writer with lazy refcounts did not close
// the image. Reading does not use refcounts.
func (img *Image) Dirty() bool { return img.header.Incompatible&IncompatDirty != 0 }

// Snapshots returns the entries of the snapshot table, in its order.
func (img *Image) Snapshots() []Snapshot { return append([]Snapshot(nil), img.snapshots...) }

// Active returns the active state: what a machine sees when it starts.
func (img *Image) Active() *View { return img.active }

// Snapshot returns the state of Snapshots()[i]. Each call makes a new View, with the record that
// Recheck compares against.
func (img *Image) Snapshot(i int) (*View, error) {
	if i < 0 || i >= len(img.snapshots) {
		return nil, fmt.Errorf("qcow2: snapshot %d of %d", i, len(img.snapshots))
	}
	s := &img.snapshots[i]
	if err := s.validate(&img.header, img.file.size, img.allowCut); err != nil {
		return nil, fmt.Errorf("qcow2 snapshot %q: %w", s.Name, err)
	}
	return img.newView(s)
}
