#!/bin/bash
# Makes the machine states of this directory with QEMU 7.2, and what QEMU itself says their RAM is (*.ram):
# testdata/vmstate/make.sh [NAME...]. Needs qemu-system-x86_64, qemu-img, gzip, xz, bzip2, zstd, lzop.
#
# The machines have 1 MiB of RAM and a firmware of their own, which counts in 16 pages from 0x20000 on, so
# that the states are small. All are stopped before they are saved, but the one with XBZRLE, which needs a
# machine that runs: under software emulation QEMU 7.2 may miss a page that was written at the end, and the
# test of that state then fails. Make it again.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# mov ax,0x2000; mov es,ax; xor di,di; again: inc dword [es:di]; add di,0x1000; jnz again; then CR0.WP is
# toggled, which flushes the TLB (without that, QEMU 7.2 does not see most writes while it migrates); jmp again
printf '\xb8\x00\x20\x8e\xc0\x31\xff\x66\x26\xff\x05\x81\xc7\x00\x10\x75\xf6' >firmware
printf '\x0f\x20\xc0\x66\x35\x00\x00\x01\x00\x0f\x22\xc0\xeb\xe8' >>firmware
truncate -s 65520 firmware
printf '\xea\x00\x00\x00\xf0' >>firmware # at the reset vector: jmp 0xf000:0
truncate -s 65536 firmware

# qemu MACHINE ARGUMENTS... runs a machine on the commands of its input, one a line; a number waits so long.
qemu() {
	machine=$1
	shift
	while read -r line; do
		case $line in
		[0-9]*) sleep "$line" ;;
		*) echo "$line" ;;
		esac
	done | timeout 60 qemu-system-x86_64 -accel tcg -M "$machine" -m 1 -nodefaults -vga none -display none \
		-bios firmware -monitor stdio "$@" >log
}

finish() { # finish NAME: packs NAME and NAME.ram
	gzip -9n <"$1" >"$here/$1.gz"
	gzip -9n <"$1.ram" >"$here/$1.ram.gz"
}

saved() { # saved NAME MACHINE ARGUMENTS...: stops, saves. The input, if any, comes between
	name=$1
	shift
	{
		printf '1\nstop\n'
		cat
		printf 'pmemsave 0 0x100000 %s.ram\nmigrate "exec:cat>%s"\n2\nquit\n' "$name" "$name"
	} | qemu "$@"
	finish "$name"
}

plain() { saved plain.state pc-i440fx-7.2 </dev/null; }
q35() { saved q35.state pc-q35-7.2 -uuid 6a7ad0d4-3b57-4c8f-a3d2-0d8f1f3c1a5b <<<'migrate_set_capability validate-uuid on'; }
shared() { saved shared.state pc-i440fx-7.2 <<<'migrate_set_capability x-ignore-shared on'; }
compress() { saved compress.state pc-i440fx-7.2 <<<'migrate_set_capability compress on'; }
background() { saved background.state pc-i440fx-7.2 <<<'migrate_set_capability background-snapshot on'; }
old() { saved old.state pc-i440fx-2.2 </dev/null; } # no configuration, no footers, no description
bare() { saved bare.state pc-i440fx-7.2 -global migration.send-section-footer=off -global migration.send-configuration=off </dev/null; }

# Two devices of one name and instance, and one (slirp) whose section has no version in the description.
isapc() { saved isapc.state isapc -netdev user,id=u -device ne2k_isa,netdev=u </dev/null; }

bitmap() {
	qemu-img create -q -f qcow2 disk.qcow2 1M
	qemu-img bitmap --add -g 65536 disk.qcow2 monday
	saved bitmap.state pc-i440fx-7.2 -drive file=disk.qcow2,if=none,id=d,node-name=n \
		-device virtio-blk-pci,drive=d <<<'migrate_set_capability dirty-bitmaps on'
}

block() {
	qemu-img create -q -f raw disk.raw 3M
	qemu-io -f raw -c 'write -P 7 1M 64k' disk.raw >/dev/null
	saved block.state pc-i440fx-7.2 -drive file=disk.raw,format=raw,if=virtio <<<'migrate_set_capability block on'
}

xbzrle() {
	qemu pc-i440fx-7.2 <<-'END'
		1
		migrate_set_capability xbzrle on
		migrate_set_parameter xbzrle-cache-size 2097152
		migrate_set_parameter downtime-limit 1
		migrate_set_parameter max-bandwidth 300k
		migrate -d "exec:cat>xbzrle.state"
		4
		stop
		migrate_set_parameter max-bandwidth 100M
		migrate_set_parameter downtime-limit 300
		2
		info migrate
		pmemsave 0 0x100000 xbzrle.state.ram
		1
		quit
	END
	grep -aE '^(xbzrle pages|Migration status)' log
	finish xbzrle.state
}

# Two internal snapshots: the machine states lie behind the end of the disk.
snapshots() {
	qemu-img create -q -f qcow2 snapshots.qcow2 1M
	qemu pc-i440fx-7.2 -drive file=snapshots.qcow2,if=virtio <<-'END'
		1
		stop
		savevm monday
		pmemsave 0 0x100000 monday.ram
		cont
		1
		stop
		savevm tuesday
		pmemsave 0 0x100000 tuesday.ram
		1
		quit
	END
	gzip -9n <snapshots.qcow2 >"$here/snapshots.qcow2.gz"
	for day in monday tuesday; do gzip -9n <$day.ram >"$here/snapshots.$day.ram.gz"; done
}

# What the compressors of libvirt's save images make of plain.state.
packed() {
	gzip -dc "$here/plain.state.gz" >plain.state
	xz -c plain.state >"$here/plain.state.xz"
	bzip2 -c plain.state >"$here/plain.state.bz2"
	zstd -qc plain.state >"$here/plain.state.zst"
	lzop -c plain.state >"$here/plain.state.lzo"
	lzop -9c plain.state >"$here/plain.state-9.lzo"
}

if [ $# = 0 ]; then
	set -- plain q35 shared compress background old bare isapc bitmap block xbzrle snapshots packed
fi
for name; do "$name"; done
