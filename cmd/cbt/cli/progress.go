package cli

import (
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
)

// progress shows on stderr how far a command is. It is safe for concurrent
// use, and does nothing where nobody wants to see it.
type progress struct {
	bar  *progressbar.ProgressBar
	done atomic.Int64
}

// startProgress shows progress towards total bytes, if stderr is a terminal
// or the user asked for it. Call finish before anything else is printed.
func (a *app) startProgress(what string, total int64) *progress {
	p := &progress{}
	if !a.progress && !a.StderrTerminal || a.json && !a.progress {
		return p
	}
	p.bar = progressbar.NewOptions64(max(total, 1),
		progressbar.OptionSetWriter(a.Stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
	return p
}

// add says that n more bytes are done.
func (p *progress) add(n int64) { p.set(p.done.Add(n)) }

// set says how many bytes are done.
func (p *progress) set(n int64) {
	p.done.Store(n)
	if p.bar != nil {
		// Its errors are those of a terminal that went away.
		_ = p.bar.Set64(min(n, p.bar.GetMax64()))
	}
}

// finish takes the line away.
func (p *progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
