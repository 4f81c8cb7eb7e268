#!/bin/bash
# Builds a Debian system on a disk from Debian's packages: bash, python3 with its tests, gcc, redis, sqlite3, and Debian's generic kernel with
# an initramfs that has its virtio modules. Needs a Debian with apt, dpkg, e2fsprogs and node; no root, nothing is installed.
#
#   bash guests/build-image.sh [OUT]         (OUT: guests/out, not committed)
#
#   OUT/image/disk.img     ext4, without a partition table; the packages' scripts have not been run, /sbin/init is image/init
#   OUT/image/bzImage      linux-image-amd64          OUT/image/initrd.gz    busybox, modules, image/initramfs-init
#   OUT/image/VERSION      versions of the packages
#
# The set of packages is what apt would install into an empty system. PACKAGES="..." adds some, SIZE=2G is the disk's size.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/out}
mkdir -p "$out/image" "$out/.packages/apt/archives/partial" "$out/.packages/apt/none/partial"
out=$(cd "$out" && pwd)
work=$out/.packages
for tool in apt-get dpkg-deb mke2fs node; do
	PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || { echo "$tool is missing" >&2; exit 1; }
done

packages="base-files base-passwd bash coreutils util-linux mount hostname grep sed mawk tar gzip findutils procps iproute2 busybox-static
	python3 libpython3.11-testsuite gcc libc6-dev redis-server redis-tools sqlite3 linux-image-amd64 ${PACKAGES:-}"
# shellcheck disable=SC2086
apt=(apt-get -qq -o Dir::State::status="$work/apt/status" -o Dir::Cache::archives="$work/apt/archives" -o Dir::Cache::pkgcache=
	-o Dir::Cache::srcpkgcache= -o APT::Install-Recommends=false -o Debug::NoLocking=1 -o APT::Sandbox::User=)
: >"$work/apt/status"
# shellcheck disable=SC2086
"${apt[@]}" -y --download-only install $packages || { echo "cannot download; run apt-get update" >&2; exit 1; }
# It prints what it would have to fetch: with an empty cache, everything.
# shellcheck disable=SC2086
"${apt[@]}" -o Dir::Cache::archives="$work/apt/none" --print-uris install $packages | cut -d' ' -f2 | sort >"$out/image/VERSION"

# ---- files ------------------------------------------------------------------------------------------------------------------------------------
root=$work/root
rm -rf "$root" && mkdir -p "$root"
# The merged /usr that Debian's packages expect to find.
for dir in bin sbin lib lib64; do
	mkdir -p "$root/usr/$dir"
	ln -s "usr/$dir" "$root/$dir"
done
while read -r deb; do
	dpkg-deb --fsys-tarfile "$work/apt/archives/$deb" | tar -C "$root" --no-same-owner --keep-directory-symlink -xf -
done <"$out/image/VERSION"
kernel=$(basename "$root"/boot/vmlinuz-*)
version=${kernel#vmlinuz-}
modules=$root/lib/modules/$version/kernel
cp "$root/boot/$kernel" "$out/image/bzImage"

# ---- initramfs --------------------------------------------------------------------------------------------------------------------------------
entries=(dir:/bin dir:/dev dir:/proc dir:/sys dir:/root dir:/modules char:/dev/console=5,1:600
	"file:/bin/busybox=$root/bin/busybox:755" "file:/init=$here/image/initramfs-init:755")
: >"$work/order"
for path in $(node "$here/kernel-modules.mjs" "$modules" virtio_pci! virtio_blk! ext4! crc32c_generic virtio_net! virtio_console! \
	virtio_rng! virtio_balloon! 9pnet_virtio! 9p!); do
	basename "$path" >>"$work/order"
	entries+=("file:/modules/$(basename "$path")=$path")
done
entries+=("file:/modules/order=$work/order")
node "$here/cpio.mjs" "$out/image/initrd.gz" "${entries[@]}"

# ---- the system's own ------------------------------------------------------------------------------------------------------------------------
rm -rf "$root/boot" "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale" "$root/usr/share/info" "$root/lib/modules"
mkdir -p "$root"/{dev,proc,sys,run,tmp,mnt,root,usr/local/sbin,usr/local/bin,var/lib/redis,var/log/redis}
cp "$root/usr/bin/busybox" "$root/usr/local/bin/busybox"
install -m 755 "$here/image/init" "$root/sbin/init"
install -m 755 "$here/image/checks/image-check" "$root/usr/local/bin/image-check"
install -D -m 644 -t "$root/usr/local/share/penumbra" "$here/image/checks/program.c" "$here/image/checks/query.sql"
install -m 755 "$here/image/udhcpc" "$here/image/udhcpc-script" "$root/usr/local/sbin/"
# What the packages' scripts would have made.
ln -sf mawk "$root/usr/bin/awk"
ln -sf bash "$root/usr/bin/sh"
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
echo penumbra >"$root/etc/hostname"
echo '127.0.0.1 localhost penumbra' >"$root/etc/hosts"
: >"$root/etc/fstab"

# ---- the disk ---------------------------------------------------------------------------------------------------------------------------------
rm -f "$out/image/disk.img"
PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -L penumbra -d "$root" -E root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0 -O ^metadata_csum_seed \
	"$out/image/disk.img" "${SIZE:-1G}"
rm -rf "$root"
ls -ls "$out/image"
