# After a rollback the snapshots that were taken before compare by metadata as
# ever, though nothing says any more what they are snapshots of.
pvcreate -q /dev/vda && vgcreate -q -s 1M vg /dev/vda
lvcreate -q -y --type thin-pool -L 100M --poolmetadatasize 4M -c 64k -n pool vg
mkdir d
write() { dd if=/dev/urandom of=/dev/vg/$1 bs=64k seek=$2 count=$3 oflag=direct 2>/dev/null; }
night() { # VM NAME: a snapshot, and its backup.
	lvcreate -q -y -s -n $2 vg/$1
	exits 0 cbt backup --name $1 --consistency crash lvm:vg/$2 d
	file=$(cat out)
}
whole() { # NAME: the last delta restores it.
	lvchange -q -ay -K vg/$1
	exits 0 cbt restore "$file" r.raw --overwrite
	cmp r.raw /dev/vg/$1 || fail "$1: another content restored"
	lvchange -q -an vg/$1
}
for vm in one two; do
	lvcreate -q -y -V 16M --thin -n $vm vg/pool
	write $vm 0 100
	night $vm $vm-mon
	said 'in full'
	write $vm 10 3
	night $vm $vm-tue
	said 'by thin metadata'
	write $vm 50 3
done

# Taken anew from a snapshot.
lvremove -q -y vg/one
lvcreate -q -y -s -kn -n one vg/one-mon
write one 20 2
night one one-wed
said 'by thin metadata'
whole one-wed
# Merged back.
lvchange -q -an vg/two
lvconvert -q -y --merge vg/two-mon
lvchange -q -ay vg/two
write two 20 2
night two two-wed
said 'by thin metadata'
whole two-wed
# What is another machine's in the same pool and the same directory is no base.
lvcreate -q -y -V 16M --thin -n three vg/pool
write three 0 10
night three three-mon
said 'in full'
# On carried disks the same.
vgchange -q -an vg
mkdir e && cp d/one-*.cbt e/
rm "$(ls e/one-*.cbt | tail -n 1)"
exits 0 cbt log e
exits 0 cbt backup --name one --pv /dev/vda lvm:vg/one-wed e
said 'by thin metadata'
