// Command cbt backs up virtual machines by what changed.
package main

import (
	"context"
	"os"

	"cbt/cmd/cbt/cli"
)

func main() {
	ctx, stop := cli.WithSignals(context.Background())
	code := cli.Run(ctx, cli.System(), os.Args[1:])
	stop()
	os.Exit(code)
}
