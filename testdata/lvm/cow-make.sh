#!/bin/bash
# Remakes cow-*.gz and the tables of cow-README.md: boots a kernel with device-mapper in QEMU, has LVM take thick
# snapshots there (cow-guest.sh), and packs what their exception stores and origins hold afterwards.
# Usage: KROOT=DIR testdata/lvm/cow-make.sh      DIR: where Debian's package linux-image-*-cloud-amd64 is unpacked
# Needs qemu-system-x86, lvm2, busybox-static, cpio, kmod. Only what lvm itself writes into its own metadata is
# random, and that is not kept: the same tools make the same bytes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${KROOT:?the folder that the kernel package is unpacked to}"
export PATH=$PATH:/usr/sbin LC_ALL=C
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
root=$tmp/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,run/lock/lvm,etc/lvm,lib64,modules}

# program PATH: with the libraries it needs.
program() {
	cp -L "$1" "$root/bin/"
	{ ldd "$1" || true; } | grep -o '/[^ )]*' | while read -r lib; do
		mkdir -p "$root$(dirname "$lib")"
		cp -L "$lib" "$root$lib"
	done
}
cp /bin/busybox "$root/bin/"
ln -s busybox "$root/bin/sh"
program "$(command -v lvm)"
program "$(command -v dmsetup)"
program /bin/dd
cp "$here/cow-guest.sh" "$root/guest.sh"

release=$(ls "$KROOT/lib/modules")
depmod -b "$KROOT" "$release"
for module in virtio_pci virtio_blk dm-mod dm-snapshot; do
	modprobe -d "$KROOT" -S "$release" --show-depends "$module" | awk '/^insmod/ { print $2 }'
done | awk '!seen[$0]++' | while read -r path; do
	cp "$path" "$root/modules/"
	echo "/modules/$(basename "$path")" >>"$root/modules/list"
done
cat >"$root/etc/lvm/lvm.conf" <<'X'
devices { obtain_device_list_from_udev=0 use_devicesfile=0 }
activation { udev_sync=0 udev_rules=0 monitoring=0 }
backup { backup=0 archive=0 }
X
cat >"$root/init" <<'X'
#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/bin DM_DISABLE_UDEV=1
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev; mount -t tmpfs t /tmp; mount -t tmpfs t /run
mkdir -p /run/lock/lvm
while read -r f; do insmod "$f"; done </modules/list
sh -e /guest.sh && echo GUEST-DONE
poweroff -f
X
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$tmp/initrd"

truncate -s 1G "$tmp/pv" "$tmp/out"
timeout 900 qemu-system-x86_64 -accel tcg -cpu max -m 1536 -nographic -no-reboot -nodefaults -serial stdio \
	-kernel "$KROOT"/boot/vmlinuz-* -initrd "$tmp/initrd" -append "console=ttyS0 panic=-1 quiet" \
	-drive "file=$tmp/pv,format=raw,if=virtio,cache=unsafe" -drive "file=$tmp/out,format=raw,if=virtio,cache=unsafe" |
	tee "$tmp/log"
grep -q GUEST-DONE "$tmp/log"

mkdir "$tmp/files"
tar -xf "$tmp/out" -C "$tmp/files"
cd "$tmp/files"
rm -f "$here"/cow-*.gz
for f in *.store *.origin; do gzip -9n <"$f" >"$here/cow-$f.gz"; done
{
	sed '/^<!-- made/q' "$here/cow-README.md"
	echo
	echo "Made with Linux $release and $(lvm version | sed -n 's/ *LVM version: */LVM /p')."
	echo
	printf '| snapshot | origin | bytes | SHA-256 of the snapshot | SHA-256 of the origin | status |\n|---|---|---|---|---|---|\n'
	cat table
} >"$tmp/README.md"
cp "$tmp/README.md" "$here/cow-README.md"
