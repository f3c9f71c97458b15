# qcow2 images in volumes, as Proxmox and Incus keep them: a base with internal
# snapshots, and a chain of volumes.
pvcreate -q /dev/vda && vgcreate -q -s 1M vg /dev/vda
lvcreate -q -y -L 24M -n vm vg
qemu-img create -q -f qcow2 /dev/vg/vm 16M
write() { qemu-io -f qcow2 -c "write -q -P $2 $3 $4" $1 >/dev/null; }
write /dev/vg/vm 1 0 8M
qemu-img snapshot -c mon /dev/vg/vm
write /dev/vg/vm 2 1M 64k
qemu-img snapshot -c tue /dev/vg/vm
write /dev/vg/vm 3 2M 64k
for s in mon tue; do qemu-img convert -f qcow2 -l $s -O raw /dev/vg/vm $s.raw; done
qemu-img convert -f qcow2 -O raw /dev/vg/vm now.raw
mkdir d

# It is not believed without being told, and the message names what helps.
exits 2 cbt cat --length 1 --frozen lvm:vg/vm
said 'lvm:vg/vm: starts like a qcow2 image, which may be a guest'"'"'s doing: say what it is with --format qcow2 or raw'
exits 2 cbt cat lvm:vg/vm@mon
said '(those of a qcow2 image in it go with --format qcow2)'
exits 0 cbt info lvm:vg/vm
printed 'content:       starts like a qcow2 image (--format qcow2 describes it)'
exits 0 cbt info --format qcow2 lvm:vg/vm
printed '/dev/vg/vm'
printed 'mon'
exits 0 cbt info --format qcow2 lvm:vg/vm@tue
printed 'point:'
grep point: out >point-live

# While the volume is active, and while a machine has it open for writing.
for ref in lvm:vg/vm@mon /dev/vg/vm@mon /dev/mapper/vg-vm@mon; do
	exits 0 cbt cat --format qcow2 $ref
	cmp out mon.raw || fail "$ref: another content"
done
exits 0 cbt cat --format qcow2 --snapshot tue lvm:vg/vm
cmp out tue.raw || fail 'another content'
exits 0 cbt cat --format qcow2 lvm:vg/vm
cmp out now.raw || fail 'another content'
exits 0 cbt check --format qcow2 lvm:vg/vm
exits 0 cbt diff --format qcow2 lvm:vg/vm@mon /dev/vg/vm@tue
said 'shared tables of one image'
exits 0 cbt map --format qcow2 lvm:vg/vm@mon
exits 0 cbt serve --format qcow2 lvm:vg/vm@tue --run 'echo $uri'
mkdir m
modprobe fuse
exits 0 cbt mount --format qcow2 lvm:vg/vm m
cmp m/snapshots/mon/disk.raw mon.raw || fail 'mount: another content'
cmp m/active/disk.raw now.raw || fail 'mount: another active state'
exits 0 cbt umount m
exits 0 cbt backup --format qcow2 lvm:vg/vm@mon d
exits 0 cbt backup --format qcow2 lvm:vg/vm@tue d
said 'by shared tables of one image'
said 'no longer needed'
said 'qemu-img snapshot -d mon /dev/vg/vm'
exits 0 cbt restore "$(cat out)" r.raw
cmp r.raw tue.raw || fail 'another content restored'
mkfifo monitor
qemu-io -f qcow2 /dev/vg/vm <monitor >/dev/null & machine=$!
exec 4>monitor
echo 'write -q 3M 64k' >&4
until grep -q ":$(stat -L -c %i /dev/vg/vm) 10" /proc/locks; do sleep 0.1; done
exits 5 cbt cat --format qcow2 lvm:vg/vm
said '/dev/vg/vm: a running machine or another program writes to it: take a snapshot and name that (/dev/vg/vm@NAME)'
exits 0 cbt cat --format qcow2 /dev/vg/vm@mon
cmp out mon.raw || fail 'another content'
exec 4>&-
wait $machine

