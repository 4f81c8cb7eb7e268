/**
 * A folder of the host's as a guest may see it. Node has no openat, so each node holds a descriptor (O_PATH) and a name in it is opened
 * as /proc/self/fd/N/NAME: the kernel goes from the descriptor to the very folder, whatever it is called by now, and O_NOFOLLOW keeps it
 * from following NAME if that is a link. So nobody can put a link in the way between a check and its use: there is no check. Linux only.
 *
 * Devices, pipes and sockets are seen and can't be opened. Links are answered as text, and followed by the guest in its own file system.
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  type Stats,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { constants as os } from 'node:os';
import type { FileInfo, FolderEntry, FolderPort } from '../dev/p9/folder-port.ts';
import { CliError } from './cli-error.ts';

/** Names a place, opens nothing. */
const O_PATH = 0o10000000;
const { O_NOFOLLOW, O_RDONLY, O_RDWR, O_NONBLOCK, O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY } = constants;
const { EBADF, EINVAL, EIO, EISDIR, ELOOP, EMFILE } = os.errno;
const MAX_NODES = 8192;

interface Node {
  readonly place: number;
  /** For reading and writing. */
  open: number;
  /** Where it was found: a link is read there. */
  readonly parent: number;
  readonly name: string;
}

export class SharedFolder implements FolderPort {
  readonly isReadonly: boolean;
  private readonly rootPlace: number;
  private readonly nodes = new Map<number, Node>();
  private next = 1;

  constructor(path: string, isReadonly: boolean) {
    this.isReadonly = isReadonly;
    if (process.platform !== 'linux') throw new CliError('--share needs Linux');
    this.rootPlace = openSync(path, O_PATH | O_DIRECTORY);
  }

  root(): number {
    return this.attempt(() => this.add(openSync(pathOf(this.rootPlace), O_PATH | O_DIRECTORY), -1, ''));
  }

  walk(node: number, name: string): number {
    return this.with(node, ({ place }) => {
      const found = openSync(`${pathOf(place)}/${name}`, O_PATH | O_NOFOLLOW);
      return this.add(found, place, name);
    });
  }

  copy(node: number): number {
    return this.with(node, ({ place, parent, name }) => {
      // A link's own place can't be opened again by its descriptor: it would be followed.
      const isLink = fstatSync(place).isSymbolicLink();
      const again = isLink
        ? openSync(`${pathOf(parent)}/${name}`, O_PATH | O_NOFOLLOW)
        : openSync(pathOf(place), O_PATH);
      return this.add(again, parent, name);
    });
  }

  release(node: number): void {
    const found = this.nodes.get(node);
    if (found === undefined) return;
    this.nodes.delete(node);
    for (const fd of [found.place, found.open, found.parent]) if (fd >= 0) closeSync(fd);
  }

  stat(node: number): FileInfo | number {
    const found = this.nodes.get(node);
    return found === undefined ? -EBADF : attempt(() => infoOf(fstatSync(found.place)));
  }

  open(node: number, write: boolean, truncate: boolean): number {
    return this.with(node, (found) => {
      const stats = fstatSync(found.place);
      if (stats.isSymbolicLink()) return -ELOOP;
      if (!stats.isFile() && !stats.isDirectory()) return -EINVAL;
      if (write && (this.isReadonly || stats.isDirectory())) return -EISDIR;
      // What the descriptor names is no link: to open it through /proc is to open it again.
      if (found.open < 0)
        found.open = openSync(pathOf(found.place), (write ? O_RDWR : O_RDONLY) | (truncate ? O_TRUNC : 0) | O_NONBLOCK);
      return 0;
    });
  }

  read(node: number, at: number, into: Uint8Array): number {
    return this.with(node, ({ open }) => (Number.isSafeInteger(at) ? readSync(open, into, 0, into.length, at) : 0));
  }

  write(node: number, at: number, from: Uint8Array): number {
    return this.with(node, ({ open }) =>
      Number.isSafeInteger(at) ? writeSync(open, from, 0, from.length, at) : -EINVAL,
    );
  }

  list(node: number): readonly FolderEntry[] | number {
    const found = this.nodes.get(node);
    if (found === undefined) return -EBADF;
    return attempt(() => {
      const path = pathOf(found.place);
      const entries: FolderEntry[] = [];
      for (const name of readdirSync(path).toSorted((a, b) => (a < b ? -1 : 1))) {
        const stats = lstatSync(`${path}/${name}`, { throwIfNoEntry: false });
        if (stats !== undefined) entries.push({ name, mode: stats.mode, inode: stats.ino });
      }
      return entries;
    });
  }

