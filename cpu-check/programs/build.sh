#!/bin/sh
# Builds the programs as flat images for address 0x100000, and one native program per result: build.sh OUT
set -e
here=$(dirname "$0")
out=$1
mkdir -p "$out"
flags="-O2 -ffreestanding -nostdlib -static -fno-pic -no-pie -mno-sse -mno-mmx -mno-80387 -fno-asynchronous-unwind-tables -fno-stack-protector -fcf-protection=none -mno-red-zone -fno-tree-loop-distribute-patterns -mcmodel=small"
gcc $flags -c "$here/start.S" -o "$out/start.o"
for name in sieve crc quicksort fib hash states; do
  gcc $flags -c "$here/$name.c" -o "$out/$name.o"
  ld -T "$here/flat.ld" -o "$out/$name.bin" "$out/start.o" "$out/$name.o"
done
