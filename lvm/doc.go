// Package lvm reads LVM2 without device-mapper: physical volumes, the metadata text of volume
// groups, and logical volumes as sparse.Views.
//
//	disk      ReadPV: label, PV header, metadata areas       label.go mda.go
//	text      ParseText: the configuration tree              lex.go text.go
//	group     Assemble: the newest text and the disks        group.go lv.go segment.go assemble.go
//	volume    Group.Open: where each byte of a volume lies   open.go raid.go thin.go snapshot.go
//
// Offsets and sizes are in bytes, except where a name or a comment says extents (of the group) or
// sectors (always 512 bytes).
//
// The package writes nothing and looks for no devices: the caller supplies the disks. docs/lvm.md
// lists what can be read and what is refused.
//
// Three things bound the memory used: the texts (16 MiB each, 2^20 values), what package thin keeps
// of a pool's metadata, and the exception tables of the thick snapshots that are opened.
package lvm

// SectorSize is LVM's unit in bytes, even on disks with larger sectors.
const SectorSize = 512
