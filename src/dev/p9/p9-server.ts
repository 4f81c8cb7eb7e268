/**
 * A server of 9P2000.L: the protocol by which Linux mounts a folder of its host. The guest names files by fids of its own; each of them
 * holds a node of the folder port, which keeps the guest inside.
 */
import type { FileInfo, FolderEntry, FolderPort } from './folder-port.ts';
import { MessageReader, MessageWriter, toUtf8 } from './message.ts';

export const MAX_MESSAGE_BYTES = 128 * 1024 + 24;
const MAX_FIDS = 4096;
/** Entries of folders that are kept while they are read, one folder's at least. */
const MAX_ENTRIES = 65536;
const MAX_NAMES = 16;
const HEADER_BYTES = 7;
const VERSION = '9P2000.L';

const ENOENT = 2;
const EIO = 5;
const EBADF = 9;
const EEXIST = 17;
const EINVAL = 22;
const EMFILE = 24;
const EROFS = 30;
const EOPNOTSUPP = 95;

// Requests; an answer is the next number.
const LERROR = 7;
const STATFS = 8;
const LOPEN = 12;
const LCREATE = 14;
const READLINK = 22;
const GETATTR = 24;
const SETATTR = 26;
const READDIR = 40;
const FSYNC = 50;
const MKDIR = 72;
const RENAMEAT = 74;
const UNLINKAT = 76;
const VERSION_REQUEST = 100;
const ATTACH = 104;
const FLUSH = 108;
const WALK = 110;
const READ = 116;
const WRITE = 118;
const CLUNK = 120;

const O_ACCMODE = 3;
const O_EXCL = 0o200;
const O_TRUNC = 0o1000;
const AT_REMOVEDIR = 0x200;
const SETATTR_SIZE = 1 << 3;
/** Changes of owner, mode and times are taken and not done. */
const TYPE_MASK = 0o170000;
const TYPE_FOLDER = 0o040000;
const TYPE_LINK = 0o120000;
const QID_FOLDER = 0x80;
const QID_LINK = 0x02;
const GETATTR_BASIC = 0x7ff;
const V9FS_MAGIC = 0x01021997;

interface Fid {
  node: number;
  isOpen: boolean;
  /** Of a folder that is being read. */
  entries: readonly FolderEntry[] | null;
}

export class P9Server {
  private readonly folder: FolderPort;
  private readonly fids = new Map<number, Fid>();
  /** Entries that were listed so far. */
  listed = 0;
  private messageBytes = MAX_MESSAGE_BYTES;

  constructor(folder: FolderPort) {
    this.folder = folder;
  }

  /** Entries of folders that it has in memory. */
  get entryCount(): number {
    let kept = 0;
    for (const { entries } of this.fids.values()) kept += entries?.length ?? 0;
    return kept;
  }

  get fidCount(): number {
    return this.fids.size;
  }

  /** Forgets all that the guest has. */
  reset(): void {
    for (const { node } of this.fids.values()) this.folder.release(node);
    this.fids.clear();
    this.messageBytes = MAX_MESSAGE_BYTES;
  }

  /** The answer to a message, of at most `room` bytes; empty if there is no room for any. */
  answer(request: Uint8Array, room: number): Uint8Array {
    if (room < HEADER_BYTES + 4) return new Uint8Array(0);
    const type = request[4] ?? 0;
    const tag = (request[5] ?? 0) | ((request[6] ?? 0) << 8);
    const reply = new MessageWriter(new Uint8Array(Math.max(Math.min(room, this.messageBytes), 512)));
    reply.length = HEADER_BYTES;
    const reader = new MessageReader(request, HEADER_BYTES);
    let error = this.handle(type, reader, reply, Math.min(room, this.messageBytes));
    if (error === 0 && reply.length > room) error = EIO;
    if (error !== 0) {
      reply.length = HEADER_BYTES;
      reply.u32(error);
    }
    const { length } = reply;
    reply.length = 0;
    reply
      .u32(length)
      .u8(error !== 0 ? LERROR : type + 1)
      .u16(tag);
    return reply.bytes.subarray(0, length);
  }

  /** 0 or an errno. */
  private handle(type: number, from: MessageReader, to: MessageWriter, room: number): number {
    switch (type) {
      case VERSION_REQUEST:
        return this.version(from, to);
      case ATTACH:
        return this.attach(from, to);
      case FLUSH:
        return 0; // all requests are done when they are answered
      case WALK:
        return this.walk(from, to);
      case CLUNK:
        return this.clunk(from);
      case LOPEN:
        return this.open(from, to);
      case READ:
        return this.read(from, to, room);
      case READDIR:
        return this.readdir(from, to, room);
      case READLINK:
        return this.readlink(from, to, room);
      case GETATTR:
        return this.getattr(from, to);
      case STATFS:
        return this.statfs(from, to);
      case FSYNC:
        return this.withFid(from, (fid) => (fid.isOpen ? -this.folder.sync(fid.node) : 0));
      case LCREATE:
      case WRITE:
      case MKDIR:
      case UNLINKAT:
      case RENAMEAT:
      case SETATTR:
        return this.folder.isReadonly ? EROFS : this.change(type, from, to);
      default:
        return EOPNOTSUPP;
    }
  }

