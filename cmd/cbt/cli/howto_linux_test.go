package cli

import (
	"os"
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
			qemu-img snapshot -c latest /srv/vm/vm1.qcow2
			cbt backup -q --name vm1 /srv/vm/vm1.qcow2@latest /srv/backup/vm1
			PATH="$TOP/bin:$PATH"`,
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
		// The second and the third backup made the snapshots before unneeded, and each night deletes.
		after: `
			night=n-last
			qmp '{"execute": "blockdev-snapshot-internal-sync", "arguments": {"device": "disk0", "name": "'$night'"}}'
			cbt backup --json --name vm1 /srv/vm/vm1.qcow2@$night /srv/backup/vm1 >/run/vm1.backup
			jq -c '."no-longer-needed"[].qmp // empty' /run/vm1.backup | while read -r delete; do qmp "$delete"; done
			qmp '{"execute": "quit"}'
			wait
			qemu-img snapshot -l /srv/vm/vm1.qcow2
			[ "$(qemu-img snapshot -l /srv/vm/vm1.qcow2 | grep -c ' [nmr][0-9-]')" = 3 ]
			cbt verify -q /srv/backup/vm1 /srv/backup/both`,
		notRun: map[string]string{
			"qga()":                            "no guest agent in the machine of this test",
			"night=n$(date +%Y%m%d)\nvirsh":    "needs libvirtd",
			"night=f$(date +%Y%m%d)\nvirsh":    "needs libvirtd and a guest agent",
			"virsh snapshot-create-as vm1 tmp": "needs libvirtd",
		},
	},
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
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			script, skipped := "set -e\n"+examplesShell+h.before+"\nset -x\n", map[string]bool{}
		blocks:
			for _, m := range regexp.MustCompile("(?s)\n```sh\n(.*?)\n```").FindAllStringSubmatch(string(text), -1) {
				for begins := range h.notRun {
					if strings.HasPrefix(m[1], begins) {
						skipped[begins] = true
						continue blocks
					}
				}
				block := m[1] + "\n"
				if at, what := h.inject[0], h.inject[1]; at != "" {
					block = strings.Replace(block, "\n"+at, "\n"+what+"\n"+at, 1)
				}
				script += block
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
