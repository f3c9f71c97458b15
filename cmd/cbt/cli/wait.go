package cli

import "time"

// defaultWait is how long a run waits for another one on the same thin pool.
const defaultWait = 10 * time.Minute

// waitValue is a flag that takes a time to wait.
type waitValue struct{ d time.Duration }

func (w *waitValue) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return usageErrorf("must be a time like 30s or 10m")
	}
	w.d = d
	return nil
}

func (w *waitValue) String() string { return w.d.String() }
func (w *waitValue) Type() string   { return "time" }