  private version(from: MessageReader, to: MessageWriter): number {
    const bytes = from.number(4);
    const version = from.string();
    if (from.isShort || bytes < 4096) return EINVAL;
    this.reset();
    this.messageBytes = Math.min(bytes, MAX_MESSAGE_BYTES);
    to.u32(this.messageBytes).string(version === VERSION ? VERSION : 'unknown');
    return 0;
  }

  private attach(from: MessageReader, to: MessageWriter): number {
    const number = from.number(4);
    if (from.isShort) return EINVAL;
    return this.addFid(number, this.folder.root(), to);
  }

  private addFid(number: number, node: number, to: MessageWriter | null): number {
    if (node < 0) return -node;
    const error = this.fids.has(number) ? EEXIST : this.fids.size >= MAX_FIDS ? EMFILE : 0;
    const info = this.folder.stat(node);
    if (error !== 0 || typeof info === 'number') {
      this.folder.release(node);
      return error !== 0 ? error : EIO;
    }
    this.fids.set(number, { node, isOpen: false, entries: null });
    if (to !== null) putQid(to, info);
    return 0;
  }

  private walk(from: MessageReader, to: MessageWriter): number {
    const fid = this.fids.get(from.number(4));
    const newNumber = from.number(4);
    const names = Array.from({ length: Math.min(from.number(2), MAX_NAMES + 1) }, () => from.string());
    if (from.isShort || names.length > MAX_NAMES) return EINVAL;
    if (fid === undefined || (this.fids.has(newNumber) && this.fids.get(newNumber) !== fid)) return EBADF;
    const { folder } = this;
    let node = folder.copy(fid.node);
    if (node < 0) return -node;
    const infos: FileInfo[] = [];
    for (const name of names) {
      const next = isName(name) ? folder.walk(node, name) : -ENOENT;
      const info = next < 0 ? next : folder.stat(next);
      if (typeof info === 'number') {
        if (next >= 0) folder.release(next);
        folder.release(node);
        // The first name's error is the answer; of a later one, how far it went.
        if (infos.length === 0) return -info;
        return putQids(to, infos);
      }
      folder.release(node);
      node = next;
      infos.push(info);
    }
    if (this.fids.get(newNumber) === fid) {
      folder.release(fid.node);
      Object.assign(fid, { node, isOpen: false, entries: null });
    } else {
      const error = this.addFid(newNumber, node, null);
      if (error !== 0) return error;
    }
    return putQids(to, infos);
  }

  private clunk(from: MessageReader): number {
    const number = from.number(4);
    const fid = this.fids.get(number);
    if (fid === undefined) return EBADF;
    this.folder.release(fid.node);
    this.fids.delete(number);
    return 0;
  }

  private open(from: MessageReader, to: MessageWriter): number {
    return this.withFid(from, (fid) => {
      const flags = from.number(4);
      if (from.isShort || fid.isOpen) return EINVAL;
      const writes = (flags & O_ACCMODE) !== 0 || (flags & O_TRUNC) !== 0;
      if (writes && this.folder.isReadonly) return EROFS;
      const error = this.folder.open(fid.node, writes, (flags & O_TRUNC) !== 0);
      const info = error < 0 ? error : this.folder.stat(fid.node);
      if (typeof info === 'number') return -info;
      fid.isOpen = true;
      putQid(to, info);
      to.u32(0);
      return 0;
    });
  }

  private read(from: MessageReader, to: MessageWriter, room: number): number {
    return this.withFid(from, (fid) => {
      const at = from.number(8);
      const count = Math.min(from.number(4), room - to.length - 4);
      if (from.isShort || count < 0) return EINVAL;
      if (!fid.isOpen) return EBADF;
      const into = to.bytes.subarray(to.length + 4, to.length + 4 + count);
      const done = this.folder.read(fid.node, at, into);
      if (done < 0) return -done;
      to.u32(done);
      to.length += done;
      return 0;
    });
  }

  private readdir(from: MessageReader, to: MessageWriter, room: number): number {
    return this.withFid(from, (fid) => {
      const first = from.number(8);
      const end = Math.min(room, to.length + 4 + from.number(4));
      if (from.isShort) return EINVAL;
      if (!fid.isOpen) return EBADF;
      if (first === 0 || fid.entries === null) {
        const entries = this.folder.list(fid.node);
        if (typeof entries === 'number') return -entries;
        this.listed += entries.length;
        fid.entries = entries;
        this.forgetEntries(fid);
      }
      const start = to.length;
      to.u32(0);
      for (let i = first; i < fid.entries.length; i++) {
        const entry = fid.entries[i];
        if (to.length + 24 + toUtf8(entry.name).length > end) break;
        putQid(to, entry);
        to.u64(i + 1)
          .u8((entry.mode & TYPE_MASK) >> 12)
          .string(entry.name);
      }
      const { length } = to;
      to.length = start;
      to.u32(length - start - 4);
      to.length = length;
      return 0;
    });
  }

