package tool

import "os"

// Work gives the directory dir to work in, making it, or a new one named after
// prefix if dir is empty. remove removes it if it was new and is empty.
func Work(dir, prefix string) (_ string, remove func(), err error) {
	if dir != "" {
		return dir, func() {}, os.MkdirAll(dir, 0o755)
	}
	if dir, err = os.MkdirTemp("", prefix); err != nil {
		return "", nil, err
	}
	return dir, func() { os.Remove(dir) }, nil
}
