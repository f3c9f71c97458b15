//go:build !linux

package sparse_test

const systemMaps = false
