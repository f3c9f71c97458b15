# The images, one function each; make.sh runs them in an empty directory. See README.md for the words.
images=(v2 v3 cluster-512 cluster-4k cluster-2m zlib zstd extl2 sizes chain short prealloc names
	bitmaps bitmap-in-use refcounts datafile datafile-raw dirty corrupt unknown-bit aes luks demo)

# A day of writes, discards and zeros on 4 MiB, a snapshot before, between and after.
day() {
	io "$1" 'write -q -P 0x11 0 1M' 'write -q -P 0x12 1536k 256k' 'write -q -P 0x13 4000k 96k'
	at '2026-03-02 02:00:00.25'
	snap "$1" monday
	io "$1" 'write -q -P 0x21 64k 4k' 'write -q -z 256k 128k' 'discard -q 512k 128k' 'write -q -P 0x22 3M 70k' \
		'write -q -P 0x12 1536k 64k'
	at '2026-03-03 02:00:00.5'
	snap "$1" tuesday
	io "$1" 'write -q -P 0x31 300k 5k' 'write -q -z -u 0 64k' 'write -q -P 0x11 512k 64k'
	active "$1"
}

make_v2() {
	img create -f qcow2 -o compat=0.10 v2.qcow2 4M
	day v2.qcow2
	keep v2.qcow2 'version 2, two snapshots, an active state' '`-o compat=0.10`; writes, zeros, discards'
}

make_v3() {
	img create -f qcow2 v3.qcow2 4M
	day v3.qcow2
	keep v3.qcow2 'version 3 as QEMU makes it' 'no options; the same writes'
}

make_cluster_512() {
	img create -f qcow2 -o cluster_size=512 cluster-512.qcow2 4M
	day cluster-512.qcow2
	keep cluster-512.qcow2 'the smallest clusters' '`-o cluster_size=512`; the same writes'
}

make_cluster_4k() {
	img create -f qcow2 -o cluster_size=4k cluster-4k.qcow2 4M
	day cluster-4k.qcow2
	keep cluster-4k.qcow2 'clusters of 4 KiB' '`-o cluster_size=4k`; the same writes'
}

make_cluster_2m() {
	img create -f qcow2 -o cluster_size=2M cluster-2m.qcow2 4100k
	day cluster-2m.qcow2
	keep cluster-2m.qcow2 'the largest clusters, the last one partly used' '`-o cluster_size=2M`; the same writes'
}

