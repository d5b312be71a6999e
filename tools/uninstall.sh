#!/bin/sh
# SPDX-License-Identifier: MIT
# Removes what tools/install.sh put there, and the folders that it made and nobody else uses:
#
#     tools/uninstall.sh ROOT            ROOT is $DESTDIR$PREFIX
set -eu
root=$1
case $root in /*) ;; *) root=$PWD/$root ;; esac
manifest=$root/share/sluice/manifest
if [ ! -f "$manifest" ]; then
	echo "nothing of Sluice is installed in $root: there is no $manifest" >&2
	exit 1
fi
list=$(mktemp)
trap 'rm -f "$list"' EXIT
cp "$manifest" "$list"
cd "$root"
grep '^f ' "$list" | cut -c3- | xargs -d '\n' rm -f --
# the innermost first; what others use stays
cd /
grep '^d ' "$list" | cut -c3- | sort -r | sed "s|^|$root/|; s|/\.\$||" |
	xargs -d '\n' rmdir --ignore-fail-on-non-empty -- 2>/dev/null || :
