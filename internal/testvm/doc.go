// Package testvm boots a test machine for tests that need what this machine's
// kernel may not have: device-mapper, and root.
//
// The machine is QEMU with software emulation (-accel tcg), Debian's cloud
// kernel, which is downloaded into the user's cache directory and not
// installed, and an initramfs of this machine's own programs: busybox, lvm and
// its commands, dmsetup, the thin_* tools, mkfs.ext4, e2fsck, mkfs.xfs. It
// boots in about 10 s on an idle processor, has no network and keeps
// nothing but its disks. A Go agent inside runs commands for the test; they
// may run side by side.
//
//	func TestThin(t *testing.T) {
//		pv := filepath.Join(t.TempDir(), "pv.img")
//		... os.Truncate(pv, 256<<20)
//		vm := testvm.Start(t, testvm.Options{
//			Disks: []testvm.Disk{{Path: pv}},          // /dev/vda
//			Files: map[string]string{"/bin/cbt": bin}, // a static cbt
//		})
//		vm.Run(t, `set -e
//			pvcreate -q /dev/vda && vgcreate -q vg /dev/vda
//			lvcreate -q -y --type thin-pool -L 100M -c 64k -n pool vg
//			lvcreate -q -y -V 1G --thin -n vm1 vg/pool
//			mkfs.ext4 -q /dev/vg/vm1`)
//		r := vm.Try(t, "cbt info lvm:vg/vm1") // r.Exit, r.Stdout, r.Stderr
//		...
//		if err := vm.Shutdown(); err != nil { // now pv holds a consistent group
//			t.Fatal(err)
//		}
//	}
//
// Start skips a test where something is missing, or fails it if
// testtool.RequireEnv is "1", and kills the machine when the test ends. Boot
// is for programs. Run, Try and Exec run a command, Start one to be signalled;
// each has a timeout. Put and Get copy small files (some 10 MB/s). Much data
// leaves faster by a further disk: dd it to /dev/vdb with oflag=direct, then
// read that disk's file on this side.
//
// Kernel modules that are not loaded yet (dm-thin-pool, dm-snapshot, dm-raid,
// xfs, ...) are loaded when the kernel needs them, or with modprobe.
// There is no udev: LVM and dmsetup make the device nodes themselves.
package testvm
