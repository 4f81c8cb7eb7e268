/**
 * A disk in a raw file. An error of the file system is an I/O error of the guest's; a file that can't be opened or isn't one is ours.
 */
import { closeSync, constants, fdatasyncSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { type DiskPort, SECTOR_BYTES } from '../dev/virtio/virtio-blk.ts';
import { CliError } from './cli-error.ts';

export class FileDisk implements DiskPort {
  readonly sectors: number;
  readonly isReadonly: boolean;
  private readonly fd: number;

  constructor(path: string, isReadonly: boolean) {
    this.isReadonly = isReadonly;
    // A pipe is refused, not waited for.
    this.fd = openSync(path, (isReadonly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK);
    const stat = fstatSync(this.fd);
    if (!stat.isFile()) throw new CliError(`${path}: a disk must be a plain file`);
    if (stat.size % SECTOR_BYTES !== 0 || stat.size === 0)
      throw new CliError(`${path}: ${stat.size} bytes are not a number of ${SECTOR_BYTES}-byte sectors`);
    this.sectors = stat.size / SECTOR_BYTES;
  }

  read(at: number, into: Uint8Array): boolean {
    return readWhole(this.fd, at, into);
  }

  write(at: number, from: Uint8Array): boolean {
    return !this.isReadonly && writeWhole(this.fd, at, from);
  }

  flush(): boolean {
    return sync(this.fd);
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** Reads all of `into`; false at an error. What lies behind the end of the file reads as zeros. */
export function readWhole(fd: number, at: number, into: Uint8Array): boolean {
  try {
    for (let done = 0; done < into.length; ) {
      const count = readSync(fd, into, done, into.length - done, at + done);
      if (count === 0) {
        into.fill(0, done);
        return true;
      }
      done += count;
    }
    return true;
  } catch {
    return false;
  }
}

export function writeWhole(fd: number, at: number, from: Uint8Array): boolean {
  try {
    for (let done = 0; done < from.length; ) done += writeSync(fd, from, done, from.length - done, at + done);
    return true;
  } catch {
    return false;
  }
}

export function sync(fd: number): boolean {
  try {
    fdatasyncSync(fd);
    return true;
  } catch {
    return false;
  }
}
