package lvm

import "testing"

// Reading from the page cache, a megabyte at a time.
func BenchmarkRead(b *testing.B) {
	for _, c := range []struct{ set, lv string }{{"mixed", "lin"}, {"mixed", "str-ip.ed_2"}, {"raid", "r0two"}, {"raid", "r5la"}, {"raid", "r6"}, {"raid", "r10big"}, {"mixed", "snap1"}, {"mixed", "thick1"}} {
		b.Run(c.lv, func(b *testing.B) {
			v := mustOpen(b, assemble(b, disks(b, c.set)...), c.lv)
			p := make([]byte, 1<<20)
			b.ResetTimer()
			b.SetBytes(int64(len(p)))
			for i := range b.N {
				if _, err := v.ReadAt(p, int64(i%2)<<20); err != nil && v.Size() > 2<<20 {
					b.Fatal(err)
				}
			}
		})
	}
}

// Finding groups: three disks, thirty volumes.
func BenchmarkAssemble(b *testing.B) {
	all := disks(b, "mixed")
	for b.Loop() {
		assemble(b, all...)
	}
}
