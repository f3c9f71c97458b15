package cli

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"

	"cbt/internal/report"
	"cbt/internal/text"
)

// progress shows on stderr how far a command is: a bar, or with --json an object
// a second. It is safe for concurrent use, and does nothing where nobody wants
// to see it.
type progress struct {
	app   *app
	what  string
	total int64
	done  atomic.Int64

	mu    sync.Mutex
	next  time.Time // nothing is shown before
	bar   *progressbar.ProgressBar
	shown bool
}

// progressDelay is how long a command runs before anything is shown, if nobody asked
// for it: until then nothing is known of how long it will take.
const progressDelay = time.Second

// Start shows progress towards total bytes, if stderr is a terminal
// or the user asked for it. Call finish before anything else is printed. Bytes are
// those of the image, many of which are passed over; so no rate is shown.
func (a *app) Start(what string, total int64) report.Bar {
	p := &progress{what: what, total: max(total, 1)}
	if !a.progress && !a.StderrTerminal || a.json && !a.progress {
		return p
	}
	p.app = a
	if !a.progress {
		p.next = time.Now().Add(progressDelay)
	}
	if a.json {
		return p
	}
	p.bar = progressbar.NewOptions64(p.total,
		progressbar.OptionSetWriter(a.Stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetRenderBlankState(false),
		progressbar.OptionSetWidth(24),
		progressbar.OptionClearOnFinish(),
	)
	return p
}

// Add says that n more bytes are done.
func (p *progress) Add(n int64) { p.Set(p.done.Add(n)) }

// Set says how many bytes are done.
func (p *progress) Set(n int64) {
	p.done.Store(n)
	if p.app == nil || !p.mu.TryLock() { // whoever has it shows something just as new
		return
	}
	defer p.mu.Unlock()
	now := time.Now()
	if now.Before(p.next) {
		return
	}
	n = min(n, p.total)
	p.shown = true
	if p.bar == nil {
		p.next = now.Add(progressDelay)
		p.app.object(progressLine{p.what, n, p.total})
		return
	}
	p.next = now.Add(100 * time.Millisecond)
	// Its errors are those of a terminal that went away.
	_ = p.bar.Set64(n)
	p.bar.Describe(fmt.Sprintf("%s: %s of %s", p.what, text.Size(n), text.Size(p.total)))
}

// Finish takes the line away.
func (p *progress) Finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil && p.shown {
		_ = p.bar.Finish()
		p.shown = false
	}
}
