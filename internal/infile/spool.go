package infile

import "os"

// Unnamed is a file without a name in dir.
func Unnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".cbt-spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