  readlink(node: number): string | number {
    const found = this.nodes.get(node);
    if (found === undefined || found.parent < 0) return -EINVAL;
    return attempt(() => readlinkSync(`${pathOf(found.parent)}/${found.name}`));
  }

  create(node: number, name: string, mode: number, isNew: boolean): number {
    return this.change(node, (path) => {
      const flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | (isNew ? O_EXCL : 0);
      const open = openSync(`${path}/${name}`, flags, mode);
      // Whatever the name means by now: the node is the file that was opened.
      const made = attempt(() =>
        fstatSync(open).isFile() ? this.add(openSync(pathOf(open), O_PATH), -1, name) : -EINVAL,
      );
      const one = this.nodes.get(made);
      if (one === undefined) closeSync(open);
      else one.open = open;
      return made;
    });
  }

  mkdir(node: number, name: string, mode: number): number {
    return this.change(node, (path) => mkdirSync(`${path}/${name}`, { mode }));
  }

  unlink(node: number, name: string, isFolder: boolean): number {
    return this.change(node, (path) => (isFolder ? rmdirSync(`${path}/${name}`) : unlinkSync(`${path}/${name}`)));
  }

  rename(node: number, name: string, toNode: number, toName: string): number {
    const target = this.nodes.get(toNode);
    if (target === undefined) return -EBADF;
    return this.change(node, (path) => renameSync(`${path}/${name}`, `${pathOf(target.place)}/${toName}`));
  }

  truncate(node: number, bytes: number): number {
    return this.with(node, ({ place }) => {
      if (this.isReadonly || !fstatSync(place).isFile() || !Number.isSafeInteger(bytes)) return -EINVAL;
      const fd = openSync(pathOf(place), O_RDWR | O_NONBLOCK);
      try {
        ftruncateSync(fd, bytes);
      } finally {
        closeSync(fd);
      }
      return 0;
    });
  }

  sync(node: number): number {
    return this.with(node, ({ open }) => fsyncSync(open));
  }

  /** Descriptors that are held for the guest. */
  get nodeCount(): number {
    return this.nodes.size;
  }

  private change(node: number, does: (path: string) => number | void): number {
    return this.isReadonly ? -os.errno.EROFS : this.with(node, ({ place }) => does(pathOf(place)));
  }

  private with(node: number, use: (node: Node) => number | void): number {
    const found = this.nodes.get(node);
    return found === undefined ? -EBADF : this.attempt(() => use(found) ?? 0);
  }

  private attempt(does: () => number): number {
    return attempt(does);
  }

  /** A node for `place`, which is its own from now on, and for the folder `foundIn` (-1: none) another descriptor. */
  private add(place: number, foundIn: number, name: string): number {
    if (this.nodes.size >= MAX_NODES) {
      closeSync(place);
      return -EMFILE;
    }
    const parent = foundIn < 0 ? -1 : attempt(() => openSync(pathOf(foundIn), O_PATH | O_DIRECTORY));
    if (foundIn >= 0 && parent < 0) {
      closeSync(place);
      return parent;
    }
    this.nodes.set(this.next, { place, open: -1, parent, name });
    return this.next++;
  }
}

const pathOf = (fd: number): string => `/proc/self/fd/${fd}`;

/** What it does, or -errno. */
function attempt<T>(does: () => T): T | number {
  try {
    return does();
  } catch (error) {
    const { errno } = error as { errno?: number };
    return typeof errno === 'number' && errno < 0 ? errno : -EIO;
  }
}

function infoOf(stats: Stats): FileInfo {
  return {
    mode: stats.mode,
    inode: stats.ino,
    uid: stats.uid,
    gid: stats.gid,
    links: stats.nlink,
    bytes: stats.size,
    blocks: stats.blocks,
    // The host's changes when a guest looks, and two runs would differ by it.
    accessedMs: stats.mtimeMs,
    modifiedMs: stats.mtimeMs,
    changedMs: stats.ctimeMs,
  };
}

/** DIR[,rw] of --share. */
export function parseShare(text: string): SharedFolder {
  const [, path = '', rw] = /^([^,]+)(,rw)?$/.exec(text) ?? [];
  if (path === '') throw new CliError(`--share takes FOLDER or FOLDER,rw, not '${text}'`);
  return new SharedFolder(path, rw === undefined);
}
