# Runs in the test machine as root: each function makes one set of images on the disks that it is given,
# and prints what every volume holds. make/main.go says how many disks of which size a set has.

set -e

# fill DEVICE TAG BYTES: each 4 KiB block says whose it is and which one, so that nothing can be swapped
# unseen, and is made of 16 bytes that repeat, so that it packs well, parity included.
fill() {
	awk -v tag="$2" -v n=$(($3 / 4096)) 'BEGIN {
		for (b = 0; b < n; b++) { s = sprintf("%-8.8s%07d\n", tag, b); for (i = 0; i < 4; i++) s = s s s s; printf "%s", s }
	}' | dd of="$1" bs=64k iflag=fullblock oflag=direct status=none
}

# patch DEVICE TAG BLOCK...: other content for single blocks.
patch() {
	dev=$1 tag=$2
	shift 2
	for b in "$@"; do
		awk -v tag="$tag" -v b="$b" 'BEGIN { s = sprintf("%-8.8s%07d\n", tag, b); for (i = 0; i < 4; i++) s = s s s s; printf "%s", s }' |
			dd of="$dev" bs=4k seek="$b" count=1 iflag=fullblock oflag=direct conv=notrunc status=none
	done
}

# content VG LV...: what the kernel reads.
content() {
	vg=$1
	shift
	sync
	echo 3 >/proc/sys/vm/drop_caches
	for lv in "$@"; do
		[ -e "/dev/$vg/$lv" ] || lvchange -q -q -y -ay -K "$vg/$lv"
		echo "CONTENT $lv $(blockdev --getsize64 "/dev/$vg/$lv") $(dd if="/dev/$vg/$lv" bs=64k iflag=direct status=none | sha256sum | cut -d' ' -f1)"
	done
}

# synced VG: waits until all raid volumes are.
synced() {
	i=0
	while lvs --noheadings -o sync_percent "$1" | grep -v '^ *$' | grep -qv 100.00; do
		i=$((i + 1))
		[ $i -lt 300 ] || return 1
		sleep 0.2
	done
}

# Every raid layout, with stripes of 64, 32 and 16 KiB.
raid() {
	pvcreate -q -q "$@"
	vgcreate -q -q -s 64k raid "$@"
	all=
	mk() { # NAME TYPE STRIPES STRIPESIZE
		lvcreate -q -q -y -Wn -Zn --type "$2" $3 ${4:+-I $4} -L 3m -n "$1" raid
		all="$all $1"
	}
	mk r0 raid0 '-i 3' 64k
	mk r0two raid0 '-i 2' 4k
	mk r0meta raid0_meta '-i 3' 32k
	mk r1 raid1 '-m 1'
	mk r1three raid1 '-m 2'
	mk r4 raid4 '-i 3' 64k
	mk r5 raid5 '-i 3' 64k
	mk r5ls raid5_ls '-i 3' 32k
	mk r5la raid5_la '-i 4' 16k
	mk r5ra raid5_ra '-i 3' 16k
	mk r5rs raid5_rs '-i 4' 32k
	mk r5n raid5_n '-i 3' 16k
	mk r6 raid6 '-i 3' 64k
	mk r6zr raid6_zr '-i 4' 16k
	mk r6nr raid6_nr '-i 3' 32k
	mk r6nc raid6_nc '-i 4' 16k
	mk r6n6 raid6_n_6 '-i 3' 16k
	mk r6la6 raid6_la_6 '-i 3' 16k
	mk r6ls6 raid6_ls_6 '-i 4' 32k
	mk r6ra6 raid6_ra_6 '-i 3' 16k
	mk r6rs6 raid6_rs_6 '-i 4' 16k
	mk r10 raid10 '-i 2 -m 1' 64k
	mk r10big raid10 '-i 3 -m 1' 16k
	synced raid
	for lv in $all; do fill "/dev/raid/$lv" "$lv" "$(blockdev --getsize64 "/dev/raid/$lv")"; done
	content raid $all
	lvs -a -o name,size,segtype,stripes,stripesize,devices raid >&2
}

