#!/bin/bash
# Backs up two days of the shipped image, restores both and compares them: scripts/demo.sh bin/cbt
# Needs nothing but the program and coreutils; where qemu-img is installed it is asked too.
set -euo pipefail
cbt=$(realpath "$1")
testdata=$(realpath "$(dirname "$0")/../testdata")

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
exec 2>&1
mkdir backup
gzip -dc "$testdata/demo.qcow2.gz" >demo.qcow2

bold='' plain=''
[ ! -t 1 ] || bold=$'\033[1m' plain=$'\033[0m'
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
run() {
	echo "\$ cbt $*"
	"$cbt" "$@"
}

say 'A qcow2 image of a machine, with a snapshot of Monday night and one of Tuesday night.'
run info demo.qcow2

say 'What changed between them, from the metadata of the image alone.'
run diff -v demo.qcow2@monday demo.qcow2@tuesday

say 'Monday: a full delta. Tuesday: only what changed.'
run diff -v --full demo.qcow2@monday -o backup/monday.cbt
run diff -v demo.qcow2@monday demo.qcow2@tuesday -o backup/tuesday.cbt
ls -l backup

say 'Every byte and every link of the chain is checked.'
run verify backup

say 'The image is gone. Both nights come back: each from the chain, and Tuesday also by taking Monday forward.'
mv demo.qcow2 lost.qcow2
run restore backup/monday.cbt monday.raw
run restore backup/tuesday.cbt tuesday.raw
run restore backup/monday.cbt forward.raw
run apply backup/tuesday.cbt forward.raw
ls -ls ./*.raw

# expect DAY FILE: compares with the hash noted when the snapshot was made.
expect() {
	local want got
	want=$(sed -n "s/^| \`demo.qcow2\` .*\`$1\` .*\`\([0-9a-f]\{64\}\)\` |\$/\1/p" "$testdata/README.md")
	got=$(sha256sum "$2" | cut -d' ' -f1)
	[ -n "$want" ] && [ "$got" = "$want" ] || { echo "$2 differs from $1: $got, not $want" >&2; exit 1; }
	echo "$2 is $1: $got"
}

say 'What testdata/README.md says that qemu-img read when the snapshots were made.'
expect monday monday.raw
expect tuesday tuesday.raw
expect tuesday forward.raw

if command -v qemu-img >/dev/null; then
	say 'And what qemu-img reads from the image today.'
	for day in monday tuesday; do
		qemu-img convert -f qcow2 -O raw -l "$day" lost.qcow2 plain.raw
		qemu-img compare -f raw -F raw plain.raw "$day.raw"
	done
fi

say 'The sum.'
stat -c '%9s bytes  %n' lost.qcow2 backup/*.cbt
echo 'All states are byte for byte what they were.'
