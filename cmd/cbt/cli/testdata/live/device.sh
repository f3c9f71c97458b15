# The record of a device with a write cache: looking at it flushes the device,
# which the kernel counts as a request to write.
truncate -s 4194304 a.raw
dd if=/dev/urandom of=a.raw bs=4096 count=9 conv=notrunc 2>/dev/null
exits 0 cbt diff --full a.raw -o 1.cbt
cp a.raw b.raw
dd if=/dev/urandom of=b.raw bs=4096 seek=3 count=2 conv=notrunc 2>/dev/null
exits 0 cbt diff 1.cbt b.raw -o 2.cbt
mkdir state
exits 0 cbt restore 1.cbt /dev/vdb --in-place --state-dir state
exits 0 cbt apply 2.cbt /dev/vdb --state-dir state
head -c 4194304 /dev/vdb | cmp - b.raw || fail 'another content'
dd if=/dev/zero of=/dev/vdb bs=4096 count=1 oflag=direct 2>/dev/null
exits 4 cbt apply 2.cbt /dev/vdb --state-dir state
