package cli

import (
	"time"

	"cbt/internal/fail"
	"cbt/internal/retention"
)

// defaultWait is how long a run waits for another one on the same thin pool.
const defaultWait = 10 * time.Minute

// waitValue is a flag that takes a time to wait.
type waitValue struct{ d time.Duration }

func (w *waitValue) Set(s string) error {
	span, err := retention.ParseTime(s)
	if err != nil {
		return fail.Usage("must be a time like 30s or 10m")
	}
	now := time.Now()
	w.d = span.After(now).Sub(now)
	return nil
}

func (w *waitValue) String() string { return w.d.String() }
func (w *waitValue) Type() string   { return "TIME" }
