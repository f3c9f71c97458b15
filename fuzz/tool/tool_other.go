//go:build !unix

package tool

import "os"

// ExitCode is 128+N for a process that signal N ended.
func ExitCode(p *os.ProcessState) int { return p.ExitCode() }

func maxRSS(*os.ProcessState) int64 { return 0 }
