package cli

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"cbt/internal/outfile"
)

// journalName is the file that remembers which deltas a prune under way looks
// at together. Once a full delta is merged into its children they have no point
// in common; a run that goes on where another was killed would take them for
// groups of their own, and keep more. It holds no names: points stay what they
// are while files are rewritten.
const (
	journalName = ".cbt-prune"
	maxJournal  = 64 << 20 // bytes
)

type journal struct {
	Groups [][]string `json:"groups"`           // hashes of points
	Moving []string   `json:"moving,omitempty"` // of the bases that fall away: they are not looked at again
}

func (d *prunedDelta) pointHash() string {
	sum := sha256.Sum256([]byte(d.point))
	return fmt.Sprintf("%x", sum[:16])
}

// readJournal says which points a killed run looked at together, by the number
// of the group, and remembers which bases it had begun to move.
func (p *pruner) readJournal() (map[string]int, error) {
	path := filepath.Join(p.dir, journalName)
	text, err := p.audit.ReadFile("record", path, maxJournal)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var j journal
	if err == nil {
		err = json.Unmarshal(text, &j)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: is not what prune writes there: %w (delete it if no prune was interrupted)", path, err)
	}
	p.moving = map[string]bool{}
	for _, hash := range j.Moving {
		p.moving[hash] = true
	}
	groups := map[string]int{}
	for n, points := range j.Groups {
		for _, hash := range points {
			groups[hash] = n
		}
	}
	return groups, nil
}

// writeJournal remembers the groups that have something to do; if there are
// none, it removes what an earlier one left.
func (p *pruner) writeJournal(groups []*pruneGroup) error {
	path := filepath.Join(p.dir, journalName)
	var j journal
	for _, g := range groups {
		if !g.pending {
			continue
		}
		var points []string
		for _, d := range g.Deltas {
			if d.err != nil {
				continue
			}
			hash := d.pointHash()
			points = append(points, hash)
			if p.moving[hash] || slices.Contains(g.moves, hash) {
				j.Moving = append(j.Moving, hash)
			}
		}
		j.Groups = append(j.Groups, points)
	}
	if len(j.Groups) > 0 {
		text, err := json.Marshal(j)
		if err != nil {
			return err
		}
		return p.audit.WriteFile("record", path, append(text, '\n'))
	}
	left := outfile.RemovePart(path)
	err := p.audit.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return left
	}
	return errors.Join(left, err, outfile.SyncDir(p.dir))
}
