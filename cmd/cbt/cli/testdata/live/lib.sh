# What every story in this directory begins with.
set -eu
export CBT_LOCK_DIR=/tmp/locks
rm -rf /tmp/work
mkdir -p /tmp/work
cd /tmp/work
# LVM's commands are quiet about what they do.
for command in pvcreate vgcreate lvcreate lvchange vgchange lvremove lvconvert lvrename; do
	eval "$command() { lvm $command \"\$@\" >quiet 2>&1 || { cat quiet; return 1; }; }"
done
clean() {
	cd /
	umount -a -r -t ext4 2>/dev/null || :
	for vg in $(vgs --noheadings -o name 2>/dev/null); do
		vgchange -q -an $vg >/dev/null 2>&1 || :
		vgremove -q -ff -y $vg >/dev/null 2>&1 || :
	done
	for d in a b c d; do dd if=/dev/zero of=/dev/vd$d bs=1M count=4 2>/dev/null; done
}
trap clean EXIT

fail() { echo "FAILED: $*"; cat err 2>/dev/null || :; exit 1; }
# exits CODE CMD...: what it prints is in out and err.
exits() {
	want=$1 code=0; shift
	"$@" >out 2>err || code=$?
	[ $code = $want ] || fail "$*: exit $code, not $want"
}
# while_reading WRITE CMD...: runs a command while another one is in the middle
# of what it prints, and has that one's exit code in code.
while_reading() {
	write=$1; shift
	mkfifo pipe
	(code=0; "$@" >pipe 2>err || code=$?; echo $code >code) &
	exec 5<pipe
	dd bs=1 count=1 <&5 >/dev/null 2>&1
	sh -c "$write" 2>/dev/null
	sleep 0.2
	cat <&5 >/dev/null || :
	exec 5<&-
	wait $!
	rm pipe
	code=$(cat code)
}
# said TEXT: the last message has it.
said() { grep -qF -e "$1" err || fail "does not say: $1"; }
printed() { grep -qF -e "$1" out || { cat out; fail "does not print: $1"; }; }
