#!/bin/bash
# Builds what is meant for other systems: the program for ARM, the libraries for darwin and windows.
set -euo pipefail
cd "$(dirname "$0")/.."

export CGO_ENABLED=0
GOOS=linux GOARCH=arm64 go build -o /dev/null ./cmd/cbt
libraries=$(go list -f '{{if ne .Name "main"}}{{.ImportPath}}{{end}}' ./... | grep -v -E '/(cmd|fuzz|bench)(/|$)')
for os in darwin windows; do
	GOOS=$os GOARCH=amd64 go vet $libraries
done
