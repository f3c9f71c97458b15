package qcow2

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"cbt/sparse"
)

// Incompatible is the set of features that a reader must know to read the image.
type Incompatible uint64

// Compatible is the set of features that a reader may ignore.
type Compatible uint64

// Autoclear is the set of features that a writer must clear unless it knows them.
type Autoclear uint64

// The feature bits of the specification.
const (
	IncompatDirty       Incompatible = 1 << 0 // refcounts may be wrong; reading does not use them
	IncompatCorrupt     Incompatible = 1 << 1
	IncompatDataFile    Incompatible = 1 << 2
	IncompatCompression Incompatible = 1 << 3 // compression_type is not deflate
	IncompatExtendedL2  Incompatible = 1 << 4

	incompatKnown = IncompatDirty | IncompatCorrupt | IncompatDataFile | IncompatCompression | IncompatExtendedL2

	CompatLazyRefcounts Compatible = 1 << 0

	AutoclearBitmaps Autoclear = 1 << 0 // the bitmaps extension is consistent
	AutoclearRawData Autoclear = 1 << 1 // the external data file is a raw image by itself
)

// Reasons to refuse an image; errors.Is finds them in the *sparse.FormatError that Open returns.
var (
	ErrCutL1     = errors.New("the L1 table reaches past the end of the file")
	ErrCorrupt   = errors.New("the image is marked corrupt; qemu-img check -r all may repair a copy of it")
	ErrEncrypted = errors.New("encrypted images are not supported")
)

// FeatureKey identifies a feature by its set and its bit.
type FeatureKey struct {
	Set uint8 // 0 incompatible, 1 compatible, 2 autoclear
	Bit uint8 // from 0, the lowest
}

// builtinFeatures has the specification's names, spelled as QEMU writes them.
var builtinFeatures = map[FeatureKey]string{
	{0, 0}: "dirty bit",
	{0, 1}: "corrupt bit",
	{0, 2}: "external data file",
	{0, 3}: "compression type",
	{0, 4}: "extended L2 entries",
	{1, 0}: "lazy refcounts",
	{2, 0}: "bitmaps",
	{2, 1}: "raw external data",
}

// featureName returns the name of one feature: the format's own, else the image's, else "".
func featureName(names map[FeatureKey]string, k FeatureKey) string {
	if name, ok := builtinFeatures[k]; ok {
		return name
	}
	return names[k]
}

// validateFeatures refuses an image because of its feature bits or its encryption. names is the
// image's own feature name table.
func (h *Header) validateFeatures(names map[FeatureKey]string, opt Options) error {
	if unknown := h.Incompatible &^ incompatKnown; unknown != 0 {
		return headerError("incompatible_features", 72, uint64(h.Incompatible), "unknown: "+describeBits(names, 0, uint64(unknown)))
	}
	if h.Incompatible&IncompatCorrupt != 0 && !opt.AllowCorrupt {
		return &sparse.FormatError{Struct: "qcow2 header", Field: "incompatible_features", Off: 72, Value: uint64(h.Incompatible), Err: ErrCorrupt}
	}
	switch {
	case h.CryptMethod == CryptNone:
		return nil
	case h.Encryption() == "":
		return headerError("crypt_method", 32, h.CryptMethod, "unknown encryption")
	case opt.AllowEncrypted:
		return nil
	}
	return &sparse.FormatError{Struct: "qcow2 header", Field: "crypt_method", Off: 32, Value: h.CryptMethod, Msg: h.Encryption(), Err: ErrEncrypted}
}

// Encryption returns the name of the method, AES or LUKS, or "" if there is none or it is unknown.
func (h *Header) Encryption() string {
	switch h.CryptMethod {
	case CryptAES:
		return "AES"
	case CryptLUKS:
		return "LUKS"
	}
	return ""
}

// describeBits lists the bits of a feature set by name and number, for an error.
func describeBits(names map[FeatureKey]string, set uint8, v uint64) string {
	var list []string
	for ; v != 0; v &= v - 1 {
		bit := bits.TrailingZeros64(v)
		if name := featureName(names, FeatureKey{set, uint8(bit)}); name != "" {
			list = append(list, fmt.Sprintf("%q (bit %d)", name, bit))
		} else {
			list = append(list, fmt.Sprintf("bit %d, which the image does not name", bit))
		}
	}
	return strings.Join(list, ", ")
}

// featureList returns the features that are set, by the format's own names, by those of the image,
// or as "bit N".
func featureList(names map[FeatureKey]string, set uint8, v uint64) []string {
	var list []string
	for ; v != 0; v &= v - 1 {
		bit := bits.TrailingZeros64(v)
		name := featureName(names, FeatureKey{set, uint8(bit)})
		if name == "" {
			name = fmt.Sprintf("bit %d", bit)
		}
		list = append(list, name)
	}
	return list
}
