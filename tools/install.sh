#!/bin/sh
# SPDX-License-Identifier: MIT
# Copies a staged tree to where it belongs and notes what it put there, for tools/uninstall.sh:
#
#     tools/install.sh STAGE ROOT        ROOT is $DESTDIR$PREFIX
set -eu
umask 022 # whoever installs, all may read it
stage=$1
root=$2
case $root in /*) ;; *) root=$PWD/$root ;; esac
manifest=$root/share/sluice/manifest
new=$(mktemp)
trap 'rm -f "$new"' EXIT

# Folders that are there already are not ours to remove; those that an earlier install made are.
cd "$stage"
mkdir -p share/sluice
find . -type d | sed 's|^\./||' | while read -r folder; do
	if [ ! -d "$root/$folder" ] || { [ -f "$manifest" ] && grep -qxF "d $folder" "$manifest"; }; then
		echo "d $folder"
	fi
done >"$new"
find . ! -type d | sed 's|^\./|f |' >>"$new"
echo 'f share/sluice/manifest' >>"$new"

# Files that are in use are replaced, not written over.
mkdir -p "$root"
cp -dR --remove-destination . "$root"

# What an earlier version had and this one has not.
if [ -f "$manifest" ]; then
	grep '^f ' "$manifest" | grep -vxF -f "$new" | cut -c3- | while read -r file; do rm -f "$root/$file"; done
	grep '^d ' "$manifest" | grep -vxF -f "$new" | cut -c3- | sort -r | while read -r folder; do
		rmdir "$root/$folder" 2>/dev/null || :
	done
fi
cp "$new" "$manifest"
chmod 644 "$manifest"
