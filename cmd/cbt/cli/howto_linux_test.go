package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cbt/internal/testtool"
)

// howto is how a page of docs/howto is tried: its blocks of shell run one after
// another, as they are written, in a namespace where /srv, /mnt and /run are the
// test's own.
type howto struct {
	before string            // prepares what the page begins with
	after  string            // what must be true then
	inject [2]string         // before the line that begins so, this happens
	notRun map[string]string // beginnings of blocks that are not run, and why
	twice  []string          // beginnings of blocks that are run for two nights
}

// The disk of the pages: a GPT, an ext4 that was in use, an XFS that was.
const howtoDisk = `
mkdir -p /srv/vm /srv/backup/vm1
cp --sparse=always "$TOP/work/disk.qcow2" /srv/vm/vm1.qcow2
`

// howtoNights are two nights of it.
const howtoNights = howtoDisk + `
cbt backup -q --name vm1 /srv/vm/vm1.qcow2@monday /srv/backup/vm1
cbt backup -q --name vm1 /srv/vm/vm1.qcow2@tuesday /srv/backup/vm1
`

var howtos = map[string]howto{
	"one-file.md": {
		before: howtoNights,
		after: `
			[ "$(cat /srv/hosts.of-that-night)" = etc ]
			! mountpoint -q /mnt/points && ! mountpoint -q /mnt/fs`,
	},
	"monitoring.md": {
		before: howtoDisk + `qemu-img snapshot -d monday /srv/vm/vm1.qcow2
			for s in sunday mon tue tuesday wednesday; do qemu-img snapshot -d $s /srv/vm/vm1.qcow2; done
			qemu-system-x86_64 -machine pc -m 16 -display none -nodefaults -qmp unix:/run/vm1.qmp,server=on,wait=off \
				-drive file=/srv/vm/vm1.qcow2,if=none,id=disk0 -device virtio-blk-pci,drive=disk0 &
			ready /run/vm1.qmp
			sleep 1 # its clock runs, so its snapshots might have RAM
			for n in n1 n2 n3; do
				{ printf '%s\n' '{"execute": "qmp_capabilities"}' '{"execute": "blockdev-snapshot-internal-sync", "arguments": {"device": "disk0", "name": "'$n'"}}'; sleep 1; } |
					socat - UNIX-CONNECT:/run/vm1.qmp | grep '"return": {}'
				cbt backup -q --ram no --name vm1 /srv/vm/vm1.qcow2@$n /srv/backup/vm1
			done
			PATH="$TOP/bin:$PATH"
			trap '[ $? = 0 ] || cat /run/said' EXIT
			exec 2>/run/said`,
		// Those that nobody deleted are named, and the newest is not.
		after: `
			[ "$(grep -c 'no longer needed: /srv/vm/vm1.qcow2@n[12]: ' /run/said)" = 2 ]
			[ "$(grep -c 'no longer needed: .*@n[3]: \|^warning: ' /run/said)" = 0 ]`,
	},
	"restore-at-once.md": {
		// The machine is the one of the page, with something in its memory.
		before: howtoNights + `
			monitor() { { printf '%s\n' '{"execute": "qmp_capabilities"}' "$@"; sleep 1; } | socat - UNIX-CONNECT:/run/vm1.qmp; }
			qemu-system-x86_64 -machine pc -m 16 -display none \
				-blockdev driver=qcow2,node-name=now,file.driver=file,file.filename=/srv/vm/vm1.qcow2 \
				-device virtio-blk-pci,drive=now,id=disk0 -qmp unix:/run/vm1.qmp,server=on,wait=off \
				-device loader,addr=0x400000,force-raw=on,file="$TOP/passphrase" &
			ready /run/vm1.qmp
			monitor '{"execute": "human-monitor-command", "arguments": {"command-line": "savevm wednesday"}}' '{"execute": "quit"}'
			wait
			cbt backup -q --name vm1 /srv/vm/vm1.qcow2@wednesday /srv/backup/vm1
			mv /srv/vm/vm1.qcow2 /srv/lost.qcow2`,
		// The machine writes while it moves.
		inject: [2]string{`qmp '{"execute": "job-complete"`, `qmp '{"execute": "human-monitor-command", "arguments": {"command-line": "qemu-io -d /machine/peripheral/disk0/virtio-backend \"write -P 7 70M 64K\""}}' | tee /dev/stderr | grep 'return":""'`},
		after: `
			qmp '{"execute": "human-monitor-command", "arguments": {"command-line": "pmemsave 0x400000 8192 \"/srv/memory\""}}'
			grep -q 'the passphrase is' /srv/memory
			qmp '{"execute": "quit"}'
			wait
			[ ! -e /srv/vm/vm1-now.qcow2 ]
			cbt cat "$point" >/srv/want
			head -c 64K /dev/zero | tr '\0' '\7' | dd of=/srv/want bs=1M seek=70 conv=notrunc status=none
			[ "$(du -m /srv/vm/vm1.qcow2 | cut -f1)" -lt 40 ] # what is empty stays so
			qemu-img compare -f qcow2 -F raw /srv/vm/vm1.qcow2 /srv/want`,
		notRun: map[string]string{"chown libvirt-qemu": "TestMoreHowtoLibvirtRestore"},
	},
	"running-machine.md": {
		before: `mkdir -p /srv/vm
			cp --sparse=always "$TOP/work/disk.qcow2" /srv/vm/vm1.qcow2
			for s in sunday mon monday tue tuesday wednesday; do qemu-img snapshot -d $s /srv/vm/vm1.qcow2; done
			qemu-img create -q -f qcow2 /srv/vm/vm1-data.qcow2 8M
			qemu-system-x86_64 -machine pc -m 16 -display none -nodefaults -qmp unix:/run/vm1.qmp,server=on,wait=off \
				-drive file=/srv/vm/vm1.qcow2,if=none,id=disk0 -device virtio-blk-pci,drive=disk0 \
				-drive file=/srv/vm/vm1-data.qcow2,if=none,id=disk1 -device virtio-blk-pci,drive=disk1 &
			ready /run/vm1.qmp`,
		twice: []string{"night=m", "night=r"},
		// All nights are deleted but for the last one, and the one that is in another directory.
		after: `
			[ "$(qemu-img snapshot -U -l /srv/vm/vm1.qcow2 | grep -c ' r[0-9]')" = 1 ]
			[ "$(qemu-img snapshot -U -l /srv/vm/vm1.qcow2 | grep -c ' m[0-9]')" = 1 ]
			[ "$(qemu-img snapshot -U -l /srv/vm/vm1-data.qcow2 | grep -c ' m[0-9]')" = 1 ]
			night=n-last
			qmp '{"execute": "blockdev-snapshot-internal-sync", "arguments": {"device": "disk0", "name": "'$night'"}}'
			cbt backup --json --name vm1 /srv/vm/vm1.qcow2@$night /srv/backup/vm1 --ram no >/run/vm1.backup
			jq -c '."no-longer-needed"[].qmp // empty' /run/vm1.backup | while read -r delete; do qmp "$delete"; done
			qmp '{"execute": "quit"}'
			wait
			qemu-img snapshot -l /srv/vm/vm1.qcow2
			[ "$(qemu-img snapshot -l /srv/vm/vm1.qcow2 | grep -c ' [nmr][0-9-]')" = 2 ]
			cbt verify -q /srv/backup/vm1 /srv/backup/both`,
		notRun: map[string]string{
			"qga()":                            "no guest agent in the machine of this test",
			"night=n$(date +%Y%m%d)\nvirsh":    "TestMoreHowtoLibvirt",
			"night=f$(date +%Y%m%d)\nvirsh":    "TestMoreHowtoLibvirt",
			"virsh snapshot-create-as vm1 tmp": "TestMoreHowtoLibvirt",
		},
	},
}

