# Devices that others are made of are no sources; volumes of theirs are.
pvcreate -q /dev/vda && vgcreate -q -s 1M vg /dev/vda
lvcreate -q -y -L 8M -n lv vg
head -c 8388608 /dev/urandom >/dev/vg/lv
exits 5 cbt cat /dev/vda
said '/dev/vda: is in use: held by dm-0 (vg-lv) (name the volume, lvm:VG/LV without --pv; --frozen: nobody writes to it)'
exits 5 cbt cat --pv /dev/vda lvm:vg/lv
said '--pv: /dev/vda: is in use: held by dm-0 (vg-lv)'
exits 5 cbt hash /dev/vda
exits 5 cbt backup /dev/vda /tmp/work
exits 0 cbt info --pv /dev/vda lvm:vg/lv
said 'is in use: held by dm-0 (vg-lv): what is read may be old'
exits 0 cbt cat --frozen --pv /dev/vda lvm:vg/lv
cmp out /dev/vg/lv || fail 'frozen: another content'
# What is made of it can only be read.
lvchange -q -an vg/lv && lvchange -q -pr vg/lv && lvchange -q -ay vg/lv
exits 0 cbt cat --pv /dev/vda lvm:vg/lv
cmp out /dev/vg/lv || fail 'read-only: another content'
lvchange -q -an vg/lv
exits 0 cbt cat --length 4096 /dev/vda

# A device by its own name, mounted: --path leaves out that it is a volume.
lvchange -q -prw vg/lv && lvchange -q -ay vg/lv
mkfs.ext4 -q /dev/vg/lv && mount -t ext4 /dev/vg/lv /mnt
exits 5 cbt cat --path /dev/vg/lv
said 'is in use: mounted at /mnt (`umount /mnt` ends that'
umount /mnt
exits 0 cbt cat --path /dev/vg/lv
vgchange -q -an vg

# Device-mapper without LVM.
dmsetup create plain --table '0 8192 linear /dev/vdb 0'
exits 5 cbt cat /dev/vdb
said 'is in use: held by dm-0 (plain) (name what is made of it; --frozen'
dmsetup remove plain
dmsetup create -r plain --table '0 8192 linear /dev/vdb 0'
exits 0 cbt cat --length 4096 /dev/vdb
dmsetup remove plain
exits 0 cbt cat --length 4096 /dev/vdb

# What is free may be written to while it is read.
while_reading 'dd if=/dev/zero of=/dev/vdb bs=4096 seek=9 count=1 oflag=direct' cbt cat --length 8388608 /dev/vdb
[ $code = 1 ] || fail "written to while it was read: exit $code"
said '/dev/vdb: was written to while it was read'
while_reading 'mkfs.ext4 -q -F /dev/vdb 8192 && mount -t ext4 /dev/vdb /mnt' cbt cat --length 8388608 /dev/vdb
[ $code != 0 ] || fail 'mounted while it was read'
umount /mnt
while_reading true cbt cat --length 8388608 /dev/vdb
[ $code = 0 ] || fail "only read: exit $code"

# md, set up without mdadm.
modprobe md_mod && modprobe linear
echo md127 >/sys/module/md_mod/parameters/new_array
md=/sys/block/md127/md
echo none >$md/metadata_version
echo linear >$md/level
echo 1 >$md/raid_disks
cat /sys/block/vdc/dev >$md/new_dev
echo 0 >$md/dev-vdc/slot
echo 65536 >$md/dev-vdc/size
echo active >$md/array_state
exits 5 cbt cat /dev/vdc
said '/dev/vdc: is in use: held by md127 (name what is made of it; --frozen: nobody writes to it)'
exits 0 cbt cat --length 4096 /dev/md127
echo readonly >$md/array_state
exits 0 cbt cat --length 4096 /dev/vdc
echo clear >$md/array_state
exits 0 cbt cat --length 4096 /dev/vdc