# Devices that failed while the arrays were in use. Of r1, r10 and r5 the first disk is gone, then more was
# written; it comes back as it was. On the third disk nothing fails.
failed() {
	pvcreate -q -q "$@"
	vgcreate -q -q -s 64k failed "$@"
	lvcreate -q -q -y -Wn -Zn --type raid1 -m 1 -L 1m -n r1 failed "$1" "$2"
	lvcreate -q -q -y -Wn -Zn --type raid10 -i 2 -m 1 -I 16k -L 1m -n r10 failed "$1" "$2" "$3" "$4"
	lvcreate -q -q -y -Wn -Zn --type raid5 -i 2 -I 16k -L 1m -n r5 failed "$1" "$2" "$3"
	lvcreate -q -q -y -Wn -Zn --type raid1 -m 1 -L 1m -n last failed "$2" "$1"
	synced failed
	for lv in r1 r10 r5 last; do fill "/dev/failed/$lv" "$lv" 1048576; done
	sync
	# The first disk becomes one that fails everything.
	for lv in r1 r10 r5 last; do
		for sub in $(dmsetup ls | cut -f1 | grep "^failed-${lv}_r"); do
			dmsetup table "$sub" | while read -r a n t d o; do
				[ "$d" = "$(cat "/sys/block/${1#/dev/}/dev")" ] || continue
				dmsetup suspend --noflush "$sub"
				echo "$a $n error" | dmsetup load "$sub"
				dmsetup resume "$sub"
			done
		done
	done
	for lv in r1 r10 r5 last; do patch "/dev/failed/$lv" "new" 0 1 2 3 8 17 100 255; done
	content failed r1 r10 r5 last
	dmsetup status >&2
}

# What is no raid: linear, striped, mirrors, thin, thick, external origins, and volumes in volumes.
mixed() {
	pvcreate -q -q "$@"
	vgcreate -q -q -s 64k mixed "$@"
	v="lvcreate -q -q -y -Wn -Zn"
	$v -L 1m -n lin mixed "$1"
	$v -L 1m -n hole mixed "$1"
	$v -L 1m -n between mixed "$1"
	lvremove -q -q -y mixed/hole
	lvextend -q -q -L +1536k mixed/lin "$1" "$2"
	lvextend -q -q -L +512k mixed/lin "$3"
	$v -i 2 -I 4k -L 2m -n str-ip.ed_2 mixed
	$v -i 3 -I 64k -L 3m -n stripes3 mixed
	$v --type mirror -m 1 --mirrorlog core -L 1m -n mir mixed
	$v --type mirror -m 2 --mirrorlog disk -L 1m -n mirlog mixed
	$v --type zero -L 1m -n zero mixed
	synced mixed
	for lv in lin between str-ip.ed_2 stripes3 mir mirlog; do
		fill "/dev/mixed/$lv" "$lv" "$(blockdev --getsize64 "/dev/mixed/$lv")"
	done
	# A pool over stripes, its metadata on a raid1; its chunks do not divide the volumes.
	$v -i 2 -I 16k -L 12m -n pool mixed
	$v --type raid1 -m 1 -L 2m -n meta mixed
	synced mixed
	lvconvert -q -q -y --type thin-pool -c 192k --poolmetadata mixed/meta mixed/pool
	t="lvcreate -q -q -y -Wn"
	$t -V 4m --thinpool pool -n thin1 mixed
	fill /dev/mixed/thin1 thin1 2097152
	lvcreate -q -q -y -s -n snap1 mixed/thin1
	patch /dev/mixed/thin1 t1later 0 5 100 900
	lvcreate -q -q -y -s -n snap2 mixed/thin1
	patch /dev/mixed/thin1 t1last 6 901
	blkdiscard -o 1179648 -l 393216 /dev/mixed/thin1
	$t -V 1000k --thinpool pool -n odd mixed
	fill /dev/mixed/odd odd 1024000
	$t -V 2m --thinpool pool -n shrunk mixed
	fill /dev/mixed/shrunk shrunk 2097152
	lvreduce -q -q -f -y -L 1m mixed/shrunk
	# An external origin, smaller than the volume over it.
	$v -L 1m -n ext mixed
	fill /dev/mixed/ext ext 1048576
	lvchange -q -q -an mixed/ext
	lvchange -q -q -pr mixed/ext
	lvcreate -q -q -y -s --thinpool pool -n overext mixed/ext
	lvextend -q -q -L 2m mixed/overext
	patch /dev/mixed/overext overext 3 200 300
	# Thick snapshots of one origin, of different chunks, one of them written to.
	$v -L 2m -n org mixed
	fill /dev/mixed/org org 2097152
	lvcreate -q -q -y -s -c 4k -L 1m -n thick1 mixed/org
	patch /dev/mixed/org orglater 0 7 300 511
	lvcreate -q -q -y -s -c 32k -L 2m -n thick2 mixed/org
	patch /dev/mixed/org orglast 8 300 400
	patch /dev/mixed/thick2 thick2 9 10
	# A thick snapshot of a thin volume.
	lvcreate -q -q -y -s -c 16k -L 1m -n thinthick mixed/odd
	patch /dev/mixed/odd oddlater 1 2 3
	content mixed lin between str-ip.ed_2 stripes3 mir mirlog zero thin1 snap1 snap2 odd shrunk ext overext \
		org thick1 thick2 thinthick
	lvs -a -o name,size,segtype,origin,pool_lv,devices mixed >&2
}
