package cbt

import (
	"fmt"
	"testing"
)

// An ID is written as 64 lower-case digits, by String and by fmt.
func TestIDString(t *testing.T) {
	const want = "000102030405060708090a0b0c0d0e0ff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
	var id ID
	for i := range 16 {
		id[i], id[16+i] = byte(i), byte(0xf0+i)
	}
	if got := id.String(); got != want || fmt.Sprint(id) != want {
		t.Errorf("%s, want %s", got, want)
	}
}
