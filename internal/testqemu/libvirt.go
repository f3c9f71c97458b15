package testqemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cbt/internal/testdeb"
	"cbt/internal/testtool"
)

// Libvirt is a libvirt of version 11 or later with a QEMU of Newer, out of
// Debian's backports and not installed. It is the driver without a daemon
// (qemu:///embed), in a mount namespace where its files are laid over /usr.
type Libvirt struct {
	Dir    string // its working directory
	t      testing.TB
	script string
}

// libvirtPackages are all that virsh needs; what else they depend on is for daemons.
var libvirtPackages = []string{"libvirt-daemon-driver-qemu", "libvirt-daemon-common", "libvirt-clients", "libvirt-common", "libvirt0"}

// libvirtConfig leaves out what needs the system's help.
const libvirtConfig = `
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
`

// libvirtScript runs virsh with libvirt's and QEMU's files in their places.
// Modules of another QEMU would be found there, and the driver looks for a user
// even if it is not to use it.
const libvirtScript = `set -e
cd '%[1]s'
mount -t overlay overlay -o 'lowerdir=%[2]s' /usr
mount -t tmpfs tmpfs /run
for modules in %[3]s; do mount --bind "$modules" "/usr/${modules##*/usr/}"; done
for f in passwd group; do
	{ cat /etc/$f; echo libvirt-qemu:x:64055:64055::/:/bin/false; } >$f
	mount --bind $f /etc/$f
done
export LC_ALL=C HOME='%[1]s' XDG_CACHE_HOME='%[1]s/cache' LIBVIRT_LOG_OUTPUTS='3:file:%[1]s/log'
%[4]s virsh -q -c 'qemu:///embed?root=%[1]s/root' "$@"
`

// NewLibvirt makes a libvirt without domains. Where there is none to be had the
// test is skipped, or fails if testtool.RequireEnv says so; without leave to
// mount it is skipped.
func NewLibvirt(t testing.TB) *Libvirt {
	t.Helper()
	qemu := Newer(t)
	for _, name := range []string{"unshare", "mount"} {
		testtool.Need(t, name)
	}
	dir, err := testdeb.Backports("libvirt", libvirtPackages...)
	if err != nil {
		testtool.Missing(t, fmt.Sprintf("no libvirt 11: %v", err))
	}
	layers, modules := filepath.Join(dir, "usr"), ""
	if root := rootOf(qemu); root != "" && root != qemu {
		layers += ":" + filepath.Join(root, "usr")
		modules = "'" + root + "'/usr/lib/*/qemu"
	}
	l := &Libvirt{t: t, Dir: t.TempDir()}
	config, user := libvirtConfig, ""
	if uid := os.Getuid(); uid == 0 {
		config += "user = \"root\"\ngroup = \"root\"\n"
	} else { // root of a namespace may not do all that libvirt does as root
		user = fmt.Sprintf("unshare --user --map-user=%d", uid)
	}
	l.script = fmt.Sprintf(libvirtScript, l.Dir, layers+":/usr", modules, user)
	if err := os.MkdirAll(filepath.Join(l.Dir, "root", "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.Dir, "root", "etc", "qemu.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	version, err := l.run("-v")
	if err != nil {
		t.Skipf("no mount namespace for libvirt: %v", err)
	}
	if number(version) < 11 {
		testtool.Missing(t, "no libvirt 11: this one is "+version)
	}
	return l
}

// Virsh runs commands one after another, and returns what they print. All of
// them must succeed. Domains that run after the last one are killed and forgotten.
func (l *Libvirt) Virsh(commands ...string) string {
	l.t.Helper()
	out, err := l.run(strings.Join(commands, "; "))
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(l.Dir, "log"))
		l.t.Fatalf("virsh: %v\n%s", err, log)
	}
	return out
}

func (l *Libvirt) run(commands string) (string, error) {
	if err := os.RemoveAll(filepath.Join(l.Dir, "root", "run")); err != nil {
		return "", err
	}
	args := []string{"--mount", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Getuid() != 0 {
		args = append(args, "--map-root-user")
	}
	ctx, cancel := context.WithTimeout(context.Background(), lifetime)
	defer cancel()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, "unshare", append(args, "sh", "-c", l.script, "sh", commands)...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	// A command that fails does not keep virsh from the next one.
	if said := strings.TrimSpace(errOut.String()); err != nil || strings.Contains(said, "error:") {
		return "", errors.Join(err, errors.New(said))
	}
	return out.String(), nil
}
