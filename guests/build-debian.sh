#!/bin/bash
# Builds the Debian guests from Debian's packages: two unmodified kernels and two initramfs. Needs a Debian with apt, dpkg and node,
# and gcc for the benchmarks (skipped without); no root, nothing is installed.
#
#   bash guests/build-debian.sh [OUT]        (OUT: guests/out, not committed)
#
#   OUT/generic/bzImage   linux-image-amd64           OUT/debian.cpio.gz   busybox; runs commands or a shell (debian/init)
#   OUT/cloud/bzImage     linux-image-cloud-amd64     OUT/bench.cpio.gz    busybox and the benchmarks (bench/)
#   OUT/VERSION           versions of the packages
#
# KVER=6.1.0-56 chooses a kernel other than the one that the metapackages depend on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/out}
mkdir -p "$out/.packages" "$out/generic" "$out/cloud"
out=$(cd "$out" && pwd)
cd "$out/.packages"

# The image package that a metapackage depends on.
image() {
	if [ "${KVER:-}" ]; then
		echo "linux-image-$KVER-$2"
	else
		apt-cache depends "$1" | sed -n "s/.*Depends: \(linux-image-[0-9][^ ]*-$2\)\$/\1/p" | head -1
	fi
}
# Downloads and unpacks a package, if that has not been done; its directory is its name.
get() {
	[ "$1" ] || { echo "apt knows no kernel package; run apt-get update" >&2; exit 1; }
	[ -e "$1/.done" ] && return
	rm -rf "$1"
	mkdir "$1"
	(cd "$1" && apt-get download -qq "$1" 2>/dev/null) || { echo "cannot download $1; run apt-get update" >&2; exit 1; }
	dpkg -x "$1"/*.deb "$1"
	rm -rf "$1/lib/modules" "$1/usr" # of a kernel, the image is enough
	(cd "$1" && basename ./*.deb .deb >.done && rm ./*.deb)
}

generic=$(image linux-image-amd64 amd64)
cloud=$(image linux-image-cloud-amd64 cloud-amd64)
get "$generic"
get "$cloud"
get busybox-static
cp "$generic"/boot/vmlinuz-* "$out/generic/bzImage"
cp "$cloud"/boot/vmlinuz-* "$out/cloud/bzImage"
common=(dir:/bin dir:/dev dir:/proc dir:/sys dir:/tmp char:/dev/console=5,1:600
	file:/bin/busybox=busybox-static/bin/busybox:755 link:/bin/sh=busybox)
node "$here/cpio.mjs" "$out/debian.cpio.gz" "${common[@]}" "file:/init=$here/debian/init:755"
if command -v gcc >/dev/null; then
	gcc -O2 -static -m64 -march=x86-64 -mtune=generic -o gbench "$here/bench/gbench.c"
	strip gbench
	node "$here/cpio.mjs" "$out/bench.cpio.gz" "${common[@]}" "file:/init=$here/bench/init:755" file:/bin/gbench=gbench:755
else
	echo "no gcc: no bench.cpio.gz" >&2
fi
cat "$generic/.done" "$cloud/.done" busybox-static/.done >"$out/VERSION"
ls -l "$out"/*/bzImage "$out"/*.gz
