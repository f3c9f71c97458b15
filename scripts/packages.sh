#!/bin/bash
# Installs the Debian packages of some lists, those that are missing: scripts/packages.sh test [more] [bench]
# The list NAME is packages-NAME.txt: test is what make test runs, more and bench what those two need besides.
set -euo pipefail
cd "$(dirname "$0")"

[ $# -gt 0 ] || set -- test
wanted=$(for list; do sed 's/#.*//' "packages-$list.txt"; done)
if ! command -v apt-get >/dev/null; then
	echo "no apt-get here: the tests fail unless the programs of these packages are installed:" $wanted >&2
	exit 0
fi
missing=()
for package in $wanted; do
	dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

root=()
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || { echo "missing packages: ${missing[*]}: install them as root" >&2; exit 1; }
	root=(sudo)
fi
echo "installing ${missing[*]}"
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
