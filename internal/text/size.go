package text

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/dsnet/golib/unitconv"
)

// Count returns "1 file", "2 files" and so on.
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// sizePattern leaves nothing to unitconv but digits and a binary prefix: it
// would take NaN, negative numbers, exponents and "10m" for ten thousandths.
// "64KB" is left out because it means 64000 to some.
var sizePattern = regexp.MustCompile(`^([0-9]{1,15}(?:\.[0-9]{1,9})?)(?:([KMGTPE])(?:iB?)?|B)?$`)

// ParseSize reads a number of bytes: 4096, 64K, 64KiB, 1.5G. Prefixes are
// powers of 1024, as in QEMU's tools.
func ParseSize(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	upper := strings.NewReplacer("k", "K", "m", "M", "g", "G", "t", "T").Replace(s)
	m := sizePattern.FindStringSubmatch(upper)
	if m == nil {
		return 0, fmt.Errorf("%s is no size: bytes, or K, M, G, T (KiB, MiB, ...)", Printable(s))
	}
	v, err := unitconv.ParsePrefix(m[1]+m[2], unitconv.Base1024)
	if err != nil {
		return 0, fmt.Errorf("%s is no size: %w", Printable(s), err)
	}
	if v != math.Trunc(v) {
		return 0, fmt.Errorf("%s is no whole number of bytes", Printable(s))
	}
	if v >= 1<<63 {
		return 0, fmt.Errorf("%s is too large", Printable(s))
	}
	return int64(v), nil
}

// Size returns n bytes for people to read: "64 MiB", "1.5 GiB", "100 B".
func Size(n int64) string {
	s := unitconv.FormatPrefix(float64(n), unitconv.IEC, 1)
	number := strings.TrimRight(s, "KMGTPEi")
	unit := s[len(number):] + "B"
	return strings.TrimSuffix(number, ".0") + " " + unit
}
