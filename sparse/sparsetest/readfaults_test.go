package sparsetest_test

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"cbt/sparse"
)

// readFaults break the rules of Size and ReadAt.
var readFaults = map[string]func(f *faulty){
	"size too large": func(f *faulty) { f.size = func() int64 { return f.memView.Size() + 1 } },
	"size too small": func(f *faulty) { f.size = func() int64 { return f.memView.Size() - 1 } },

	"one byte wrong": func(f *faulty) {
		f.memView = &memView{bytes.Clone(f.data), f.memView.extents}
		f.data[len(f.data)*2/3] ^= 1
	},
	"last byte wrong": func(f *faulty) {
		f.memView = &memView{bytes.Clone(f.data), f.memView.extents}
		f.data[len(f.data)-1] ^= 1
	},
	"holes not cleared": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			q, err := sparse.ClipRead(p, off, f.memView.Size())
			for i := range q {
				if b := f.data[off+int64(i)]; b != 0 {
					q[i] = b
				}
			}
			return len(q), err
		}
	},
	"no more than 64 bytes a read": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) { return f.memView.ReadAt(p[:min(len(p), 64)], off) }
	},
	"no io.EOF behind the end": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			n, err := f.memView.ReadAt(p, off)
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
	},
	"wrapped io.EOF": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			n, err := f.memView.ReadAt(p, off)
			if err != nil {
				err = fmt.Errorf("read: %w", err)
			}
			return n, err
		}
	},
	"io.EOF at the end of a block": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			n, err := f.memView.ReadAt(p, off)
			if off >= 0 && (off+int64(n))%32 == 0 && n > 0 {
				err = io.EOF
			}
			return n, err
		}
	},
	"error at the end keeps the bytes back": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			n, err := f.memView.ReadAt(p, off)
			if n < len(p) {
				n = 0
			}
			return n, err
		}
	},
	"zeros behind the end": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			n, err := f.memView.ReadAt(p, off)
			if err == io.EOF {
				clear(p[n:])
				return len(p), nil
			}
			return n, err
		}
	},
	"zero-length read fails": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			if len(p) == 0 {
				return 0, io.EOF
			}
			return f.memView.ReadAt(p, off)
		}
	},
	"negative offset reads nothing": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			if off < 0 {
				return 0, nil
			}
			return f.memView.ReadAt(p, off)
		}
	},
	"negative offset panics": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			if off < f.memView.Size() {
				return copy(p, f.data[off:]), nil
			}
			return f.memView.ReadAt(p, off)
		}
	},
	"read spans no extents": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			n, err := f.memView.ReadAt(p, off)
			for i, e := range f.memView.extents {
				if i > 0 && off < e.Off && off+int64(n) > e.Off {
					clear(p[e.Off-off : n])
					break
				}
			}
			return n, err
		}
	},
	"writes behind the slice": func(f *faulty) {
		f.read = func(p []byte, off int64) (int, error) {
			n, err := f.memView.ReadAt(p, off)
			if n > 0 && cap(p) > n {
				p[:n+1][n] = 0
			}
			return n, err
		}
	},
	"one buffer for all readers": func(f *faulty) {
		var mu sync.Mutex
		var shared []byte
		f.read = func(p []byte, off int64) (int, error) {
			mu.Lock()
			shared = append(shared[:0], make([]byte, len(p))...)
			buf := shared
			n, err := f.memView.ReadAt(buf, off)
			mu.Unlock()
			// Another reader may come in here.
			for range 50 {
				mu.Lock()
				runtime.Gosched()
				mu.Unlock()
			}
			mu.Lock()
			copy(p, buf)
			mu.Unlock()
			return n, err
		}
	},
	"several readers at once fail": func(f *faulty) {
		var in atomic.Int32
		f.read = func(p []byte, off int64) (int, error) {
			defer in.Add(-1)
			if in.Add(1) > 1 {
				return 0, errTest
			}
			n, err := f.memView.ReadAt(p, off)
			for range 5 {
				runtime.Gosched()
			}
			return n, err
		}
	},
}
