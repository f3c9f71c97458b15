package cli

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/dsnet/golib/unitconv"
)

// sizePattern leaves nothing to unitconv but digits and a binary prefix: it
// would take NaN, negative numbers, exponents and "10m" for ten thousandths.
// "64KB" is left out because it means 64000 to some.
var sizePattern = regexp.MustCompile(`^([0-9]{1,15}(?:\.[0-9]{1,9})?)(?:([KMGTPE])(?:iB?)?|B)?$`)

// parseSize reads a number of bytes: 4096, 64K, 64KiB, 1.5G. Prefixes are
// powers of 1024, as in QEMU's tools.
func parseSize(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	upper := strings.NewReplacer("k", "K", "m", "M", "g", "G", "t", "T").Replace(s)
	m := sizePattern.FindStringSubmatch(upper)
	if m == nil {
		return 0, fmt.Errorf("%s is no size: bytes, or K, M, G, T (KiB, MiB, ...)", printable(s))
	}
	v, err := unitconv.ParsePrefix(m[1]+m[2], unitconv.Base1024)
	if err != nil {
		return 0, fmt.Errorf("%s is no size: %w", printable(s), err)
	}
	if v != math.Trunc(v) {
		return 0, fmt.Errorf("%s is no whole number of bytes", printable(s))
	}
	if v >= 1<<63 {
		return 0, fmt.Errorf("%s is too large", printable(s))
	}
	return int64(v), nil
}

// formatSize is n for people: "64 MiB", "1.5 GiB", "100 B".
func formatSize(n int64) string {
	s := unitconv.FormatPrefix(float64(n), unitconv.IEC, 1)
	number := strings.TrimRight(s, "KMGTPEi")
	unit := s[len(number):] + "B"
	return strings.TrimSuffix(number, ".0") + " " + unit
}

// sizeValue is a flag that holds a size.
type sizeValue struct {
	n   int64
	set bool
}

func (v *sizeValue) Set(s string) (err error) {
	v.n, err = parseSize(s)
	v.set = err == nil
	return err
}

func (v *sizeValue) String() string {
	if !v.set {
		return ""
	}
	return strconv.FormatInt(v.n, 10)
}

func (v *sizeValue) Type() string { return "SIZE" }
