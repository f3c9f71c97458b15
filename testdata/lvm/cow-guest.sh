# Runs in the machine that cow-make boots: takes thick snapshots, writes to them and their origins, and leaves
# stores, origins and their hashes in a tar archive on /dev/vdb.
set -e
mkdir /tmp/out
cd /tmp/out
{
	echo "Made with Linux $(uname -r) and $(lvm version | sed -n 's/ *LVM version: */LVM /p')."
	echo
	echo "| snapshot | origin | bytes | SHA-256 of the snapshot | SHA-256 of the origin | status |"
	echo "|---|---|---|---|---|---|"
} >table
lvm pvcreate -q -y /dev/vda >/dev/null
lvm vgcreate -q -s 64k vg0 /dev/vda >/dev/null

# block FILE N TEXT: 4 KiB at block N, which say what they are.
block() { printf '%-4095s\n' "block $2: $3" | dd of="$1" bs=4096 seek="$2" iflag=fullblock oflag=direct conv=notrunc 2>/dev/null; }

# origin NAME KIB: a volume every block of which says its number.
origin() {
	lvm lvcreate -q -y -Wn -Zn -L "$2k" -n "$1" vg0 >/dev/null
	awk -v n=$(($2 / 4)) 'BEGIN { for (i = 0; i < n; i++) printf "%-4095s\n", "block " i ": first" }' |
		dd of=/dev/vg0/"$1" bs=64k iflag=fullblock oflag=direct
}

# snapshot NAME ORIGIN CHUNK KIB
snapshot() { lvm lvcreate -q -y -s -c "$3" -L "$4k" -n "$1" vg0/"$2" >/dev/null; }

# scattered VOLUME COUNT BLOCKS STRIDE TEXT: writes COUNT of the first BLOCKS * STRIDE blocks, every STRIDEth, in an
# order that jumps about. BLOCKS is a power of two.
scattered() {
	i=0
	while [ $i -lt "$2" ]; do
		block /dev/vg0/"$1" $((i * 1237 % $3 * $4)) "$5"
		i=$((i + 1))
	done
}

# keep SNAPSHOT ORIGIN: what the kernel reads, and what it has stored. The snapshot is read before the origin.
keep() {
	snap=$(dd if=/dev/vg0/"$1" bs=64k iflag=direct 2>/dev/null | sha256sum | cut -d' ' -f1) || snap=
	bytes=$(blockdev --getsize64 /dev/vg0/"$1")
	status=$(dmsetup status "vg0-$1" | cut -d' ' -f4-)
	case $status in Invalid*) snap=- ;; esac
	dd if="/dev/mapper/vg0-$1-cow" of="$1.store" bs=64k iflag=direct 2>/dev/null
	dd if=/dev/vg0/"$2" of="$2.origin" bs=64k iflag=direct 2>/dev/null
	echo "| \`$1\` | \`$2\` | $bytes | \`$snap\` | \`$(sha256sum <"$2.origin" | cut -d' ' -f1)\` | $status |" >>table
	echo "kept $1: $status"
}

# drop ORIGIN: with its snapshots.
drop() { lvm lvremove -q -y vg0/"$1" >/dev/null; }

# Exceptions of 4 KiB: around the ends of the first two areas, and many.
for n in 0 1 255 256 257 512 3000; do
	origin org$n 16384
	snapshot n$n org$n 4k 14336
	scattered org$n $n 4096 1 second
	keep n$n org$n
	drop org$n
done

# Other chunk sizes: a table that goes on in a second area (512 and 1,024 records each), and large chunks of which
# only a part was written. The origins end inside their last chunk.
origin c8k-org 16384
snapshot c8k c8k-org 8k 8192
scattered c8k-org 700 1024 2 second
keep c8k c8k-org
drop c8k-org
origin c16k-org 32768
snapshot c16k c16k-org 16k 20480
scattered c16k-org 1030 2048 4 second
keep c16k c16k-org
drop c16k-org
for c in 32 64 128 256 512; do
	origin c${c}k-org 4160
	snapshot c${c}k c${c}k-org ${c}k 6144
	scattered c${c}k-org 40 1024 1 second
	block /dev/vg0/c${c}k-org 1039 "the last one"
	keep c${c}k c${c}k-org
	drop c${c}k-org
done

# The snapshot itself written: before its origin, after it, and where nobody else writes.
origin own-org 4096
snapshot own own-org 16k 4096
block /dev/vg0/own 100 "by the snapshot, first"
block /dev/vg0/own-org 100 "by the origin, after the snapshot"
block /dev/vg0/own-org 101 "by the origin, beside the snapshot's"
block /dev/vg0/own-org 200 "by the origin, first"
block /dev/vg0/own 200 "by the snapshot, after the origin"
block /dev/vg0/own 300 "by the snapshot alone"
block /dev/vg0/own-org 400 "by the origin alone"
block /dev/vg0/own-org 500 first
keep own own-org
drop own-org

# Three snapshots of one origin, of different ages and chunk sizes.
origin days-org 8192
snapshot monday days-org 4k 12288
scattered days-org 300 1024 1 monday
snapshot tuesday days-org 64k 12288
scattered days-org 200 2048 1 tuesday
snapshot wednesday days-org 16k 12288
block /dev/vg0/tuesday 1500 "by tuesday itself"
scattered days-org 20 32 64 wednesday
for s in monday tuesday wednesday; do keep $s days-org; done
drop days-org

# A store that was too small: the kernel gives the snapshot up.
origin full-org 4096
snapshot full full-org 4k 128
scattered full-org 60 1024 1 second
keep full full-org
drop full-org

tar cf /dev/vdb -- *
sync
