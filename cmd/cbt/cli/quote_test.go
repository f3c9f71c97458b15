package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"cbt/internal/testtool"
	"cbt/internal/text"
	"cbt/qcow2"
)

// oddWords are words that a shell, a terminal or JSON might make something
// else of.
func oddWords() []string {
	words := []string{"", "a\nb", `a\nb`, "\n", "a\n", "\n\n\n", "a'\n", `\`, "\\\n", "'\n!x", "!!", "$HOME\n", "`id`\t", "\x7f", "\xff", "\xff\n\n", "\xc3", "\xc3\n\xa9",
		"\u202e", "é\n1", "\x011", "\x1b[31m", "%s\n%d\\", "-n", "--", "=ls", "~", "a b", " ", "*", "{a,b}\r", "#x", "\u00a0", "\U0010ffff", "\ufffd\n"}
	random := rand.New(rand.NewPCG(1, 7))
	alphabet := []string{"\n", "\\", "'", "\"", "$", "!", "a", "7", "\xff", "\t", "é", "\x01", " ", "%", "n", "`", "-", "\u200b"}
	for range 1500 {
		var b strings.Builder
		for range 1 + random.IntN(6) {
			b.WriteString(alphabet[random.IntN(len(alphabet))])
		}
		words = append(words, b.String())
	}
	return words
}

// What is printed for pasting has to be read back byte for byte, after all that
// the printing does to it.
func TestShellsReadBack(t *testing.T) {
	words := oddWords()
	want := strings.Join(words, "\x00") + "\x00"
	run := func(t *testing.T, shell string, lines []string) {
		t.Helper()
		out := testtool.Run(t, shell, "-c", strings.Join(lines, "\n"))
		got := strings.Split(strings.TrimSuffix(out, "\x00"), "\x00")
		if out == want {
			return
		}
		for i, w := range words {
			if i >= len(got) || got[i] != w {
				t.Fatalf("%s reads %s as %q, want %q", shell, lines[i], append(got, "")[min(i, len(got))], w)
			}
		}
		t.Fatalf("%s reads more than there is", shell)
	}
	t.Run("line", func(t *testing.T) {
		testtool.Need(t, "bash")
		lines := make([]string, len(words))
		for i, w := range words {
			lines[i] = text.OneLine(fmt.Sprintf(`printf '%%s\0' %s`, text.Quote(w)))
		}
		run(t, "bash", lines)
	})
	t.Run("json", func(t *testing.T) {
		for _, shell := range []string{"bash", "dash"} {
			testtool.Need(t, shell)
			lines := make([]string, len(words))
			for i, w := range words {
				var str strings.Builder
				if err := writeJSON(&str, fmt.Sprintf(`printf '%%s\0' %s`, text.ScriptQuote(w))); err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal([]byte(str.String()), &lines[i]); err != nil {
					t.Fatal(err)
				}
				if !utf8.ValidString(lines[i]) {
					t.Fatalf("no UTF-8: %q", lines[i])
				}
			}
			run(t, shell, lines)
		}
	})
}

// The command that deletes a snapshot deletes that one, as it is printed and as
// JSON has it, though another one has the name that the first one's looks like
// when it is escaped.
func TestPastedCommandDeletes(t *testing.T) {
	for _, tool := range []string{"bash", "dash", "qemu-img"} {
		testtool.Need(t, tool)
	}
	for i, name := range []string{"two\nlines", "it's\n!", "tab\t$HOME\n", "bad\xffutf", "plain"} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Chdir(t.TempDir())
			image := "-a b\nc.qcow2"
			escaped := fmt.Sprintf("%q", name)
			names := []string{escaped[1:len(escaped)-1] + "'"[:i&1], name, "last"}
			if names[0] == name {
				names[0] = "other"
			}
			testtool.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "./"+image, "1M")
			if err := os.Mkdir("b", 0o700); err != nil {
				t.Fatal(err)
			}
			var note, out string
			for _, s := range names {
				testtool.Run(t, "qemu-img", "snapshot", "-c", s, "./"+image)
				if code, _, stderr := run(t, "backup", "--snapshot="+s, "--", image, "b"); code != 0 {
					t.Fatal(stderr)
				}
			}
			_, _, note = run(t, "backup", "--snapshot=last", "--", image, "b")
			_, out, _ = run(t, "backup", "--json", "--snapshot=last", "--", image, "b")
			var printed []string
			for line := range strings.Lines(note) {
				if _, command, ok := strings.Cut(line, ": qemu-img "); ok {
					printed = append(printed, "qemu-img "+command)
				}
			}
			var result backedUp
			if err := json.Unmarshal([]byte(out), &result); err != nil {
				t.Fatal(err)
			}
			saved, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if len(printed) != 2 || len(result.NoLongerNeeded) != 2 {
				t.Fatalf("%d commands, %d in JSON:\n%s\n%s", len(printed), len(result.NoLongerNeeded), note, out)
			}
			for n := range printed {
				for shell, command := range map[string]string{"bash": printed[n], "dash": result.NoLongerNeeded[n].Command} {
					if err := os.WriteFile(image, saved, 0o600); err != nil {
						t.Fatal(err)
					}
					testtool.Run(t, shell, "-c", command)
					left := snapshotNames(t, image)
					if slices.Contains(left, names[n]) || len(left) != 2 {
						t.Errorf("%s: %q should be gone, there are %q", command, names[n], left)
					}
				}
			}
		})
	}
}

func snapshotNames(t *testing.T, path string) (names []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := qcow2.Open(bytes.NewReader(data), int64(len(data)), qcow2.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range img.Snapshots() {
		names = append(names, s.Name)
	}
	return names
}

func TestQemuName(t *testing.T) {
	long := strings.Repeat("x", 256)
	for s, want := range map[string]string{"a": "a", "a\x00b": "a", long: long[1:], "": ""} {
		if got := qemuName(s); got != want {
			t.Errorf("qemuName(%q) = %q", s, got)
		}
	}
}
