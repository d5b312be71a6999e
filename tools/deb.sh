#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes a Debian package of a staged tree: tools/deb.sh STAGE VERSION FOLDER
set -eu
umask 022
stage=$1
version=$2
folder=$3
architecture=$(dpkg --print-architecture)
package="$folder/sluice_${version}_$architecture.deb"
root=$folder/root

rm -rf "$folder"
mkdir -p "$root/DEBIAN" "$folder/debian"
cp -a "$stage" "$root/usr"
find "$root" -type d -exec chmod 755 {} +
find "$root/usr/bin" "$root/usr/lib" -type f \( -name sluice -o -name '*.so*' \) -exec strip --strip-unneeded {} +
find "$root/usr/lib" -name '*.so*' -exec chmod 644 {} +
find "$root/usr/lib" -name '*.a' -exec strip --strip-debug {} +
gzip -9n "$root/usr/share/man/man1/sluice.1"

documents=$root/usr/share/doc/sluice
{
	echo 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/'
	echo
	echo 'Files: *'
	sed -n 's/^Copyright (c) /Copyright: /p' LICENSE
	echo 'License: MIT'
	sed '1,/^Copyright/d' LICENSE | sed '1{/^$/d}' | sed 's/^$/./; s/^/ /'
} >"$documents/copyright"
rm -f "$documents/LICENSE"
{
	echo "sluice ($version) unstable; urgency=medium"
	echo
	echo '  * See CHANGELOG.md.'
	echo
	echo ' -- Sluice <sluice@sluice.invalid>  Thu, 01 Jan 2026 00:00:00 +0000'
} | gzip -9n >"$documents/changelog.gz"

# The program loads libcurl and OpenSSL when it needs them: that they are there is libsluice's doing.
printf 'Source: sluice\n\nPackage: sluice\nArchitecture: any\n' >"$folder/debian/control"
library=$(cd "$folder" && find root/usr/lib -name 'libsluice.so.0')
depends=$(cd "$folder" && dpkg-shlibdeps -O --ignore-missing-info -Sroot root/usr/bin/sluice "$library" 2>/dev/null |
	sed -n 's/^shlibs:Depends=//p')
cat >"$root/DEBIAN/control" <<END
Package: sluice
Version: $version
Architecture: $architecture
Maintainer: Sluice <sluice@sluice.invalid>
Installed-Size: $(du -sk "$root/usr" | cut -f1)
Depends: $depends
Recommends: ca-certificates, libedit2
Suggests: liblua5.4-dev, libcurl4-openssl-dev, libc-ares-dev, libev-dev, libhiredis-dev, libsqlite3-dev
Section: net
Priority: optional
Description: call, harden and re-serve model endpoints from Lua
 One program with Lua 5.4 inside: streams, retries, rate limits, caches,
 batches and a web server for endpoints of models, thousands of requests at
 once on one event loop; a serving emulator, to try it without an account.
 .
 The library libsluice puts the same into a program in C.
END
echo 'libsluice 0 sluice' >"$root/DEBIAN/shlibs"
echo 'activate-noawait ldconfig' >"$root/DEBIAN/triggers"
(cd "$root" && find usr -type f -exec md5sum {} +) >"$root/DEBIAN/md5sums"
chmod 644 "$root"/DEBIAN/*
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
echo "$package"
