#!/bin/sh
# Builds the guest twice, for 64 and for 32 bits, as flat multiboot images: build.sh OUT_DIRECTORY
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
out=${1:-$here/out}
mkdir -p "$out"
flags="-O2 -Wall -Wextra -Werror -std=gnu11 -ffreestanding -nostdlib -static -fno-pic -no-pie -fno-stack-protector
  -fno-asynchronous-unwind-tables -fcf-protection=none -mgeneral-regs-only -mno-red-zone"
for bits in 64 32; do
  # shellcheck disable=SC2086
  gcc -m$bits $flags -Wl,-T,"$here/guest/link.ld" -Wl,--build-id=none -Wl,-z,max-page-size=4096 \
    -Wl,--no-warn-rwx-segments -o "$out/guest$bits.elf" "$here/guest/boot.S" "$here/guest/main.c" \
    "$here/guest/nested.c"
  objcopy -O binary "$out/guest$bits.elf" "$out/guest$bits.bin"
done
