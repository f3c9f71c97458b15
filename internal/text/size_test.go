package text

import "testing"

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "4096": 4096, "64K": 65536, "64k": 65536, "64Ki": 65536, "64KiB": 65536, "512B": 512,
		"1.5G": 3 << 29, "2T": 2 << 40, "0.5K": 512, "9007199254740993": 9007199254740993,
		"9223372036854775807": 1<<63 - 1, "7E": 7 << 60,
	} {
		if n, err := ParseSize(s); err != nil || n != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", s, n, err, want)
		}
	}
	for _, s := range []string{
		"", " ", "-1", "+", "-1Ki", "NaN", "Inf", "1e3", "1_000", "0x10", "1.5", "0.3K", "10m5", "64KB", "5i", "5iB",
		"8E", "9223372036854775808", "99999999999999999G", "1.K", ".5K", "64 K", "64K ", "\n1",
	} {
		if n, err := ParseSize(s); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", s, n)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 100: "100 B", 1 << 10: "1 KiB", 3 << 29: "1.5 GiB", 64 << 20: "64 MiB", 1 << 40: "1 TiB", 1<<63 - 1: "8 EiB",
	} {
		if got := Size(n); got != want {
			t.Errorf("formatSize(%d) = %q, want %q", n, got, want)
		}
	}
}
