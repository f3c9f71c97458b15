package outfile

import (
	"io/fs"
	"path/filepath"
	"sync"
)

// syncsAtOnce is how many files are synced at the same time: a file system writes
// its journal once for many that wait.
const syncsAtOnce = 256

// CommitTogether is Commit of many files, for less than each by itself: their
// content is synced at the same time, and each directory once for each group. The
// files of a group get their names only when those of the groups before it have
// theirs durably. After an error some have their names, and the others are gone.
func CommitTogether(groups ...[]*File) error {
	err := syncAll(groups)
	for _, group := range groups {
		dirs := map[string]bool{}
		for _, f := range group {
			switch {
			case err != nil:
				f.Abort()
			case f.done:
				err = fs.ErrClosed
			default:
				if err = f.publish(); err != nil {
					f.Abort()
					continue
				}
				f.done = true
				err = f.File.Close()
				dirs[filepath.Dir(f.path)] = true
			}
		}
		for dir := range dirs {
			if failed := SyncDir(dir); err == nil {
				err = failed
			}
		}
	}
	return err
}

// syncAll syncs all files and returns the first error.
func syncAll(groups [][]*File) error {
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	room := make(chan struct{}, syncsAtOnce)
	for _, group := range groups {
		for _, f := range group {
			room <- struct{}{}
			wait.Go(func() {
				defer func() { <-room }()
				if err := f.Sync(); err != nil {
					mu.Lock()
					defer mu.Unlock()
					if first == nil {
						first = err
					}
				}
			})
		}
	}
	wait.Wait()
	return first
}
