package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"cbt/internal/testqemu"
	"cbt/internal/testtool"
)

// examplesNotRun are the examples of the help and of the documents that TestExamples
// does not run, and why.
var examplesNotRun = map[string]string{
	"cbt diff lvm:vg0/vm1-mon lvm:vg0/vm1-tue -o tuesday.cbt":                                         "LVM of this host: testdata/script/volumes_guest.txtar",
	"cbt backup --name vm1 --full-every 30 lvm:vg0/vm1-tue backups/":                                  "LVM of this host",
	"cbt backup --format qcow2 lvm:vg0/vm1@monday backups/":                                           "LVM of this host",
	"cbt mount --format qcow2 --allow /dev/vg0 --pv disk.raw lvm:vg0/vm1 /mnt":                        "a group vg0 on disk.raw",
	"cbt backup --format qcow2 --allow /dev/vg0 --frozen --name vm1 lvm:vg0/snap_vm1_monday backups/": "LVM of this host",
	"cbt lvm release-metadata-snap vg0/pool":                                                          "LVM of this host",
	"cbt diff --pv disk.raw lvm:vg0/vm1-mon lvm:vg0/vm1-tue":                                          "a group vg0 on disk.raw: testdata/script/volumes.txtar has others",
	"cbt info --pv guest.qcow2@monday lvm:vg0/root":                                                   "a group vg0 in guest.qcow2",
	"cbt info --pv disk.raw":                                                                          "a group on disk.raw",
	"cbt check --pv disk.raw lvm:vg0/pool":                                                            "a group vg0 on disk.raw",
	"cbt check --thin-metadata tmeta.bin":                                                             "the metadata of a pool",
	"nbd-client -unix /run/vm1.sock /dev/nbd0 && mount /dev/nbd0p1 /srv":                              "kernels without nbd",
	"cbt umount /mnt": "needs the mount of another example",
}

// examplePrepared is what has to be there, or not to be there, before an example
// that begins so; fresh NAME moves something away, copy NAME has a copy of it
// changed instead. All is as before afterwards.
var examplePrepared = []struct{ begins, do string }{
	{"cbt mount backups/ /mnt/points", "mkdir /mnt/points"},
	{"cbt restore ", "fresh disk.raw disk.raw.cbt-state disk.qcow2 tuesday.state"},
	{"cbt apply ", "fresh disk.raw disk.raw.cbt-state; cbt restore -q monday.cbt disk.raw"},
	{"cbt diff disk.qcow2@mon disk.qcow2@tue -o - |", "fresh disk.raw disk.raw.cbt-state; cbt diff -q --full disk.qcow2@mon -o mon.cbt; cbt restore -q mon.cbt disk.raw; rm mon.cbt"},
	{"cbt diff ", "fresh monday.cbt tuesday.cbt tue.cbt tue-ram.cbt"},
	{"cbt backup ", "fresh backups; mkdir backups"},
	{"cbt prune ", "copy backups"},
	{"cbt log --", "copy backups; cbt backup -q --ram no --name vm1 disk.qcow2@wednesday backups"}, // of last night
	{"cbt serve disk.qcow2@monday --socket", "briefly"},
	{"cbt serve root=", "briefly"},
	{"man ./man/", "fresh man; cbt man ./man"},
}

// examplesShell is what examples run in.
const examplesShell = `
aside() { [ ! -e "$1" ] || mv "$1" ../aside/; }
fresh() { for f; do aside "$f"; done; }
copy() { for f; do [ ! -e "$f" ] || { aside "$f"; cp -a --sparse=always "../aside/$f" "$f"; }; done; }
restored() { for f in ../aside/*; do [ ! -e "$f" ] || { rm -rf "${f##*/}"; mv "$f" .; }; done; }
ssh() { shift; "$@"; }
command -v man >/dev/null || man() { grep -q '^\.TH' "$1"; }
ready() { for i in $(seq 100); do [ ! -e "$1" ] || return 0; sleep 0.1; done; echo "no $1"; return 1; }
mount -t tmpfs tmpfs /mnt
mount --bind "$TOP/srv" /srv
mount --bind "$TOP/run" /run
cd "$TOP/work"
restored # what an example that failed left
`

// An example is a command line and where it is written.
type example struct {
	from string
	line string
}

