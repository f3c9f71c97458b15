package cli

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"slices"
	"strings"
	"sync"

	"cbt/internal/fail"
	"cbt/internal/text"
)

// algorithm is one way to hash.
type algorithm struct {
	name string // as --algo has it
	tag  string // as lists of several algorithms have it
	size int    // bytes of a digest
	make func() hash.Hash
}

// algorithms are all there are. Their sizes differ, by which a list without
// tags tells them apart. MD5 and SHA-1 can be forged: they are for comparing
// with what other programs noted.
var algorithms = []algorithm{
	{"md5", "MD5", md5.Size, md5.New},
	{"sha1", "SHA1", sha1.Size, sha1.New},
	{"sha256", "SHA256", sha256.Size, sha256.New},
	{"sha512", "SHA512", sha512.Size, sha512.New},
}

// parseAlgorithms reads --algo.
func parseAlgorithms(names []string) ([]algorithm, error) {
	var list []algorithm
	for _, name := range names {
		i := slices.IndexFunc(algorithms, func(a algorithm) bool { return strings.EqualFold(a.name, name) })
		if i < 0 {
			return nil, fail.Usage("--algo %s: is md5, sha1, sha256 or sha512", text.Printable(name))
		}
		if slices.ContainsFunc(list, func(a algorithm) bool { return a.name == algorithms[i].name }) {
			return nil, fail.Usage("--algo: %s is named twice", algorithms[i].name)
		}
		list = append(list, algorithms[i])
	}
	if len(list) == 0 {
		return nil, fail.Usage("--algo: names no algorithm: md5, sha1, sha256 or sha512")
	}
	return list, nil
}

// digester hashes one stream of bytes in several ways at once, each in a
// goroutine of its own. It is for one writer. Call close at the end.
type digester struct {
	lanes []hash.Hash
	in    []chan []byte
	busy  sync.WaitGroup
}

func newDigester(lanes []hash.Hash) *digester {
	d := &digester{lanes: lanes}
	if len(lanes) == 1 {
		return d // the writer's goroutine does it
	}
	for _, h := range lanes {
		in := make(chan []byte)
		d.in = append(d.in, in)
		go func() {
			for p := range in {
				h.Write(p)
				d.busy.Done()
			}
		}()
	}
	return d
}

// Write returns when all lanes are done with p. It never fails.
func (d *digester) Write(p []byte) (int, error) {
	if d.in == nil {
		return d.lanes[0].Write(p)
	}
	d.busy.Add(len(d.in))
	for _, in := range d.in {
		in <- p
	}
	d.busy.Wait()
	return len(p), nil
}

func (d *digester) close() {
	for _, in := range d.in {
		close(in)
	}
}

// summer hashes a range by all algorithms, as a whole and, if piece is not 0,
// each piece of that many bytes.
type summer struct {
	*digester
	algos   []algorithm
	piece   int64
	off     int64 // of the next byte
	left    int64 // of the piece that is under way
	onPiece func(off, n int64, sums []string) error
}

func newSummer(algos []algorithm, off, piece int64, onPiece func(off, n int64, sums []string) error) *summer {
	var lanes []hash.Hash
	for _, a := range algos {
		lanes = append(lanes, a.make())
	}
	if piece > 0 {
		for _, a := range algos {
			lanes = append(lanes, a.make())
		}
	}
	return &summer{newDigester(lanes), algos, piece, off, piece, onPiece}
}

func (s *summer) Write(p []byte) (int, error) {
	if s.piece == 0 {
		return s.digester.Write(p)
	}
	for rest := p; len(rest) > 0; {
		n := min(int64(len(rest)), s.left)
		// It never fails.
		_, _ = s.digester.Write(rest[:n])
		rest, s.off, s.left = rest[n:], s.off+n, s.left-n
		if s.left == 0 {
			if err := s.endPiece(); err != nil {
				return len(p) - len(rest), err
			}
		}
	}
	return len(p), nil
}

// endPiece hands out the piece under way, if it has any bytes.
func (s *summer) endPiece() error {
	n := s.piece - s.left
	if n == 0 {
		return nil
	}
	s.left = s.piece
	err := s.onPiece(s.off-n, n, sumsOf(s.lanes[len(s.algos):]))
	for _, h := range s.lanes[len(s.algos):] {
		h.Reset()
	}
	return err
}

// sums are the digests of all that was written, in the order of the
// algorithms.
func (s *summer) sums() []string { return sumsOf(s.lanes[:len(s.algos)]) }

func sumsOf(lanes []hash.Hash) []string {
	var list []string
	for _, h := range lanes {
		list = append(list, hex.EncodeToString(h.Sum(nil)))
	}
	return list
}