# Not active, and on carried disks: the same points.
vgchange -q -an vg
exits 0 cbt info --format qcow2 lvm:vg/vm@tue
grep point: out | cmp - point-live || fail 'another point when it is not active'
exits 0 cbt info --format qcow2 --pv /dev/vda lvm:vg/vm@tue
grep point: out | cmp - point-live || fail 'another point by --pv'
exits 0 cbt cat --format qcow2 --pv /dev/vda lvm:vg/vm@mon
cmp out mon.raw || fail '--pv: another content'
exits 0 cbt diff --format qcow2 --pv /dev/vda lvm:vg/vm@mon lvm:vg/vm@tue
said 'shared tables of one image'
exits 0 cbt mount --format qcow2 --pv /dev/vda lvm:vg/vm@tue m
cmp m/snapshots/tue/disk.raw tue.raw || fail '--pv, mount: another content'
exits 0 cbt umount m
exits 0 cbt backup --format qcow2 --pv /dev/vda lvm:vg/vm@tue d
said ' already: '
exits 2 cbt cat --pv /dev/vda lvm:vg/vm
said 'say what it is with --format qcow2 or raw'
exits 0 cbt hash --format qcow2 --pv /dev/vda lvm:vg/vm
vgchange -q -ay vg

# A chain of volumes. Names in an image are granted by the group's directory.
lvcreate -q -y -L 8M -n snap1 vg
lvcreate -q -y -L 8M -n snap2 vg
lvcreate -q -y -L 8M -n top vg
qemu-img create -q -f qcow2 -b /dev/vg/vm -F qcow2 /dev/vg/snap1
write /dev/vg/snap1 4 3M 128k
qemu-img create -q -f qcow2 -b snap1 -F qcow2 /dev/vg/snap2 16M
write /dev/vg/snap2 5 4M 128k
qemu-img create -q -f qcow2 -b /dev/vg/snap2 -F qcow2 /dev/vg/top
qemu-img convert -f qcow2 -O raw /dev/vg/snap1 snap1.raw
qemu-img convert -f qcow2 -O raw /dev/vg/snap2 snap2.raw
exits 2 cbt cat --format qcow2 lvm:vg/snap2
said '/dev/vg/snap2: backing file "snap1" is another volume: --allow /dev/vg would allow it'
exits 2 cbt cat --format qcow2 --allow /dev/other lvm:vg/snap2
exits 0 cbt cat --format qcow2 --allow /dev/vg lvm:vg/snap2
cmp out snap2.raw || fail 'chain: another content'
exits 0 cbt info --format qcow2 --allow /dev/vg lvm:vg/snap2
printed '/dev/vg/snap1'
mkdir e
exits 0 cbt backup --name vm --frozen --format qcow2 --allow /dev/vg lvm:vg/snap1 e
exits 0 cbt backup --name vm --frozen --format qcow2 --allow /dev/vg lvm:vg/snap2 e
said 'by overlay over its backing chain'
exits 0 cbt restore "$(cat out)" s.raw
cmp s.raw snap2.raw || fail 'chain: another content restored'
exits 0 cbt backup --name vm --frozen --format qcow2 --allow /dev/vg lvm:vg/snap2 e
said ' already: '
# Somebody writes to a volume of the chain: its point has ended.
write /dev/vg/snap1 6 3M 4k
qemu-img convert -f qcow2 -O raw /dev/vg/snap2 snap2.raw
exits 0 cbt backup --name vm --frozen --format qcow2 --allow /dev/vg lvm:vg/snap2 e
exits 0 cbt restore "$(cat out)" t.raw
cmp t.raw snap2.raw || fail 'written to: another content restored'
# --frozen is believed, but for what the kernel has counted.
while_reading 'dd if=/dev/zero of=/dev/vg/vm bs=4096 seek=6000 count=1 oflag=direct' cbt cat --frozen --format qcow2 --allow /dev/vg lvm:vg/snap2
[ $code = 1 ] || fail "written to while it was read: exit $code"
said '/dev/vg/vm: was written to while it was read'
# Read-only volumes have a point that stays, which nobody needs to vouch for.
vgchange -q -an vg
lvchange -q -pr vg/vm vg/snap1 vg/snap2
exits 0 cbt info --format qcow2 --allow /dev/vg lvm:vg/snap2
printed 'point:'
grep point: out >point-read-only
exits 0 cbt info --format qcow2 --allow /dev/vg --pv /dev/vda lvm:vg/snap2
grep point: out | cmp - point-read-only || fail 'another point by --pv'
exits 0 cbt cat --format qcow2 --allow /dev/vg --pv /dev/vda lvm:vg/snap2
cmp out snap2.raw || fail '--pv, chain: another content'
exits 2 cbt cat --format qcow2 --pv /dev/vda lvm:vg/snap2
said '--allow /dev/vg would allow it'
vgchange -q -ay vg
exits 0 cbt info --format qcow2 --allow /dev/vg lvm:vg/snap2
grep point: out | cmp - point-read-only || fail 'another point when it is active'
exits 0 cbt cat --format qcow2 --allow /dev/vg lvm:vg/snap2
cmp out snap2.raw || fail 'read-only, chain: another content'
