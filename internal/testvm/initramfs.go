package testvm

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"cbt/internal/testtool"
)

// programs are this machine's that the test machine has besides busybox.
var programs = []string{
	"lvm", "dmsetup", "thin_dump", "thin_check", "thin_delta", "thin_repair", "thin_restore", "thin_rmap", "thin_ls",
	"mkfs.ext4", "e2fsck", "mkfs.xfs",
}

// lvmCommands are names that lvm answers to.
var lvmCommands = strings.Fields("lvchange lvconvert lvcreate lvdisplay lvextend lvreduce lvremove lvrename lvresize lvs " +
	"pvchange pvck pvcreate pvmove pvremove pvresize pvs vgcfgbackup vgcfgrestore vgchange vgck vgcreate vgdisplay vgextend " +
	"vgimportclone vgreduce vgremove vgrename vgs vgscan")

const lvmConf = `global { use_lvmpolld=0 event_activation=0 thin_check_executable="/bin/thin_check" thin_repair_executable="/bin/thin_repair" thin_dump_executable="/bin/thin_dump" }
devices { obtain_device_list_from_udev=0 use_devicesfile=0 external_device_info_source="none" }
activation { udev_sync=0 udev_rules=0 monitoring=0 }
backup { backup=0 archive=0 }
`

const initScript = `#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root LC_ALL=C DM_DISABLE_UDEV=1
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/lock/lvm /run/lvm
ln -s /proc/mounts /etc/mtab
echo /bin/modprobe >/proc/sys/kernel/modprobe
for m in BOOT; do modprobe $m; done
/agent
echo "the agent ended"
sync
poweroff -f
`

// writeInitramfs makes the test machine's root file system.
func writeInitramfs(name, kernelDir, agent string, opt Options) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	// Not compressed: the emulated processor would unpack it more slowly than QEMU copies it.
	a := newArchive(w)
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "run", "root", "mnt", "etc/lvm", "var/lock"} {
		a.dir(dir)
	}
	a.file("init", 0o755, []byte(strings.Replace(initScript, "BOOT", strings.Join(bootModules, " "), 1)))
	a.file("etc/lvm/lvm.conf", 0o644, []byte(lvmConf))
	a.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	a.file("etc/group", 0o644, []byte("root:x:0:\n"))
	a.hostFile("agent", agent)
	if err := addPrograms(a, opt.Programs); err != nil {
		return err
	}
	for _, to := range slices.Sorted(maps.Keys(opt.Files)) {
		a.hostFile(to, opt.Files[to])
		if err := addLibraries(a, opt.Files[to]); err != nil {
			return err
		}
	}
	if err := addModules(a, kernelDir, slices.Concat(bootModules, lazyModules, opt.Modules)); err != nil {
		return err
	}
	if err := a.close(); err != nil {
		return err
	}
	return w.Flush()
}

// addPrograms adds programs at their real paths, their libraries, and links in /bin.
func addPrograms(a *archive, more []string) error {
	busybox, ok := testtool.Find("busybox")
	if !ok {
		return missing("busybox")
	}
	a.hostFile("bin/busybox", busybox)
	a.link("bin/sh", "busybox")
	a.link("sbin/modprobe", "/bin/busybox") // where lvm looks
	for _, name := range append(slices.Clone(programs), more...) {
		found, ok := testtool.Find(name)
		if !ok {
			return missing(name)
		}
		real, err := filepath.EvalSymlinks(found)
		if err != nil {
			return err
		}
		a.hostFile(real, real)
		a.link(path.Join("bin", filepath.Base(name)), real)
		if err := addLibraries(a, real); err != nil {
			return err
		}
	}
	for _, name := range lvmCommands {
		a.link("bin/"+name, "lvm")
	}
	return a.err
}

// addLibraries adds what a program is linked with, at the paths where it looks.
func addLibraries(a *archive, program string) error {
	// ldd fails for what is static or no program.
	out, _ := exec.Command("ldd", program).Output()
	for _, field := range strings.Fields(string(out)) {
		if strings.HasPrefix(field, "/") && !strings.HasSuffix(field, ":") {
			a.hostFile(field, field)
		}
	}
	return a.err
}

// addModules adds modules and the lists that busybox's modprobe reads.
func addModules(a *archive, kernelDir string, names []string) error {
	dirs, _ := filepath.Glob(filepath.Join(kernelDir, "lib", "modules", "*"))
	if len(dirs) != 1 {
		return fmt.Errorf("%s: modules of %d kernels, want 1", kernelDir, len(dirs))
	}
	tree, err := readModules(dirs[0])
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := tree.order(name); err != nil {
			return err
		}
	}
	to := path.Join("lib/modules", filepath.Base(dirs[0]))
	var dep, alias strings.Builder
	for _, name := range slices.Sorted(maps.Keys(tree.infos)) {
		b, err := tree.content(name)
		if err != nil {
			return err
		}
		a.file(path.Join(to, name+".ko"), 0o644, b)
		order, err := tree.order(name)
		if err != nil {
			return err
		}
		// Its lines name what to load from the last to the first.
		dep.WriteString(name + ".ko:")
		for _, below := range slices.Backward(order[:len(order)-1]) {
			dep.WriteString(" " + below + ".ko")
		}
		dep.WriteString("\n")
		for _, other := range tree.infos[name].aliases {
			fmt.Fprintf(&alias, "alias %s %s\n", other, name)
		}
	}
	a.file(path.Join(to, "modules.dep"), 0o644, []byte(dep.String()))
	a.file(path.Join(to, "modules.alias"), 0o644, []byte(alias.String()))
	return a.err
}
