package cli

import (
	"encoding/json"
	"fmt"

	"cbt/internal/fail"
	"cbt/internal/text"
)

// With --json every line on stderr is an object: a failure, which is the last one,
// or one with the key warning, note, debug or progress.

// failure is how a run ended that did not end well.
type failure struct {
	Error string `json:"error"`
	Exit  int    `json:"exit"`
	Stack string `json:"stack,omitempty"` // of an internal error, with --verbose
}

// progressLine is how far a command is.
type progressLine struct {
	Progress string `json:"progress"` // what it does
	Done     int64  `json:"done"`     // bytes
	Total    int64  `json:"total"`
}

// line prints one line on stderr: with --json an object whose key is kind.
func (a *app) line(kind, before, format string, args []any) {
	text := text.OneLine(fmt.Sprintf(format, args...))
	if a.json {
		a.object(map[string]string{kind: text})
		return
	}
	fmt.Fprintf(a.Stderr, "%s%s\n", before, text)
}

// object prints v on stderr, in a line of its own.
func (a *app) object(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		line = fmt.Appendf(nil, `{"error": %q, "exit": %d}`, "internal error: "+err.Error(), fail.Failed)
	}
	fmt.Fprintf(a.Stderr, "%s\n", text.EscapeJSON(string(line)))
}
