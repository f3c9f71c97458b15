// Nbdread prints all of an export (nbdread NETWORK ADDRESS NAME), for test
// machines in which no other NBD client is.
package main

import (
	"fmt"
	"io"
	"os"

	"cbt/internal/testnbd"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: nbdread NETWORK ADDRESS NAME")
		os.Exit(2)
	}
	if err := read(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "nbdread:", err)
		os.Exit(1)
	}
}

func read(network, address, name string) error {
	c, err := testnbd.Open(network, address, name, true)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{os.Stdout}, io.NewSectionReader(c, 0, c.Size), make([]byte, 1<<20))
	return err
}
