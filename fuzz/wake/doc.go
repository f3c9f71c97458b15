// Package wake shows, with a real QEMU and a real Linux in it, that a machine
// that was restored goes on with the disk and the memory of its point. It has
// nothing but tests.
package wake
