#!/bin/bash
# Remakes every image in this directory, and README.md with it, from nothing but the tools it names.
# The clock is set by faketime and nothing random goes in, so that the same tools make the same bytes.
# Usage: testdata/make.sh [image...]      (needs qemu-utils, e2fsprogs and faketime; README.md is
# rewritten only when all images are made)
set -euo pipefail
cd "$(dirname "$0")"
. ./images.sh

out=$PWD
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export DONT_FAKE_MONOTONIC=1 LC_ALL=C.UTF-8 TZ=UTC PATH=$PATH:/usr/sbin
now=

# at TIME: the wall clock of all that follows.
at() { now=$1; }
fake() { faketime -f "$now" "$@"; }
img() { fake qemu-img "$@" >/dev/null; }

# io FILE COMMAND...: qemu-io commands on a qcow2 image, with discards passed on.
io() {
	local file=$1 args=()
	shift
	for c in "$@"; do args+=(-c "$c"); done
	fake qemu-io -f qcow2 -d unmap "${args[@]}" "$file" >io.log || { cat io.log >&2; return 1; }
	! grep -i -E 'failed|error' io.log >&2
}

# killed FILE COMMAND...: the same, but when the commands are done and flushed qemu-io kills itself (SIGKILL).
killed() {
	local file=$1 args=()
	shift
	for c in "$@" flush 'sigraise 9'; do args+=(-c "$c"); done
	fake qemu-io -f qcow2 -d unmap "${args[@]}" "$file" >io.log 2>&1 && return 1
	grep -q 'Caught Killed' io.log
}

# patch FILE OFFSET HEX: bytes that no tool would write.
patch() { printf "$(sed 's/../\\x&/g' <<<"$3")" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }

# content FILE N NAME [ARG...]: notes the hash of what qemu-img now reads from FILE: the state of its
# snapshot N, counted from 0, or with - the active one.
content() {
	qemu-img convert -O raw "${@:4}" "$1" plain.raw
	echo "| \`$1\` | $2 | $3 | $(stat -c %s plain.raw) | \`$(sha256sum plain.raw | cut -d' ' -f1)\` |" >>"$tmp/hashes"
	rm plain.raw
}

# active FILE [ARG...]
active() { content "$1" - active "${@:2}"; }

# snap FILE NAME: an internal snapshot; its content is what the image holds at that instant.
# (Asking for it later with convert -l gives the wrong size once the image was resized.)
snap() {
	local n shown=${2//$'\n'/\\n}
	n=$(qemu-img info --output=json "$1" | grep -c '"vm-clock-nsec"' || true)
	img snapshot -c "$2" "$1"
	content "$1" "$n" "\`$shown\`"
}

# filesystem FILE SIZE DIR: an ext4 that holds DIR; the same bytes every time. (mke2fs would take the
# change times, which cannot be set, from DIR.)
filesystem() {
	local seconds
	seconds=$(date -d "$now" +%s)
	find "$3" -exec touch -h -d "@$seconds" {} +
	truncate -s "$2" "$1"
	fake mke2fs -q -t ext4 -O ^has_journal -m 0 -U 6d616465-0000-4000-8000-00666f722063 \
		-E hash_seed=6d616465-0000-4000-8000-006861736820,lazy_itable_init=0,root_owner=0:0 -d "$3" "$1"
	find "$3" -printf "set_inode_field \"/%P\" ctime @$seconds\n" >commands
	fake debugfs -w -f commands "$1" >debugfs.log 2>&1
	e2fsck -fn "$1" >/dev/null 2>&1
}

# changes OLD NEW FILE: writes the 4 KiB blocks in which NEW differs from OLD into the image FILE.
changes() {
	cmp -l "$1" "$2" | awk '{ b = int(($1 - 1) / 4096); if (b != last || NR == 1) print b; last = b }' >blocks || true
	local cmds=()
	while read -r b; do
		dd if="$2" of="block.$b" bs=4096 skip="$b" count=1 status=none
		cmds+=("write -q -s block.$b $((b * 4096)) 4096")
	done <blocks
	io "$3" "${cmds[@]}"
	rm block.* blocks
}

# keep FILE WHAT HOW [FILE...]: packs the image, and the further files that belong to it.
keep() {
	local file=$1
	echo "| \`$file\` | $2 | $3 |" >>"$tmp/table"
	for f in "$file" "${@:4}"; do gzip -9n <"$f" >"$out/$f.gz"; done
}

: >"$tmp/table"
: >"$tmp/hashes"
for name in "${@:-${images[@]}}"; do
	[ $# -gt 0 ] || { [ "$name" = "${images[0]}" ] && rm -f "$out"/*.gz; }
	mkdir "$tmp/$name"
	cd "$tmp/$name"
	at '2026-03-02 02:00:00.25'
	"make_${name//-/_}"
	rm -r "${tmp:?}/$name"
done
cd "$out"
if [ $# -gt 0 ]; then
	cat "$tmp/hashes"
	exit
fi
{
	sed -n '1,/^<!-- made/p' README.md
	echo
	echo "Made with $(qemu-img --version | head -1), $(mke2fs -V 2>&1 | head -1 | sed 's/ (.*//'), gzip $(gzip --version | sed -n '1s/gzip //p')."
	echo
	printf '| image | what | how |\n|---|---|---|\n'
	cat "$tmp/table"
	printf '\n## What each holds\n\nThe snapshot is counted from 0 in the order of the table.\n\n| file | snapshot | name | bytes | SHA-256 |\n|---|---|---|---|---|\n'
	cat "$tmp/hashes"
} >"$tmp/README.md"
cp "$tmp/README.md" README.md
