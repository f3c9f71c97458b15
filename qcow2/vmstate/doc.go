// Package vmstate reads the saved state of a QEMU machine: its RAM as sparse
// views, and the state of its devices. docs/vmstate.md says which containers
// and which kinds of streams are read, and which are refused.
//
// Integers of the migration stream are big endian, those of mapped-ram's
// bitmap little endian, those of libvirt's header in the byte order of the host
// that wrote them. Names are QEMU's: migration/savevm.c, migration/ram.c,
// migration/vmstate.c; libvirt's are from src/qemu/qemu_saveimage.h.
//
// Memory: 64 MiB plus 8 bytes for every guest page that is not zero, whatever
// the input.
package vmstate
