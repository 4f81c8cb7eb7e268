/** A kernel of any kind that can be booted: a bzImage, an ELF with a multiboot header, an ELF with a PVH entry. */
import { BootError, type BootImage, type BootSource } from './boot-image.ts';
import { isBzImage, loadBzImage } from './bzimage.ts';
import { isElf } from './elf.ts';
import { findMultibootHeader, loadMultiboot } from './multiboot.ts';
import { loadPvh } from './pvh.ts';

/** Finds out what the file is, and loads it. Throws a BootError if it is nothing, or broken. */
export function loadKernel(source: BootSource): BootImage {
  const file = source.kernel;
  if (file.length === 0) throw new BootError('kernel', 'an empty file');
  if (isBzImage(file)) return loadBzImage(source);
  if (findMultibootHeader(file) >= 0) return loadMultiboot(source);
  if (isElf(file)) return loadPvh(source);
  throw new BootError('kernel', `${file.length} bytes that are neither a bzImage nor ELF nor multiboot`);
}
