#!/bin/bash
# Runs every fuzz target for a while: scripts/fuzz.sh 30s
set -euo pipefail
cd "$(dirname "$0")/.."

grep -r --include='*_test.go' -oE '^func Fuzz[A-Za-z0-9_]+' . | sort | while IFS=: read -r file name; do
	echo "== ${name#func }, $1"
	# Go would spend most of a short run on making interesting inputs smaller.
	go test -run '^$' -fuzzminimizetime 10x -fuzz "^${name#func }\$" -fuzztime "$1" "$(dirname "$file")"
done
