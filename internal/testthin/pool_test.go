package testthin

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testtool"
)

// TestToolsAccept has thin_check look at pools after random histories, and
// thin_dump say what is mapped.
func TestToolsAccept(t *testing.T) {
	testtool.Need(t, "thin_check")
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		p := New(20_000, 3000, []int{3, 9, 60, 252}[seed%4])
		p.Create(1)
		next := uint32(2)
		for range 60 {
			ids := p.Devices()
			id := ids[rnd.IntN(len(ids))]
			switch k := rnd.IntN(12); {
			case k < 6:
				for range rnd.IntN(20) {
					p.Write(id, uint64(rnd.IntN(300)))
				}
				p.Commit()
			case k < 8:
				for range rnd.IntN(20) {
					p.Discard(id, uint64(rnd.IntN(300)))
				}
			case k < 10:
				p.Snapshot(id, next)
				next += uint32(1 + rnd.IntN(40))
			case k == 10 && len(ids) > 1:
				p.Delete(id)
			case k == 11:
				p.Hold()
			}
		}
		file := filepath.Join(t.TempDir(), "meta")
		if err := os.WriteFile(file, p.Image(), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := testtool.Try(t, "thin_check", file); err != nil || strings.Contains(out, "expected") {
			t.Errorf("seed %d: thin_check: %v\n%s", seed, err, out)
		}
		dump := testtool.Run(t, "thin_dump", file)
		for _, id := range p.Devices() {
			want := fmt.Sprintf(`<device dev_id="%d" mapped_blocks="%d"`, id, len(p.Mappings(id)))
			if !strings.Contains(dump, want) {
				t.Errorf("seed %d: thin_dump has no %s", seed, want)
			}
		}
	}
}
