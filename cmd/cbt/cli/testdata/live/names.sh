# What is there is said where a name is wrong, and a device that cannot be read
# keeps nobody from the others.
pvcreate -q /dev/vda && vgcreate -q -s 1M vg /dev/vda
for lv in one two; do lvcreate -q -y -L 1M -n $lv vg; done
exits 1 cbt cat lvm:vg/onne
said 'lvm:vg/onne: volume group vg has no logical volume onne; there are: one, two'
exits 1 cbt info lvm:vg/onne
said 'there are: one, two'
vgchange -q -an vg
exits 1 cbt cat --pv /dev/vda lvm:vg/onne
said 'there are: one, two'
exits 1 cbt cat lvm:vgg/one
said 'there are: vg'

# A device that gives errors, and a node that may not be opened, which even root
# may not where it lies on a file system without devices.
dmsetup create bad --table '0 8192 error'
exits 0 cbt cat lvm:vg/one
said 'warning: left out: read /dev/dm-0'
dmsetup remove bad
mount -t tmpfs -o nodev none /mnt
mknod /mnt/node b $(sed 's/:/ /' /sys/block/vdd/dev)
mount --bind /mnt/node /dev/vdd
exits 0 cbt cat lvm:vg/one
said 'warning: left out: open /dev/vdd: permission denied'
umount /dev/vdd
umount /mnt
