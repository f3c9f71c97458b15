package tool

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"
)

// Alterations are what others do to a file between two runs of cbt, by name.
// Each keeps the file's name; those that "keep its time" put its mtime back.
var Alterations = []struct {
	Name string
	do   func(rng *rand.Rand, path string, size int64) error
}{
	{"another file copied over it", func(rng *rand.Rand, path string, size int64) error {
		return overwriteAll(path, rng, size, os.O_TRUNC)
	}},
	{"another file copied over it, which keeps its time", func(rng *rand.Rand, path string, size int64) error {
		return KeepTime(path, func() error { return overwriteAll(path, rng, size, os.O_TRUNC) })
	}},
	{"cut off", func(rng *rand.Rand, path string, size int64) error {
		return os.Truncate(path, rng.Int64N(size))
	}},
	{"made longer", func(rng *rand.Rand, path string, size int64) error {
		return os.Truncate(path, size+1+rng.Int64N(1<<16))
	}},
	{"a byte flipped", func(rng *rand.Rand, path string, size int64) error {
		return FlipByte(path, rng.Int64N(size))
	}},
	{"a byte flipped, which keeps its time", func(rng *rand.Rand, path string, size int64) error {
		return KeepTime(path, func() error { return FlipByte(path, rng.Int64N(size)) })
	}},
	{"replaced by a copy with a byte flipped", func(rng *rand.Rand, path string, size int64) error {
		return replaceByCopy(path, rng.Int64N(size), "--preserve=timestamps")
	}},
	{"replaced by a copy with all attributes and a byte flipped", func(rng *rand.Rand, path string, size int64) error {
		return replaceByCopy(path, rng.Int64N(size), "--archive")
	}},
	// A superblock, a bitmap, an inode: a few blocks at round places.
	{"checked and mended, as by fsck", func(rng *rand.Rand, path string, size int64) error {
		for _, off := range []int64{1024, 1 << 20, 32768 * 128, rng.Int64N(size) &^ 4095} {
			if off >= size {
				continue
			}
			if err := FlipByte(path, off); err != nil {
				return err
			}
		}
		return nil
	}},
	{"given another mode and a second name", func(_ *rand.Rand, path string, _ int64) error {
		link := path + ".link"
		os.Remove(link)
		return errors.Join(os.Chmod(path, 0o640), os.Link(path, link))
	}},
}

// Alter does one of the Alterations to a file, and returns its name.
func Alter(rng *rand.Rand, path string) (string, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	a := Alterations[rng.IntN(len(Alterations))]
	if fi.Size() == 0 {
		return "left empty", nil
	}
	return a.Name, a.do(rng, path, fi.Size())
}

// FlipByte changes one byte of a file, in place.
func FlipByte(path string, off int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := []byte{0}
	if _, err := f.ReadAt(b, off); err != nil {
		return err
	}
	b[0] ^= 0x5a
	_, err = f.WriteAt(b, off)
	return errors.Join(err, f.Close())
}

// KeepTime puts back the mtime that a file had before do.
func KeepTime(path string, do func() error) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	return errors.Join(do(), os.Chtimes(path, time.Time{}, fi.ModTime()))
}

func overwriteAll(path string, rng *rand.Rand, size int64, flags int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var seed [32]byte
	seed[0] = byte(rng.Uint32())
	_, err = io.CopyN(f, rand.NewChaCha8(seed), size)
	return errors.Join(err, f.Close())
}

func replaceByCopy(path string, off int64, how string) error {
	temp := path + ".new"
	if out, err := exec.Command("cp", how, path, temp).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return errors.Join(KeepTime(temp, func() error { return FlipByte(temp, off) }), os.Rename(temp, path))
}
