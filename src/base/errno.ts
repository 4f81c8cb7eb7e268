/** Linux error numbers that KVM's memory API answers with, and the typed error that carries one. */
export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EIO = 5;
export const ENXIO = 6;
export const E2BIG = 7;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EFAULT = 14;
export const EBUSY = 16;
export const EEXIST = 17;
export const EINVAL = 22;
export const ENOSPC = 28;
export const EOPNOTSUPP = 95;
export const EHWPOISON = 133;

const NAMES: Record<number, string> = {
  1: 'EPERM',
  2: 'ENOENT',
  4: 'EINTR',
  5: 'EIO',
  6: 'ENXIO',
  7: 'E2BIG',
  11: 'EAGAIN',
  12: 'ENOMEM',
  14: 'EFAULT',
  16: 'EBUSY',
  17: 'EEXIST',
  22: 'EINVAL',
  28: 'ENOSPC',
  95: 'EOPNOTSUPP',
  133: 'EHWPOISON',
};

/** A refused call, with the errno that Linux gives for it. `errno` is positive, as in C's `errno`. */
export class KvmError extends Error {
  readonly errno: number;
  constructor(errno: number, what: string) {
    super(`${NAMES[errno] ?? `errno ${errno}`}: ${what}`);
    this.name = 'KvmError';
    this.errno = errno;
  }
}
