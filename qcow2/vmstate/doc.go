// Package vmstate reads the saved state of a QEMU machine: its RAM as sparse views, and the state
// of its devices. docs/vmstate.md lists the containers and the kinds of streams that are read, and
// those that are refused.
//
// Integers of the migration stream are big endian, those of mapped-ram's bitmap little endian.
// Those of libvirt's header have the byte order of the host that wrote them. Names are QEMU's:
// migration/savevm.c, migration/ram.c, migration/vmstate.c. libvirt's are from
// src/qemu/qemu_saveimage.h.
//
// Memory use is at most 64 MiB plus 8 bytes for every guest page that is not zero, whatever the
// input.
package vmstate
