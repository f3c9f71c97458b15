package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"cbt/internal/imagelock"
	"cbt/internal/infile"
	"cbt/internal/store"
	"cbt/internal/text"
)

// unneeded is a snapshot that the directory has.
type unneeded struct {
	Snapshot string      `json:"snapshot"`
	Name     string      `json:"name"`
	ID       string      `json:"id,omitempty"`
	Command  string      `json:"command,omitempty"` // that deletes it, for any POSIX shell
	Running  bool        `json:"running,omitempty"` // somebody has the image open: a machine has to delete it
	QMP      *qmpCommand `json:"qmp,omitempty"`     // for the machine's monitor
	By       string      `json:"by,omitempty"`      // the program that has it open, if that is no machine
	HMP      string      `json:"hmp,omitempty"`     // for its human monitor; of all disks of the machine

	words []string // of the command
}

// qmpCommand is a command of QEMU's monitor.
type qmpCommand struct {
	Execute   string            `json:"execute"`
	Arguments map[string]string `json:"arguments"`
}

func (q *qmpCommand) String() string {
	var str bytes.Buffer
	e := json.NewEncoder(&str)
	e.SetEscapeHTML(false)
	if e.Encode(q) != nil {
		return "" // strings can always be encoded
	}
	return text.EscapeJSON(strings.TrimSuffix(str.String(), "\n"))
}

// noLongerNeeded are the snapshots of the source that the directory has, but
// for the newest, which the next run goes on from, and for what was backed up
// now. One whose RAM the directory has not is needed, unless RAM is not wanted.
func (b *backupRun) noLongerNeeded() []unneeded {
	list := []unneeded{}
	for i, states := range b.kept {
		d := &b.disks[i]
		var newest *kept
		for n := range states {
			if newest == nil || b.newer(i, &states[n], newest) {
				newest = &states[n]
			}
		}
		for n := range states {
			k := &states[n]
			if !k.spare || k.point == d.img.Point || k == newest {
				continue
			}
			if b.store.With([]store.Point{{Stream: d.stream(), Point: k.point}}, (k.ram || k.mayRAM) && b.opt.diff.ram != ramNo, nil) == nil {
				continue
			}
			list = append(list, b.deletion(k))
		}
	}
	return list
}

// deletion says how a snapshot is deleted now.
func (b *backupRun) deletion(k *kept) unneeded {
	u := unneeded{Snapshot: strings.TrimPrefix(k.ref, lvmPrefix), Name: k.name, ID: k.id, words: k.remove}
	if k.img != nil && k.img.file.vol == nil && b.runs(k.img) {
		u.byMachine(k)
	}
	u.Command = text.CommandLine(text.ScriptQuote, u.words...)
	return u
}

// byMachine says how the machine that has the image open deletes the snapshot.
func (u *unneeded) byMachine(k *kept) {
	m, _ := imagelock.MachineOf(k.img.file.File)
	u.Running, u.words = true, nil
	if u.By = m.Tool; u.By != "" {
		return
	}
	if k.alone {
		u.HMP = delvm(k.name)
	}
	switch {
	case m.Device != "" && utf8.ValidString(k.name+k.id):
		u.QMP = &qmpCommand{"blockdev-snapshot-delete-internal-sync", map[string]string{"device": m.Device, "id": k.id, "name": k.name}}
	case u.HMP != "":
		u.QMP = &qmpCommand{"human-monitor-command", map[string]string{"command-line": u.HMP}}
	}
	switch {
	case m.Domain == "":
	case k.alone && libvirtKnows(m.Domain, k.name):
		u.words = []string{"virsh", "snapshot-delete", m.Domain, k.name}
	case u.QMP != nil:
		u.words = []string{"virsh", "qemu-monitor-command", m.Domain, u.QMP.String()}
	}
}

// runs says whether a machine has an image open for writing. Where nothing can
// tell, qemu-img will be refused if one has.
func (b *backupRun) runs(img *image) bool {
	running, known := b.running[img]
	if !known {
		running, _ = imagelock.Writer(img.file.File)
		if b.running == nil {
			b.running = map[*image]bool{}
		}
		b.running[img] = running
	}
	return running
}

// libvirtKnows says whether libvirt keeps a record of a snapshot, which
// snapshot-delete removes too.
func libvirtKnows(domain, snapshot string) bool {
	if strings.Contains(domain+snapshot, "/") {
		return false
	}
	return infile.Exists(filepath.Join("/var/lib/libvirt/qemu/snapshot", domain, snapshot+".xml"))
}

// delvm is the command of the human monitor, which knows quotes and a few
// escapes; empty if it could not be said so.
func delvm(name string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-+:@%", r)
	}
	if name != "" && name[0] != '-' && strings.TrimLeftFunc(name, plain) == "" {
		return "delvm " + name
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(strings.ReplaceAll(name, "\n", ""), text.Unprintable) {
		return ""
	}
	return `delvm "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(name) + `"`
}

// wayOfMachine says how the machine that has the image open deletes the snapshot; "" if none has.
func (u *unneeded) wayOfMachine() string {
	switch {
	case u.QMP != nil && u.HMP != "":
		return fmt.Sprintf("a machine has the image open, whose monitor can delete it: %s (QMP), or for all its disks: %s (HMP)", u.QMP, u.HMP)
	case u.QMP != nil:
		return fmt.Sprintf("a machine has the image open, whose monitor can delete it: %s (QMP)", u.QMP)
	case u.By != "":
		return u.By + " has the image open: delete it when that has ended"
	case u.Running:
		return "a machine has the image open: delete it when that is off"
	}
	return ""
}

// sayUnneeded prints one on stderr.
func (a *app) sayUnneeded(u unneeded, always bool) {
	str := "no longer needed: " + text.Printable(u.Snapshot)
	if u.Command != "" {
		str += ": " + text.CommandLine(text.Quote, u.words...)
	} else if way := u.wayOfMachine(); way != "" {
		str += ": " + way
	}
	if always {
		a.sayf("%s", str)
	} else {
		a.Notef("%s", str)
	}
}