# lines FIRST LAST TEXT: TEXT once for each number, which replaces #.
lines() { awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { for (i = a; i <= b; i++) { s = t; gsub(/#/, i, s); print s } }'; }

# A tree of believable text.
tree() {
	mkdir -p fs/etc fs/var/log fs/home/erika
	echo 'erika-laptop' >fs/etc/hostname
	lines 2 200 '10.0.0.# host#.example.net host#' >fs/etc/hosts
	lines 1 6000 'Mar  1 03:# kernel: [#.000000] eth0: link is up, 1000 Mbps, full duplex' >fs/var/log/messages
	lines 1 4000 'Dear Karl, letter #: nothing new here, the roof holds and the cat is well.' >fs/home/erika/letters.txt
	ln -s letters.txt fs/home/erika/latest
}

compressed() {
	tree
	filesystem base.raw 8M fs
	img convert -q -m 1 -c -O qcow2 -o "compression_type=$1" base.raw "$1.qcow2"
	snap "$1.qcow2" monday
	at '2026-03-03 02:00:00'
	io "$1.qcow2" 'write -q -c -P 0x41 2M 64k' 'write -q -P 0x42 64k 4k' 'discard -q 128k 64k' 'write -q -c -P 0x43 7M 64k'
	snap "$1.qcow2" tuesday
	io "$1.qcow2" 'write -q -P 0x44 2M 512' 'write -q -c -P 0x41 4M 64k'
	active "$1.qcow2"
	keep "$1.qcow2" "an ext4 in $1 clusters, some overwritten plain and compressed" \
		"\`qemu-img convert -c -o compression_type=$1\`, then \`write\` and \`write -c\`"
}
make_zlib() { compressed zlib; }
make_zstd() { compressed zstd; }

make_extl2() {
	img create -f qcow2 -o extended_l2=on,cluster_size=64k extl2.qcow2 4M
	io extl2.qcow2 'write -q -P 0x61 0 2k' 'write -q -P 0x62 10k 4k' 'write -q -z 4k 2k' 'write -q -P 0x63 1M 300k'
	at '2026-03-02 02:00:00'
	snap extl2.qcow2 monday
	io extl2.qcow2 'write -q -P 0x64 2k 2k' 'write -q -z -u 1100k 6k' 'discard -q 1152k 64k' 'write -q -c -P 0x65 3M 64k'
	at '2026-03-03 02:00:00'
	snap extl2.qcow2 tuesday
	io extl2.qcow2 'write -q -P 0x66 3074k 2k'
	active extl2.qcow2
	keep extl2.qcow2 'subclusters of 2 KiB: allocated, zero, neither; one compressed cluster' '`-o extended_l2=on`'
}

make_sizes() {
	img create -f qcow2 sizes.qcow2 1M
	io sizes.qcow2 'write -q -P 0x71 0 1M'
	snap sizes.qcow2 1-mib
	at '2026-03-03 02:00:00'
	img resize -q sizes.qcow2 700000256
	io sizes.qcow2 'write -q -P 0x72 667M 300k' 'write -q -P 0x73 512M 64k'
	snap sizes.qcow2 grown
	at '2026-03-04 02:00:00'
	img resize -q --shrink sizes.qcow2 540160
	snap sizes.qcow2 shrunk
	img resize -q sizes.qcow2 2M
	io sizes.qcow2 'write -q -P 0x74 1900k 64k'
	active sizes.qcow2
	keep sizes.qcow2 'snapshots of 1 MiB, 700,000,256 bytes (a second L1 entry) and 540,160 bytes; the active state of 2 MiB' \
		'`qemu-img resize`, also `--shrink`, between the snapshots'
}

make_chain() {
	truncate -s 3000320 chain-base.raw
	qemu-io -f raw -c 'write -q -P 0x81 0 1M' -c 'write -q -P 0x82 2900k 25k' chain-base.raw
	active chain-base.raw -f raw
	img create -f qcow2 -b chain-base.raw -F raw chain-mid.qcow2 4M
	io chain-mid.qcow2 'write -q -P 0x83 500k 100k' 'write -q -z 0 64k' 'write -q -P 0x84 3500k 10k'
	snap chain-mid.qcow2 monday
	io chain-mid.qcow2 'write -q -P 0x85 1M 64k'
	active chain-mid.qcow2
	img create -f qcow2 -b chain-mid.qcow2 -F qcow2 -o cluster_size=16k chain-top.qcow2 5M
	io chain-top.qcow2 'write -q -P 0x86 520k 7k' 'discard -q 1M 32k' 'write -q -P 0x87 4900k 4k'
	at '2026-03-03 02:00:00'
	snap chain-top.qcow2 tuesday
	io chain-top.qcow2 'write -q -P 0x88 2920k 3k'
	active chain-top.qcow2
	keep chain-top.qcow2 'three levels, each larger than the one below: `chain-top.qcow2` over `chain-mid.qcow2` over `chain-base.raw`, which ends inside a cluster' \
		'`-b NAME -F FORMAT`, relative names' chain-mid.qcow2 chain-base.raw
}

make_short() {
	img create -f qcow2 short-base.qcow2 4M
	io short-base.qcow2 'write -q -P 0x91 0 4M'
	active short-base.qcow2
	img create -f qcow2 -b short-base.qcow2 -F qcow2 short.qcow2 1000448
	io short.qcow2 'write -q -P 0x92 64k 64k'
	snap short.qcow2 monday
	img resize -q short.qcow2 3M
	active short.qcow2
	keep short.qcow2 'an overlay that was smaller than its backing file, then grew: what was cut off reads as zeros or as the backing file, as QEMU decides' \
		'`create -b ... 1000448`, snapshot, `resize 3M`' short-base.qcow2
}

make_prealloc() {
	img create -f qcow2 -o preallocation=metadata prealloc.qcow2 8M
	io prealloc.qcow2 'write -q -P 0xa1 1M 128k' 'write -q -z 1088k 64k'
	snap prealloc.qcow2 monday
	io prealloc.qcow2 'write -q -P 0xa2 4M 64k' 'write -q -z 1M 64k'
	active prealloc.qcow2
	keep prealloc.qcow2 'preallocated clusters that read as zeros' '`-o preallocation=metadata`'
}

make_names() {
	img create -f qcow2 names.qcow2 1M
	local n=0 name
	for name in daily daily 1 'Grüße aus Köln' 'a@b,c=d' ' spaces ' $'two\nlines'; do
		n=$((n + 1))
		at "2026-03-0$n 02:00:00"
		io names.qcow2 "write -q -P $n 0 64k"
		snap names.qcow2 "$name"
	done
	keep names.qcow2 'seven snapshots: `daily`, `daily` again, `1` (with ID 3), `Grüße aus Köln`, `a@b,c=d`, one with spaces around, one with a newline' \
		'`qemu-img snapshot -c`; ID n holds 64 KiB of byte n'
}

make_bitmaps() {
	img create -f qcow2 bitmaps.qcow2 4M
	io bitmaps.qcow2 'write -q -P 0xb1 0 4M'
	snap bitmaps.qcow2 monday
	img bitmap --add bitmaps.qcow2 since-monday
	img bitmap --add -g 4k bitmaps.qcow2 fine
	img bitmap --add --disable bitmaps.qcow2 empty
	io bitmaps.qcow2 'write -q -P 0xb2 128k 4k' 'write -q -z 3M 64k'
	snap bitmaps.qcow2 tuesday
	img bitmap --disable bitmaps.qcow2 since-monday
	io bitmaps.qcow2 'write -q -P 0xb3 2M 8k'
	active bitmaps.qcow2
	keep bitmaps.qcow2 'bitmaps `since-monday` (disabled: what changed from monday to tuesday), `fine` (4 KiB, recording since monday), `empty`' \
		'`qemu-img bitmap --add`, `--disable`'
}

make_bitmap_in_use() {
	img create -f qcow2 bitmap-in-use.qcow2 4M
	io bitmap-in-use.qcow2 'write -q -P 0xc1 0 1M'
	img bitmap --add bitmap-in-use.qcow2 b0
	killed bitmap-in-use.qcow2 'write -q -P 0xc2 64k 64k'
	active bitmap-in-use.qcow2 -U
	keep bitmap-in-use.qcow2 'a bitmap with `in_use` set' 'qemu-io killed by SIGKILL while it had the image open'
}

make_refcounts() {
	local bits
	for bits in 1 2 4 8 32 64; do
		img create -f qcow2 -o refcount_bits=$bits,cluster_size=4k refcount-$bits.qcow2 2M
		io refcount-$bits.qcow2 'write -q -P 0xd1 0 256k' 'write -q -P 0xd2 1M 12k'
		[ $bits = 1 ] || snap refcount-$bits.qcow2 monday
		io refcount-$bits.qcow2 'write -q -P 0xd3 16k 16k'
		active refcount-$bits.qcow2
		keep refcount-$bits.qcow2 "refcounts of $bits bit" "\`-o refcount_bits=$bits\`"
	done
}

make_datafile() {
	img create -f qcow2 -o data_file=datafile.data datafile.qcow2 4M
	io datafile.qcow2 'write -q -P 0xe1 1M 128k' 'write -q -P 0xe2 0 64k' 'write -q -z 1088k 64k'
	active datafile.qcow2
	keep datafile.qcow2 'an external data file, `datafile.data`' '`-o data_file=`' datafile.data
}

make_datafile_raw() {
	img create -f qcow2 -o data_file=datafile-raw.data,data_file_raw=on datafile-raw.qcow2 4M
	io datafile-raw.qcow2 'write -q -P 0xe3 1M 128k' 'write -q -P 0xe4 0 64k'
	active datafile-raw.qcow2
	keep datafile-raw.qcow2 'an external data file that is a valid raw image, `datafile-raw.data`' '`-o data_file=,data_file_raw=on`' datafile-raw.data
}

make_dirty() {
	img create -f qcow2 -o lazy_refcounts=on dirty.qcow2 4M
	io dirty.qcow2 'write -q -P 0xf1 0 128k'
	killed dirty.qcow2 'write -q -P 0xf2 1M 256k' 'write -q -P 0xf3 64k 4k'
	# -U and no repair: a plain open for writing would clean the image.
	active dirty.qcow2 -U
	keep dirty.qcow2 'the dirty bit, and clusters in use whose refcount is 0' '`-o lazy_refcounts=on`; qemu-io killed by SIGKILL'
}

make_corrupt() {
	img create -f qcow2 corrupt.qcow2 4M
	io corrupt.qcow2 'write -q -P 0x51 0 128k'
	# The first L2 entry (L2 table at 0x40000) now names the active L1 table's cluster.
	patch corrupt.qcow2 $((0x40000)) 8000000000030000
	fake qemu-io -f qcow2 -c 'write -q -P 0x52 0 4k' corrupt.qcow2 >/dev/null 2>&1 || true
	keep corrupt.qcow2 'the corrupt bit' 'an L2 entry bent onto the L1 table; QEMU sets the bit when it refuses the write'
}

make_unknown_bit() {
	img create -f qcow2 unknown-bit.qcow2 1M
	io unknown-bit.qcow2 'write -q -P 0x53 0 64k'
	patch unknown-bit.qcow2 72 0000000000000020
	keep unknown-bit.qcow2 'incompatible feature bit 5, which nobody has defined' 'bytes 72-79 patched; QEMU refuses it'
}

make_aes() {
	img create -f qcow2 --object secret,id=s,data=password -o encrypt.format=aes,encrypt.key-secret=s aes.qcow2 1M
	keep aes.qcow2 'legacy AES encryption' '`-o encrypt.format=aes`'
}

make_luks() {
	local try
	# qemu-img measures how fast the key derivation is, and gives up when the clock is too coarse for it.
	for try in $(seq 50); do
		qemu-img create -q -f qcow2 --object secret,id=s,data=password \
			-o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.iter-time=10 \
			luks.qcow2 1M 2>luks.log && break
	done
	keep luks.qcow2 'LUKS encryption' '`-o encrypt.format=luks`, a short key; random, so a remake differs'
}

make_demo() {
	tree
	mkdir -p fs/srv/shop fs/home/karl
	seq 1 15000 | awk '{ printf "%06d|2026-02-%02d|customer %d|%d.00 EUR\n", $1, 1 + $1 % 28, ($1 * 7919) % 401, $1 % 97 }' >fs/srv/shop/orders.db
	lines 1 40 'To do #: ask Erika about the roof.' >fs/home/karl/todo.txt
	filesystem monday.raw 64M fs
	img convert -q -O qcow2 monday.raw demo.qcow2
	snap demo.qcow2 monday

	# A day later: the log was rotated and grows, a few orders changed, a file is new, one is gone.
	at '2026-03-03 02:00:00.75'
	cp monday.raw tuesday.raw
	cp fs/srv/shop/orders.db orders.db
	sed -i '9000,9040s/customer/CANCELED/' orders.db
	lines 1 3000 'Mar  2 09:# sshd[812]: Accepted publickey for erika from 10.0.0.17' >messages
	lines 1 5000 'Photo # of the roof, before the repair' >roof.txt
	printf '%s\n' 'cd /var/log' 'ln messages messages.1' 'unlink messages' 'write messages messages' \
		'cd /srv/shop' 'rm orders.db' 'write orders.db orders.db' \
		'cd /home/karl' 'rm todo.txt' 'cd /home/erika' 'write roof.txt roof.txt' >commands
	fake debugfs -w -f commands tuesday.raw >debugfs.log 2>&1
	e2fsck -fn tuesday.raw >/dev/null 2>&1
	changes monday.raw tuesday.raw demo.qcow2
	snap demo.qcow2 tuesday
	qemu-img compare -q -f raw -F qcow2 tuesday.raw demo.qcow2
	keep demo.qcow2 'an ext4 of 64 MiB on two days: what `make demo` shows' \
		'`mke2fs -d`, the second day with `debugfs -w`, its blocks written with qemu-io'
}
