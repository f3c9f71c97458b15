# A pool without a free chunk: its snapshots are what has to be saved now.
pvcreate -q /dev/vda && vgcreate -q -s 1M vg /dev/vda
lvcreate -q -y --type thin-pool -L 8M --poolmetadatasize 2M -c 64k -n pool vg
lvchange -q --errorwhenfull y vg/pool
lvcreate -q -y -V 64M --thin -n vm vg/pool 
head -c 4194304 /dev/urandom >content
dd if=content of=/dev/vg/vm bs=1M oflag=direct 
lvcreate -q -y -s -n mon vg/vm 
dd if=/dev/urandom of=/dev/vg/vm bs=64k count=9 oflag=direct 
lvcreate -q -y -s -n tue vg/vm 
dd if=/dev/vg/vm of=tue bs=1M 
mkdir d
cbt backup lvm:vg/mon d 
dd if=/dev/zero of=/dev/vg/vm bs=64k seek=200 oflag=direct 2>/dev/null || :
dmsetup status vg-pool-tpool | grep -q out_of_data_space || fail 'the pool is not full'
exits 0 cbt cat lvm:vg/tue
said 'warning: vg/pool: the pool is out of data space (128 of 128 chunks in use): what its volumes wrote last may be lost, snapshots that were taken before are whole'
cmp out tue || fail 'another content'
exits 0 cbt backup lvm:vg/tue d
said 'by thin metadata'
exits 0 cbt restore "$(cat out)" restored.raw
cmp restored.raw tue || fail 'another content restored'
exits 0 cbt info lvm:vg/tue
printed point:
dmsetup status vg-pool-tpool | grep -q ' - out_of_data_space' || fail 'the metadata snapshot is held'
