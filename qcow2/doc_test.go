package qcow2

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// seen holds the messages of format errors that the tests met.
var seen struct {
	sync.Mutex
	messages map[string]bool
}

func noteMessage(msg string) {
	seen.Lock()
	defer seen.Unlock()
	if seen.messages == nil {
		seen.messages = make(map[string]bool)
	}
	seen.messages[msg] = true
}

// TestMain checks, after all tests have run, that docs/qcow2.md lists the messages that they met,
// and that they met every message listed there.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" && !testing.Short() {
		for _, fault := range checkDocs() {
			fmt.Println("docs/qcow2.md:", fault)
			code = 1
		}
	}
	os.Exit(code)
}

func checkDocs() (faults []string) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "qcow2.md"))
	if err != nil {
		return []string{err.Error()}
	}
	wild := regexp.MustCompile(`<[^>]*>`)
	patterns := make(map[string]*regexp.Regexp)
	for i, block := range strings.Split(string(page), "```\n") {
		if i%2 == 0 {
			continue
		}
		for _, line := range strings.Split(strings.TrimSpace(block), "\n") {
			parts := wild.Split(line, -1)
			for i := range parts {
				parts[i] = regexp.QuoteMeta(parts[i])
			}
			patterns[line] = regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
		}
	}
	met := make(map[string]bool)
	for msg := range seen.messages {
		listed := false
		for line, re := range patterns {
			if re.MatchString(msg) {
				met[line], listed = true, true
			}
		}
		if !listed {
			faults = append(faults, "does not list: "+msg)
		}
	}
	for line := range patterns {
		if !met[line] {
			faults = append(faults, "no test met: "+line)
		}
	}
	return faults[:min(len(faults), 20)]
}