  /** Entries of other folders, if all together are too many: who reads on has them listed again. */
  private forgetEntries(except: Fid): void {
    let kept = this.entryCount;
    for (const fid of this.fids.values()) {
      if (kept <= MAX_ENTRIES) return;
      if (fid === except || fid.entries === null) continue;
      kept -= fid.entries.length;
      fid.entries = null;
    }
  }

  private readlink(from: MessageReader, to: MessageWriter, room: number): number {
    return this.withFid(from, (fid) => {
      const target = this.folder.readlink(fid.node);
      if (typeof target === 'number') return -target;
      if (to.length + 2 + toUtf8(target).length > room) return EIO;
      to.string(target);
      return 0;
    });
  }

  private getattr(from: MessageReader, to: MessageWriter): number {
    return this.withFid(from, (fid) => {
      const info = this.folder.stat(fid.node);
      if (typeof info === 'number') return -info;
      to.u64(GETATTR_BASIC);
      putQid(to, info);
      to.u32(info.mode).u32(info.uid).u32(info.gid).u64(info.links).u64(0).u64(info.bytes).u64(4096).u64(info.blocks);
      for (const ms of [info.accessedMs, info.modifiedMs, info.changedMs, 0])
        to.u64(Math.max(0, Math.floor(ms / 1000))).u64(Math.floor((ms % 1000) * 1e6));
      to.u64(0).u64(0);
      return 0;
    });
  }

  private statfs(from: MessageReader, to: MessageWriter): number {
    return this.withFid(from, () => {
      // Of the host's file system it is told nothing.
      to.u32(V9FS_MAGIC).u32(4096);
      for (let i = 0; i < 6; i++) to.u64(0);
      to.u32(255);
      return 0;
    });
  }

  private change(type: number, from: MessageReader, to: MessageWriter): number {
    const { folder } = this;
    return this.withFid(from, (fid) => {
      if (type === WRITE) {
        const at = from.number(8);
        const data = from.data(from.number(4));
        if (from.isShort) return EINVAL;
        const done = fid.isOpen ? folder.write(fid.node, at, data) : -EBADF;
        if (done >= 0) to.u32(done);
        return Math.max(0, -done);
      }
      if (type === SETATTR) {
        const valid = from.number(4);
        from.number(12);
        const bytes = from.number(8);
        if (from.isShort) return EINVAL;
        return valid & SETATTR_SIZE ? -folder.truncate(fid.node, bytes) : 0;
      }
      const name = from.string();
      if (!isName(name)) return EINVAL;
      if (type === LCREATE) return this.create(fid, name, from, to);
      if (type === MKDIR) return this.mkdir(fid, name, from, to);
      if (type === UNLINKAT) return -folder.unlink(fid.node, name, (from.number(4) & AT_REMOVEDIR) !== 0);
      const target = this.fids.get(from.number(4));
      const newName = from.string();
      if (target === undefined || from.isShort) return EBADF;
      return isName(newName) ? -folder.rename(fid.node, name, target.node, newName) : EINVAL;
    });
  }

  private create(fid: Fid, name: string, from: MessageReader, to: MessageWriter): number {
    const flags = from.number(4);
    const mode = from.number(4);
    if (from.isShort || fid.isOpen) return EINVAL;
    const node = this.folder.create(fid.node, name, mode & 0o777, (flags & O_EXCL) !== 0);
    const info = node < 0 ? node : this.folder.stat(node);
    if (typeof info === 'number') {
      if (node >= 0) this.folder.release(node);
      return -info;
    }
    // The fid becomes the new file.
    this.folder.release(fid.node);
    fid.node = node;
    fid.isOpen = true;
    putQid(to, info);
    to.u32(0);
    return 0;
  }

  private mkdir(fid: Fid, name: string, from: MessageReader, to: MessageWriter): number {
    const mode = from.number(4);
    if (from.isShort) return EINVAL;
    const error = this.folder.mkdir(fid.node, name, mode & 0o777);
    const node = error < 0 ? error : this.folder.walk(fid.node, name);
    if (node < 0) return -node;
    const info = this.folder.stat(node);
    this.folder.release(node);
    if (typeof info === 'number') return -info;
    putQid(to, info);
    return 0;
  }

  private withFid(from: MessageReader, use: (fid: Fid) => number): number {
    const fid = this.fids.get(from.number(4));
    return fid === undefined ? EBADF : use(fid);
  }
}

/** A component that can't lead anywhere but down. */
export function isName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !name.includes('/') && !name.includes('\0');
}

function putQid(to: MessageWriter, { mode, inode }: { readonly mode: number; readonly inode: number }): void {
  const type = mode & TYPE_MASK;
  to.u8(type === TYPE_FOLDER ? QID_FOLDER : type === TYPE_LINK ? QID_LINK : 0)
    .u32(0)
    .u64(inode);
}

function putQids(to: MessageWriter, infos: readonly FileInfo[]): 0 {
  to.u16(infos.length);
  for (const info of infos) putQid(to, info);
  return 0;
}