// blocksOf are the blocks of shell of a page.
func blocksOf(t *testing.T, page string) (list []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)\n```sh\n(.*?)\n```").FindAllStringSubmatch(string(text), -1) {
		list = append(list, m[1])
	}
	return list
}

// Every page of docs/howto works as it is written.
func TestHowto(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, name := range []string{"socat", "jq"} {
		testtool.Need(t, name)
	}
	pages, _ := filepath.Glob("../../../docs/howto/*.md")
	if len(pages) != len(howtos) {
		t.Fatalf("%d pages, and the test knows %d", len(pages), len(howtos))
	}
	top := prepareExamples(t)
	for _, page := range pages {
		t.Run(filepath.Base(page), func(t *testing.T) {
			h, ok := howtos[filepath.Base(page)]
			if !ok {
				t.Fatal("the test does not know this page")
			}
			script, skipped := "set -e\n"+examplesShell+h.before+"\nset -x\n", map[string]bool{}
		blocks:
			for _, block := range blocksOf(t, page) {
				for begins := range h.notRun {
					if strings.HasPrefix(block, begins) {
						skipped[begins] = true
						continue blocks
					}
				}
				block += "\n"
				if at, what := h.inject[0], h.inject[1]; at != "" {
					block = strings.Replace(block, "\n"+at, "\n"+what+"\n"+at, 1)
				}
				script += block
				for _, begins := range h.twice {
					if strings.HasPrefix(block, begins) {
						script += "sleep 1\n" + block
					}
				}
			}
			if len(skipped) != len(h.notRun) {
				t.Errorf("blocks that are not run: %v, the test knows %v", skipped, h.notRun)
			}
			for _, dir := range []string{"srv", "run"} {
				if err := os.RemoveAll(filepath.Join(top, dir)); err != nil {
					t.Fatal(err)
				}
				if err := os.Mkdir(filepath.Join(top, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			out, err := inNamespace(t, top, script+h.after+"\necho the page is done\n")
			if err != nil || !strings.HasSuffix(out, "the page is done\n") {
				t.Errorf("%v: ...%s", err, out[max(0, len(out)-3000):])
			}
			t.Logf("%v", time.Since(began).Round(time.Second))
		})
	}
}

// What waits for a program on these pages ends when that has ended, and what goes on
// then fails.
func TestHowtoLoopsEnd(t *testing.T) {
	pages, _ := filepath.Glob("../../../docs/howto/*.md")
	loops := 0
	for _, page := range pages {
		for _, block := range blocksOf(t, page) {
			for _, line := range strings.Split(block, "\n") {
				if !strings.HasPrefix(line, "while ") {
					continue
				}
				loops++
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				cmd := exec.CommandContext(ctx, "sh", "-c", `false & server=$!; machine=$!; wait
					qmp() { echo refused >&2; return 1; }
					`+line)
				cmd.WaitDelay = time.Second
				out, _ := cmd.CombinedOutput()
				if ctx.Err() != nil {
					t.Errorf("%s: this waits for ever: %s\n%s", filepath.Base(page), line, out[:min(len(out), 200)])
				}
				cancel()
			}
		}
	}
	if loops < 5 {
		t.Errorf("%d loops, there are more", loops)
	}
}

// A script for the night ends with an error when the backup fails, whatever is
// behind it.
func TestNightFails(t *testing.T) {
	pages, _ := filepath.Glob("../../../docs/*.md")
	more, _ := filepath.Glob("../../../docs/howto/*.md")
	scripts := 0
	for _, page := range append(append(pages, more...), "../../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range strings.Split(string(text), "\n```") {
			switch _, script, ok := strings.Cut(block, "#!/bin/sh\n"); {
			case i%2 == 0 || !strings.Contains(block, "cbt backup --json"):
				continue
			case ok:
				block = script
			default:
				_, block, _ = strings.Cut(block, "\n")
			}
			scripts++
			block = regexp.MustCompile(`(/run/|/srv/backup/)`).ReplaceAllString(block, t.TempDir()+"/")
			for _, failing := range []string{"backup", "jq"} {
				cmd := exec.Command("sh", "-c", `set -e; failing=`+failing+`
					cbt() { [ "$1" != $failing ]; }
					jq() { cat "$3" >/dev/null; [ $failing != jq ]; }
					qmp() { :; }; virsh() { :; }; lvcreate() { :; }
					`+block)
				if out, err := cmd.CombinedOutput(); err == nil {
					t.Errorf("%s: %s fails and this ends well:\n%s\n%s", filepath.Base(page), failing, block, out)
				}
			}
		}
	}
	if scripts < 6 {
		t.Errorf("%d scripts, there are more", scripts)
	}
}

// howtoDomain is libvirt's machine of the pages, with a libvirtd of its own. It has no
// guest agent: freezing is left out. Its disk is the file $disk.
const howtoDomain = `
for dir in /var/lib/libvirt /etc/libvirt; do # its own, as /run is
	mkdir -p "/run/copy$dir"
	cp -a $dir/. "/run/copy$dir"
	mount --bind "/run/copy$dir" $dir
done
virtlogd -d
libvirtd -d --timeout 0
cat >/srv/vm1.xml <<X
<domain type='qemu'><name>vm1</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>
<emulator>$(command -v qemu-system-x86_64)</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='$disk'/><target dev='vda' bus='virtio'/></disk>
</devices></domain>
X
for i in $(seq 100); do ! command virsh version >/dev/null 2>&1 || break; sleep 0.2; done
command virsh define /srv/vm1.xml
virsh() { case "$1" in domfsfreeze|domfsthaw) ;; *) command virsh "$@" ;; esac; }
set -x
`

// libvirtHowto runs a script where there is libvirt.
func libvirtHowto(t *testing.T, script string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("libvirtd needs root")
	}
	for _, name := range []string{"libvirtd", "virtlogd", "virsh", "jq", "qemu-img", "qemu-system-x86_64"} {
		testtool.Need(t, name)
	}
	top := t.TempDir()
	for _, dir := range []string{"work", "srv", "run"} {
		if err := os.Mkdir(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := inNamespace(t, top, "set -e\n"+examplesShell+script+"\ncommand virsh destroy vm1\necho the page is done\n")
	if err != nil || !strings.HasSuffix(out, "the page is done\n") {
		t.Errorf("%v: ...%s", err, out[max(0, len(out)-4000):])
	}
}

// The ways of docs/howto/running-machine.md that use libvirt, three nights each.
func TestMoreHowtoLibvirt(t *testing.T) {
	testtool.More(t)
	script, ways := `mkdir -p /srv/vm /srv/backup/vm1; disk=/srv/vm/vm1.qcow2; qemu-img create -q -f qcow2 $disk 64M`+howtoDomain+`
		command virsh start vm1
		date() { cat /run/night; }
		`, 0
	for _, block := range blocksOf(t, "../../../docs/howto/running-machine.md") {
		if !strings.Contains(block, "virsh ") {
			continue
		}
		ways++
		for night := range 3 {
			script += fmt.Sprintf("echo %d >/run/night\n%s\n", night, block)
		}
	}
	if ways != 3 {
		t.Fatalf("%d ways with virsh, want 3", ways)
	}
	// The last night that took a snapshot is there, and all before it are gone, libvirt's record too.
	libvirtHowto(t, script+`
		command virsh snapshot-list vm1
		qemu-img snapshot -U -l /srv/vm/vm1.qcow2
		[ "$(qemu-img snapshot -U -l /srv/vm/vm1.qcow2 | grep -c ' [nf][0-9]')" = 1 ]
		[ -z "$(command virsh snapshot-list --name vm1)" ]
		cbt verify -q /srv/backup/vm1`)
}

// docs/howto/restore-at-once.md with libvirt.
func TestMoreHowtoLibvirtRestore(t *testing.T) {
	testtool.More(t)
	script := `mkdir -p /srv/vm /srv/backup/vm1
		qemu-img create -q -f qcow2 /srv/lost.qcow2 64M
		qemu-io -f qcow2 -c 'write -q -P 5 1M 3M' /srv/lost.qcow2
		qemu-img snapshot -c a /srv/lost.qcow2
		cbt backup -q --name vm1 /srv/lost.qcow2@a /srv/backup/vm1
		`
	for _, block := range blocksOf(t, "../../../docs/howto/restore-at-once.md") {
		switch {
		case strings.HasPrefix(block, "cbt log "), strings.HasPrefix(block, "cbt serve "):
			script += block + "\n"
		case strings.HasPrefix(block, "chown libvirt-qemu"):
			script += "disk=/srv/vm/vm1-now.qcow2\n" + howtoDomain + block + "\n"
		}
	}
	libvirtHowto(t, script+`
		command virsh domblklist vm1 | grep 'vda *'/srv/vm/vm1.qcow2
		qemu-img compare -U -f qcow2 -F qcow2 /srv/vm/vm1.qcow2 /srv/lost.qcow2`)
}
