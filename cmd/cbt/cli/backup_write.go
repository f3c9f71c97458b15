package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"cbt/internal/audit"
	"cbt/internal/fail"
	"cbt/internal/infile"
	"cbt/internal/outfile"
	"cbt/internal/store"
	"cbt/internal/text"
)

// write writes the delta. If something is wrong with what NEW is compared with,
// all of NEW is written.
func (b *backupRun) write(ctx context.Context) error {
	var err error
	for {
		if b.job, err = b.app.newDeltaJob(b.disks, &b.opt.diff); err != nil {
			return err
		}
		var writing bool
		writing, err = b.writeOnce(ctx)
		full := true
		for _, d := range b.disks {
			full = full && d.old == nil
		}
		if err == nil || writing || full || !b.isOfOld(ctx, err) {
			return err
		}
		why := fmt.Sprintf("comparing with %s failed: %v", strings.Join(b.olds(), ", "), err)
		b.app.Warnf("a full delta is written: %s", why)
		for i := range b.disks {
			b.disks[i].old, b.disks[i].method = nil, method{}
		}
		for i := range b.bases {
			b.bases[i] = base{why: why}
		}
	}
}

// olds names what the disks are compared with.
func (b *backupRun) olds() (list []string) {
	for i := range b.bases {
		if old := b.disks[i].old; old != nil {
			list = append(list, text.Printable(old.Ref))
		}
	}
	return list
}

// isOfOld says whether an error may be gone when OLD is left out.
func (b *backupRun) isOfOld(ctx context.Context, err error) bool {
	var coded *fail.Error
	if ctx.Err() != nil || errors.As(err, &coded) && coded.Code != fail.FindingsCode {
		return false
	}
	for _, d := range b.disks {
		if d.img.Recheck() != nil {
			return false
		}
	}
	return true
}

// outWriter remembers whether it was the writing that failed.
type outWriter struct {
	*audit.OutFile
	failed bool
}

func (w *outWriter) Write(p []byte) (int, error) {
	n, err := w.OutFile.Write(p)
	w.failed = w.failed || err != nil
	return n, err
}

// writeOnce writes the delta and gives it its name; writing says that an error
// is the directory's.
func (b *backupRun) writeOnce(ctx context.Context) (writing bool, err error) {
	f, err := b.app.audit.CreateIn(b.store.Dir, b.image, store.Suffix)
	if err != nil {
		return true, err
	}
	out := &outWriter{OutFile: f}
	defer f.Abort()
	if err := b.job.write(ctx, out); err != nil {
		return out.failed, err
	}
	b.file, err = b.commit(f)
	return true, err
}

// commit gives the file its name. If a file has that already, it is the same
// delta, which another run was faster with, or something that only is called so.
func (b *backupRun) commit(f *audit.OutFile) (string, error) {
	at := time.Now()
	if b.job.header.Instant != nil {
		at = *b.job.header.Instant
	}
	id := b.job.sum.ID
	same := func(path string) bool {
		l := store.ReadEntry(b.app.audit, b.store.Dir, path)
		return l.Error == "" && l.ID == id.String()
	}
	for try := 1; ; try++ {
		path := filepath.Join(b.store.Dir, store.FileName(b.image, at, id, try))
		if infile.Exists(path) && !same(path) {
			continue
		}
		err := f.CommitAs(filepath.Base(path))
		if errors.Is(err, fs.ErrExist) && same(path) {
			err = outfile.SyncDir(b.store.Dir)
		}
		return path, err
	}
}