// helpExamples are those of all commands, one list for each.
func helpExamples(t *testing.T) (all [][]example) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		var list []example
		for _, line := range strings.Split(c.Example, "\n") {
			if line = strings.TrimSpace(line); line != "" {
				list = append(list, example{c.CommandPath() + " --help", line})
			}
		}
		if list != nil {
			all = append(all, list)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRootCommand(&app{Env: System()}))
	if len(all) < 15 {
		t.Fatalf("only %d commands have examples", len(all))
	}
	return all
}

// docsExamples are the blocks of the README and of docs/*.md that have lines that begin
// with cbt. Blocks with other programs' files in them are in howto/, whose pages have
// a test each.
func docsExamples(t *testing.T) (all [][]example) {
	pages, _ := filepath.Glob("../../../docs/*.md")
	for _, page := range append(pages, "../../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "\n```") {
			if i%2 == 0 || !strings.Contains(block, "\ncbt ") || strings.Contains(block, "#!/bin/sh") {
				continue // crontab and unit files are not for a shell
			}
			_, block, _ = strings.Cut(block, "\n")
			var list []example
			for _, line := range strings.Split(strings.ReplaceAll(block, "\\\n", ""), "\n") {
				if line = strings.TrimSpace(line); strings.HasPrefix(line, "cbt ") && !strings.Contains(line, " < ") {
					list = append(list, example{filepath.Base(page), line})
				}
			}
			all = append(all, list)
		}
	}
	if len(all) < 2 {
		t.Fatal("no examples in README.md and docs")
	}
	return all
}

// script runs examples one after another. A line of two spaces and a # is a comment.
func exampleScript(list []example) string {
	var b strings.Builder
	b.WriteString("set -e\nPATH=\"$TOP/bin:$PATH\"\n" + examplesShell)
	for _, e := range list {
		if examplesNotRun[e.line] != "" && (e.line != "cbt umount /mnt" || len(list) == 1) {
			continue
		}
		do, run := "", e.line
		for _, p := range examplePrepared {
			if strings.HasPrefix(e.line, p.begins) {
				do = p.do
				break
			}
		}
		if do == "briefly" { // it serves until somebody stops it
			do, run = "", "timeout --preserve-status 1 "+e.line+" || [ $? = 143 ]"
		}
		if m := regexp.MustCompile(`(?:-o|>) ([a-z0-9.-]+/?)`).FindStringSubmatch(e.line); m != nil && !strings.HasPrefix(e.line, "mount") {
			do += "\nfresh " + strings.TrimSuffix(m[1], "/")
		}
		fmt.Fprintf(&b, "echo '+ %s'\n%s\n%s\n", strings.ReplaceAll(e.line, "'", `'\''`), do, run)
		if m := regexp.MustCompile(`--socket (\S+) &$`).FindStringSubmatch(e.line); m != nil {
			fmt.Fprintf(&b, "server=$!; ready %s\n", m[1])
		} else {
			b.WriteString("restored\n")
		}
	}
	b.WriteString("[ -z \"$server\" ] || kill $server\n")
	return b.String()
}

// Every example works as it is written, on images of machines that were running.
func TestExamples(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	all := append(helpExamples(t), docsExamples(t)...)
	top := prepareExamples(t)
	var met []string
	for _, list := range all {
		for _, e := range list {
			if examplesNotRun[e.line] != "" {
				met = append(met, e.line)
			}
		}
		t.Run(list[0].from, func(t *testing.T) {
			out, err := inNamespace(t, top, exampleScript(list))
			if err != nil {
				t.Errorf("%v: ...%s", err, out[max(0, len(out)-1500):])
			}
		})
	}
	for line := range examplesNotRun {
		if !slices.Contains(met, line) {
			t.Errorf("examplesNotRun has a line that is no example any more: %s", line)
		}
	}
}

// inNamespace runs a script where its mounts are its own.
func inNamespace(t *testing.T, top, script string) (string, error) {
	t.Helper()
	cmd := exec.Command(testtool.Need(t, "unshare"), "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", script)
	cmd.Env = append(os.Environ(), "TOP="+top, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	timer := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// prepareExamples makes what the examples name. The disks have an ext4 and an XFS
// whose journals wait, since they were copied while they were mounted.
func prepareExamples(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"qemu-img", "nbdinfo", "nbdcopy", "sfdisk", "mkfs.xfs", "mkfs.ext4", "file"} {
		testtool.Need(t, name)
	}
	top := t.TempDir()
	for _, dir := range []string{"work/backups", "srv", "run", "bin", "aside"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	work := filepath.Join(top, "work")
	sh := func(script string) {
		t.Helper()
		cmd := exec.Command("bash", "-c", "set -e; cd \"$0\"\n"+script, work)
		cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	// A QEMU that boots from the disk would stay: here it shows that it starts.
	qemu := testtool.Need(t, "qemu-system-x86_64")
	wrapper := "#!/bin/sh\ntimeout 3 " + qemu + " -display none -accel tcg \"$@\"\n[ $? = 124 ]\n"
	if err := os.WriteFile(filepath.Join(top, "bin", "qemu-system-x86_64"), []byte(wrapper), 0o700); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(top, "disk")
	sh(`truncate -s 72M ../disk; printf 'label: gpt\nstart=2048,size=49152\nstart=53248,size=81920\n' | sfdisk -q ../disk
		head -c 1M /dev/zero >passphrase; printf 'the passphrase is MZ\x90\x00' | dd of=passphrase bs=1 seek=4096 conv=notrunc status=none
		printf 'p\0a\0s\0s\0p\0h\0r\0a\0s\0e\0' | dd of=passphrase bs=1 seek=9000 conv=notrunc status=none`)
	ext := testtool.Loop(t, disk, "--offset", fmt.Sprint(2048*512), "--sizelimit", fmt.Sprint(49152*512))
	xfs := testtool.Loop(t, disk, "--offset", fmt.Sprint(53248*512), "--sizelimit", fmt.Sprint(81920*512))
	testtool.Run(t, "mkfs.ext4", "-q", ext)
	testtool.Run(t, "mkfs.xfs", "-q", "--unsupported", "-l", "size=8m", xfs)
	mounts := []string{testtool.Mount(t, "ext4", ext), testtool.Mount(t, "xfs", xfs)}
	nights := 22
	day := func(name string) {
		t.Helper()
		for _, m := range mounts {
			testtool.Run(t, "sh", "-ec", `mkdir -p "$0/$1" "$0/etc"; echo etc >"$0/etc/hosts"; cp /etc/passwd "$0/$1"; sync -f "$0"`, m, name)
		}
		sh("cp --sparse=always ../disk ../now; [ -e disk.qcow2 ] || qemu-img create -q -f qcow2 disk.qcow2 72M; qemu-img convert -n -f raw -O qcow2 ../now disk.qcow2")
		// What cron does every night, in a week that the examples name.
		sh(fmt.Sprintf("touch -d 2026-11-%dT02:00 ../now; CBT_TEST_INSTANT=mtime cbt backup -q --name vm1 --format raw ../now backups; rm ../now", nights))
		nights++
	}
	saved := func(images ...string) *testqemu.Machine {
		args := []string{"-m", "16", "-device", "loader,addr=0x400000,force-raw=on,file=" + filepath.Join(work, "passphrase")}
		for _, image := range images {
			args = append(args, "-drive", "if=virtio,format=qcow2,file="+filepath.Join(work, image))
		}
		return testqemu.Start(t, args...)
	}
	day("sunday")
	sh("qemu-img snapshot -c sunday disk.qcow2")
	for _, name := range []string{"monday", "tuesday"} {
		day(name)
		sh("qemu-img snapshot -c " + name[:3] + " disk.qcow2")
		m := saved("disk.qcow2")
		m.Human("savevm " + name)
		m.Migrate("exec:cat>" + filepath.Join(work, name[:3]+".save"))
		m.Kill()
	}
	sh("cp tue.save vm.save; cp disk.qcow2 vm.qcow2; qemu-img create -q -f qcow2 nvram.qcow2 1M; for d in a b data; do qemu-img create -q -f qcow2 $d.qcow2 8M; qemu-img snapshot -c mon $d.qcow2; qemu-io -c 'write -q 1M 1M' $d.qcow2; qemu-img snapshot -c tue $d.qcow2; done")
	m := saved("nvram.qcow2")
	m.Human("savevm tue")
	m.Kill()
	sh(`mv passphrase ..
		qemu-img snapshot -c wednesday disk.qcow2
		cbt diff -q --full disk.qcow2@monday -o monday.cbt
		cbt diff -q disk.qcow2@monday disk.qcow2@tuesday -o tuesday.cbt
		cbt diff -q disk.qcow2@tuesday disk.qcow2@wednesday -o wednesday.cbt
		cbt restore -q monday.cbt disk.raw 2>/dev/null`)
	return top
}
