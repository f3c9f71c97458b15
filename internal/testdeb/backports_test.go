package testdeb

import (
	"os"
	"testing"
)

func TestWithBackports(t *testing.T) {
	const targets = `http://mirror/debian/ bookworm main bookworm
http://mirror/debian/ bookworm contrib bookworm
http://mirror/debian/ bookworm-backports main bookworm-backports
http://mirror/debian-security/ bookworm-security main bookworm-security
`
	options := ""
	if _, err := os.Stat(keyring); err == nil {
		options = "[signed-by=" + keyring + "] "
	}
	want := ""
	for _, line := range []string{
		"http://mirror/debian/ bookworm main", "http://mirror/debian/ bookworm-backports main",
		"http://mirror/debian/ bookworm contrib", "http://mirror/debian/ bookworm-backports contrib",
		"http://mirror/debian-security/ bookworm-security main",
	} {
		want += "deb " + options + line + "\n"
	}
	if got := withBackports(targets, "bookworm"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got := withBackports(targets, "trixie"); got != "" {
		t.Errorf("sources of another Debian: %s", got)
	}
}
