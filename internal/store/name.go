package store

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"
	"time"

	"cbt/cbt"
)

const (
	Suffix       = ".cbt"
	MaxImageName = 150 // of 255 bytes that file systems allow
)

// FileName is what backup calls a delta: IMAGE-TIME-ID.cbt. try above 1
// is for names that are taken.
func FileName(image string, at time.Time, id cbt.ID, try int) string {
	name := fmt.Sprintf("%s-%s-%s", image, at.UTC().Format(nameTime), id.String()[:12])
	if try > 1 {
		name += fmt.Sprintf("-%d", try)
	}
	return name + Suffix
}

const nameTime = "20060102T150405Z"

var deltaNamePattern = regexp.MustCompile(`^(.+)-(\d{8}T\d{6}Z)-[0-9a-f]{12}(?:-\d+)?\.cbt$`)

// SplitName takes the name of a delta apart; ok is false if backup did
// not give it.
func SplitName(name string) (image string, at time.Time, ok bool) {
	m := deltaNamePattern.FindStringSubmatch(name)
	if m == nil {
		return "", at, false
	}
	at, err := time.Parse(nameTime, m[2])
	return m[1], at, err == nil
}

// ImageName makes a part of a file's name of any name: letters, digits, . _ and
// -, and no dot or hyphen first. What that changes gets a few digits of the
// name's SHA-256, so that two names do not become one.
func ImageName(name string) string {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, name)
	if safe == "" || safe[0] == '.' || safe[0] == '-' {
		safe = "_" + safe
	}
	if len(safe) > MaxImageName {
		safe = safe[:MaxImageName-9]
	}
	if safe != name {
		sum := sha256.Sum256([]byte(name))
		safe += fmt.Sprintf(".%x", sum[:4])
	}
	return safe
}
