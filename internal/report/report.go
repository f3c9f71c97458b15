// Package report is how code below the commands tells its user something while it
// works. What is said, and how it looks, is the caller's: a terminal, JSON, a log.
package report

// Reporter takes what is worth telling. Its methods may be called at the same time.
type Reporter interface {
	Warnf(format string, args ...any)  // something that the user should know or mend
	Notef(format string, args ...any)  // what was done
	Debugf(format string, args ...any) // details

	// Start begins to show how far work of total bytes is.
	Start(what string, total int64) Bar
}

// Bar shows how far one piece of work is. It may be used from several goroutines.
type Bar interface {
	Add(n int64) // n more bytes are done
	Set(n int64) // n bytes are done
	Finish()     // the work has ended, well or not
}

// None is a Reporter that tells nobody.
type None struct{}

// Warnf does nothing.
func (None) Warnf(string, ...any) {}

// Notef does nothing.
func (None) Notef(string, ...any) {}

// Debugf does nothing.
func (None) Debugf(string, ...any) {}

// Start returns a bar that shows nothing.
func (None) Start(string, int64) Bar { return NoBar{} }

// NoBar is a Bar that shows nothing.
type NoBar struct{}

// Add does nothing.
func (NoBar) Add(int64) {}

// Set does nothing.
func (NoBar) Set(int64) {}

// Finish does nothing.
func (NoBar) Finish() {}
