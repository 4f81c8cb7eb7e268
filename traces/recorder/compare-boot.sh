#!/bin/bash
# The same boot recorded by QEMU and by our own machine, side by side:  bash compare-boot.sh OUT
# From the kernel's first instruction to /init's first command (mark 2), Debian's cloud kernel and busybox (guests/build-debian.sh).
# MEM=256 (MiB)   Needs what record.sh needs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
mem=${MEM:-256}
[ -e "$root/guests/out/cloud/bzImage" ] || bash "$root/guests/build-debian.sh" >/dev/null
cp "$root/guests/out/cloud/bzImage" "$root/guests/out/VERSION" "$out"
gcc -O2 -static -s -o "$out/mark" "$here/mark.c"
gcc -O2 -shared -fPIC -fvisibility=hidden -o "$out/pagetouch.so" "$here/pagetouch.c"
(cd "$out" && node "$root/guests/cpio.mjs" initrd.gz dir:/bin dir:/dev dir:/proc dir:/sys dir:/tmp char:/dev/console=5,1:600 \
	"file:/bin/busybox=$root/guests/out/.packages/busybox-static/bin/busybox:755" link:/bin/sh=busybox \
	file:/bin/mark=mark:755 "file:/init=$root/guests/debian/init:755")
# Neither has what the other lacks: the first 64-bit CPU, no HPET, no paravirtual clock. The kernel lies where it was linked to lie.
append='console=ttyS0 quiet nokaslr no-kvmclock penumbra.quiet penumbra.run="mark 2"'
APPEND=$append CPU=qemu64 MACHINE=hpet=off MEM=$mem START=100000 INITRD=initrd.gz bash "$here/record.sh" "$out" "$out" qemu boot
time node "$root/bin/penumbra.mjs" record --memory "${mem}M" --cpu qemu64 --kernel "$out/bzImage" --initrd "$out/initrd.gz" \
	--append "$append" --epoch 1704067200 --out "$out/penumbra.pntrace" </dev/null 2>"$out/penumbra.log"
node "$here/compare.mjs" "$out/qemu.pntrace" "$out/penumbra.pntrace"
for trace in qemu penumbra; do node "$root/bin/penumbra.mjs" replay "$out/$trace.pntrace" --policy zap,lazy; done
