#!/bin/bash
# Builds more Debian guests, beside those of build-debian.sh: the 32-bit kernels (without and with PAE) with an initramfs of their
# own, and a 64-bit Linux 6.12. Needs what build-debian.sh needs; no root, nothing is installed, apt's own state stays as it is:
# lists of i386 packages are kept in the output folder.
#
#   bash guests/build-debian-others.sh [OUT]        (OUT: guests/out, not committed)
#
#   OUT/i386/bzImage       linux-image-686         OUT/bench-i386.cpio.gz   busybox and the benchmarks, 32-bit
#   OUT/i386-pae/bzImage   linux-image-686-pae     OUT/debian-i386.cpio.gz  busybox, 32-bit
#   OUT/6.12/bzImage       linux-image-6.12-amd64  OUT/VERSION-others       versions of the packages
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/out}
mkdir -p "$out/.packages/.apt/lists/partial" "$out/.packages/.apt/cache/archives/partial" "$out"/{i386,i386-pae,6.12}
out=$(cd "$out" && pwd)
cd "$out/.packages"

i386=(-o "Dir::State::lists=$PWD/.apt/lists" -o "Dir::Cache=$PWD/.apt/cache" -o APT::Architectures::=i386)
apt-get -qq "${i386[@]}" update 2>.apt/complaints || true # one broken list of several is no reason to stop

# apt's options for a package:architecture.
options() {
	if [ "${1#*:}" = i386 ]; then printf '%s\n' "${i386[@]}"; fi
}
# The image package that a metapackage depends on.
image() {
	local apt
	mapfile -t apt < <(options "$1")
	apt-cache "${apt[@]}" depends "$1" | sed -n "s/.*Depends: \(linux-image-[0-9][^: ]*\)\(:.*\)\?\$/\1/p" | head -1
}
# Downloads and unpacks package:architecture, if that has not been done; its directory is that name.
get() {
	[ "${1%%:*}" ] || { echo "apt knows no such kernel package: $(head -1 .apt/complaints)" >&2; exit 1; }
	[ -e "$1/.done" ] && return
	local apt
	mapfile -t apt < <(options "$1")
	rm -rf "$1"
	mkdir "$1"
	(cd "$1" && apt-get -qq "${apt[@]}" download "$1") 2>>.apt/complaints || { echo "cannot download $1: $(tail -1 .apt/complaints)" >&2; exit 1; }
	dpkg -x "$1"/*.deb "$1"
	rm -rf "$1/lib/modules" # of a kernel, the image is enough
	(cd "$1" && basename ./*.deb .deb >.done && rm ./*.deb)
}

plain=$(image linux-image-686:i386):i386
pae=$(image linux-image-686-pae:i386):i386
recent=$(image linux-image-6.12-amd64:amd64):amd64
for package in "$plain" "$pae" "$recent" busybox-static:i386; do get "$package"; done
cp "$plain"/boot/vmlinuz-* "$out/i386/bzImage"
cp "$pae"/boot/vmlinuz-* "$out/i386-pae/bzImage"
cp "$recent"/boot/vmlinuz-* "$out/6.12/bzImage"
common=(dir:/bin dir:/dev dir:/proc dir:/sys dir:/tmp char:/dev/console=5,1:600
	file:/bin/busybox=busybox-static:i386/bin/busybox:755 link:/bin/sh=busybox)
ln -sfn busybox-static:i386 busybox-i386 # the archive's words have colons of their own
common=("${common[@]/busybox-static:i386/busybox-i386}")
node "$here/cpio.mjs" "$out/debian-i386.cpio.gz" "${common[@]}" "file:/init=$here/debian/init:755"
if command -v gcc >/dev/null; then
	version=$(gcc -dumpversion)
	for package in libc6-dev-i386:amd64 "lib32gcc-${version%%.*}-dev:amd64"; do get "$package"; done
	libraries="$PWD/libc6-dev-i386:amd64"
	compiler="$PWD/lib32gcc-${version%%.*}-dev:amd64/usr/lib/gcc/x86_64-linux-gnu/${version%%.*}/32"
	# gcc's search paths are lists with colons, too.
	ln -sfn "$libraries/usr/lib32" lib32
	ln -sfn "$libraries/usr/include/x86_64-linux-gnu" include32
	ln -sfn "$compiler" gcc32
	gcc -O2 -static -m32 -march=i686 -mtune=generic -B"$PWD/lib32/" -B"$PWD/gcc32/" -L"$PWD/lib32" -L"$PWD/gcc32" \
		-idirafter "/usr/include/$(gcc -print-multiarch)" -idirafter "$PWD/include32" -o gbench32 "$here/bench/gbench.c"
	strip gbench32
	node "$here/cpio.mjs" "$out/bench-i386.cpio.gz" "${common[@]}" "file:/init=$here/bench/init:755" file:/bin/gbench=gbench32:755
else
	echo "no gcc: no bench-i386.cpio.gz" >&2
fi
cat "$plain/.done" "$pae/.done" "$recent/.done" busybox-static:i386/.done >"$out/VERSION-others"
ls -l "$out"/*/bzImage "$out"/*.gz
