package infile

import (
	"os"
	"syscall"
)

func fileNumbers(f *os.File, _ os.FileInfo) (dev, ino uint64, err error) {
	var info syscall.ByHandleFileInformation
	if err := syscall.GetFileInformationByHandle(syscall.Handle(f.Fd()), &info); err != nil {
		return 0, 0, err
	}
	return uint64(info.VolumeSerialNumber), uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow), nil
}

func storedBytes(info os.FileInfo) int64 { return info.Size() }
