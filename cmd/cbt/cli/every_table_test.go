//go:build linux

package cli

// everyCommand has a script for each command of the program, which TestEveryCommand
// runs: a command without one fails it. To add a command, add an entry.
//
// A script is for sh -e, in a directory with sources below src/, which nothing may
// write to, and with out/ for what is made. cbt runs under strace, with --audit and
// --hash both. The sources are
//
//	disk.qcow2       snapshots monday and tuesday, with RAM
//	chain-top.qcow2  on chain-mid.qcow2, on chain-base.raw
//	datafile.qcow2   with an external data file, datafile.data
//	disk.raw         monday's disk
//	plain.state      a saved machine
//	{0,1,2}.img      physical volumes of the group mixed: $pv is the flags for them
//	deltas/          mon.cbt, a full delta, and tue.cbt after it, with RAM
//
// and in/ has copies of the deltas for standard input, which a shell opens.
var everyCommand = map[string]string{
	"": `cbt --version; cbt --help >out/help; ! cbt; ! cbt nonsense`,

	"info": `
		cbt info src/disk.qcow2@monday; cbt info src/chain-top.qcow2; cbt info --json src/disk.raw
		cbt info src/plain.state; cbt info src/deltas/tue.cbt; cbt info $pv lvm:mixed/snap1; cbt info src/datafile.qcow2`,
	"map": `
		cbt map src/disk.qcow2; cbt map src/chain-top.qcow2; cbt map src/deltas/tue.cbt >out/map
		cbt map $pv lvm:mixed/snap1; ! cbt map src/missing`,
	"diff": `
		cbt diff src/disk.qcow2@monday src/disk.qcow2@tuesday
		cbt diff src/disk.qcow2@monday src/disk.qcow2@tuesday -o out/tue.cbt
		cbt diff --full src/chain-top.qcow2 -o out/top.cbt
		cbt diff src/deltas/mon.cbt src/disk.qcow2@tuesday -o - >out/piped.cbt
		cbt diff $pv lvm:mixed/snap1 lvm:mixed/snap2 -o out/volume.cbt
		cbt diff --full --new-state src/plain.state src/disk.raw -o out/state.cbt
		! cbt diff src/disk.qcow2@monday src/disk.qcow2@tuesday -o src/disk.raw`,
	"apply": `
		cbt restore src/deltas/mon.cbt out/target
		cbt apply src/deltas/tue.cbt out/target
		cbt restore src/deltas/mon.cbt out/piped
		cbt apply - out/piped <in/tue.cbt
		! cbt apply src/deltas/mon.cbt out/target`,
	"restore": `
		cbt restore src/deltas/tue.cbt out/new.raw --state out/new.state
		cbt restore --target-format qcow2 src/deltas/tue.cbt out/new.qcow2
		cbt restore --in-place src/deltas/mon.cbt out/new.raw
		cbt restore --overwrite src/deltas/mon.cbt out/new.raw --state out/new.state
		cbt restore - out/piped.raw <in/mon.cbt
		! cbt restore --overwrite src/deltas/mon.cbt src/deltas/mon.cbt
		! cbt restore src/deltas/mon.cbt src/disk.raw`,
	"cat": `
		cbt cat src/disk.qcow2@monday >out/monday; cbt cat src/chain-top.qcow2 | cat >/dev/null
		cbt cat src/datafile.qcow2 >/dev/null; cbt cat src/deltas/tue.cbt >out/tuesday
		cbt cat $pv lvm:mixed/thick1 >/dev/null; cbt cat src/plain.state@pc.ram >/dev/null`,
	"mount": `
		mkdir tmp/m; ! cbt mount --foreground src/missing tmp/m
		[ "$(id -u)" = 0 ] && [ -c /dev/fuse ] || exit 0
		wait_for() { while ! test -e $1; do sleep 0.05; done; }
		cbt mount --foreground src/disk.qcow2 tmp/m &
		wait_for tmp/m/active; find tmp/m -type f -size -2M -exec cat {} + >/dev/null; cbt umount tmp/m; wait $!
		cbt mount --foreground --overlay tmp src/deltas tmp/m &
		wait_for tmp/m/points; cat tmp/m/points/tue/disk.raw tmp/m/points/tue/ram/pc.ram >/dev/null
		echo x | dd of=tmp/m/points/mon/disk.raw conv=notrunc status=none; cbt umount tmp/m; wait $!
		cbt mount --foreground --together --overlay tmp src/0.img src/1.img src/2.img src/chain-top.qcow2 tmp/m &
		wait_for tmp/m/active; cat tmp/m/active/*.raw tmp/m/active/lvm/mixed/thin1.raw >/dev/null
		echo x | dd of=tmp/m/active/0.raw conv=notrunc status=none; cbt umount tmp/m; wait $!`,
	"umount": `
		mkdir tmp/m; ! cbt umount tmp/m; ! cbt umount src/missing`,
	"hash": `
		cbt hash --algo md5,sha256 --piece 64K src/disk.raw src/disk.qcow2@monday >out/list
		cbt hash --check out/list; cbt hash --check - <out/list; cbt hash src/deltas/tue.cbt`,
	"verify": `
		cbt verify src/deltas; cbt verify --against src/disk.qcow2@tuesday src/deltas/tue.cbt
		cbt verify - <in/mon.cbt; ! cbt verify src/disk.raw
		cbt verify --salvage --salvage-to out/salvaged src/deltas/mon.cbt; cbt verify --subset 1/2 src/deltas`,
	"merge": `
		cbt merge src/deltas/tue.cbt src/deltas/mon.cbt -o out/both.cbt
		cbt merge - src/deltas/mon.cbt -o - <in/tue.cbt >out/piped.cbt
		! cbt merge src/deltas/mon.cbt src/deltas/mon.cbt -o out/no.cbt; ! cbt merge src/deltas/mon.cbt src/deltas/tue.cbt -o src/disk.raw`,
	"prune": `
		cbt prune src/deltas --keep-last 1 --dry-run
		mkdir out/b; cp in/mon.cbt in/tue.cbt out/b; cbt prune out/b --keep-last 1 --rebase-every 0; ! cbt prune out/b`,
	"backup": `
		mkdir out/backups
		cbt backup src/disk.qcow2@monday out/backups; cbt backup src/disk.qcow2@tuesday out/backups
		cbt backup src/disk.qcow2@tuesday out/backups; ! cbt backup src/disk.raw out/backups; cbt backup --name pair --full sda=src/disk.raw sdb=src/chain-top.qcow2 out/backups
		cbt backup --name snap $pv lvm:mixed/snap1 out/backups; ! cbt backup src/disk.raw out/missing`,
	"serve": `
		cbt serve src/disk.qcow2@monday src/deltas/tue.cbt src/plain.state@pc.ram --run 'nbdcopy $uri null:; nbdinfo --no-content --list $uri >/dev/null'
		cbt serve src/disk.qcow2@tuesday --overlay out/overlay --run 'head -c 64K /dev/zero | nbdcopy - $uri'
		cbt serve src/disk.qcow2@tuesday --overlay out/overlay --run 'head -c 128K /dev/zero | nbdcopy - $uri'
		! cbt serve src/disk.raw --overlay src/chain-base.raw --run true
		cbt serve $pv lvm:mixed/snap1 --run 'nbdinfo --no-content $uri >/dev/null'; ! cbt serve src/disk.raw --tcp 0.0.0.0:0`,
	"log":   `cbt log src/deltas; ! cbt log --max-age 1s src/deltas`,
	"check": `cbt check src/disk.qcow2; cbt check src/chain-top.qcow2`,
	"ram":   `! cbt ram; ! cbt ram nonsense`,
	"ram dump": `
		cbt ram dump src/plain.state -o out/core
		cbt ram dump --format blocks src/deltas/tue.cbt -o out/blocks; cbt ram dump src/plain.state -o - >out/piped`,
	"ram diff":                  `cbt ram diff src/disk.qcow2@monday src/disk.qcow2@tuesday; cbt ram diff src/deltas/mon.cbt src/plain.state`,
	"ram find":                  `cbt ram find src/plain.state --text QEMU`,
	"lvm":                       `! cbt lvm`,
	"lvm release-metadata-snap": `! cbt lvm release-metadata-snap nogroup/pool`,
	"completion":                `cbt completion bash >out/bash`,
	"man":                       `cbt man out/man`,
	"version":                   `cbt version`,
	"help":                      `cbt help info`,
}
