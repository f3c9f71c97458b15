package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"cbt/internal/infile"
	"cbt/lvm"
)

// fileSourceV1 begins what the identity of a file as a source is made of.
const fileSourceV1 = "cbt source 1: file"

// identity says which disk a source is of, whatever its state and its name:
// deltas carry it to other hosts, so no path is told. It is "" where nothing tells
// it. A file that was copied is another one.
func (s *source) identity() string {
	switch {
	case len(s.layers) > 0:
		l := s.layers[len(s.layers)-1]
		return l.Delta.Header.Streams[l.Stream].Source
	case s.vol != nil:
		return volumeIdentity(s.vol.LV(), s.Point != "")
	case s.img != nil && s.img.file.lv != nil: // an image in a volume, which has its own snapshots
		return volumeIdentity(s.img.file.lv, false)
	case s.img != nil && !s.img.file.Info.Block:
		sum := sha256.Sum256(s.img.file.Info.AppendIdentity(infile.AppendString(nil, fileSourceV1)))
		return "file:" + hex.EncodeToString(sum[:16])
	}
	return ""
}

// volumeIdentity is the UUID of a volume; of a snapshot, that of what it is one
// of. A snapshot that was written to since is a machine of its own, so it counts
// as one only if it is frozen.
func volumeIdentity(lv *lvm.LV, frozen bool) string {
	if origin := lv.Origin(); origin != "" && frozen {
		for _, other := range lv.Group().LVs {
			if other.Name == origin {
				lv = other
				break
			}
		}
	}
	if lv.ID == "" || len(lv.ID) > 100 || strings.ContainsFunc(lv.ID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return formatVolume + ":" + lv.ID
}

// machineName is what the delta that a source is read from says of its machine.
func (s *source) machineName() string {
	if s == nil || len(s.layers) == 0 {
		return ""
	}
	return s.layers[len(s.layers)-1].Delta.Header.Machine
}
