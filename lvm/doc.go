// Package lvm reads LVM2: physical volumes, the metadata text of volume
// groups, and logical volumes as sparse.Views, without device-mapper.
//
//	disk      ReadPV: label, PV header, metadata areas       label.go mda.go
//	text      ParseText: the configuration tree              lex.go text.go
//	group     Assemble: the newest text and the disks        group.go lv.go segment.go assemble.go
//	volume    Group.Open: where each byte of a volume lies   open.go raid.go thin.go snapshot.go
//
// Offsets and sizes are in bytes, except where a name or a comment says
// extents (of the group) or sectors (512 bytes, always).
//
// Nothing is written, no device is looked for: the caller brings the disks.
// What may be read and what is refused is in docs/lvm.md.
//
// Memory is bounded by the texts (16 MiB each, 2^20 values), by what package
// thin keeps of a pool's metadata and by the exception tables of the thick
// snapshots that are opened.
package lvm

// SectorSize is LVM's unit, also on disks with larger sectors.
const SectorSize = 512
