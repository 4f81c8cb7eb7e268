/**
 * A copy-on-write layer in a file: what the guest writes goes there, in clusters of 4 KiB, and the base stays as it is.
 *
 *     0      magic, sectors of the base (two words), modification time of the base in ms (a double)
 *     4096   a bit for each cluster that is here
 *     ...    the clusters, each at its own place: the file is sparse
 *
 * A cluster is written before its bit, so that a machine that is killed loses no more than a disk does without power. The file is
 * made when the guest writes for the first time: a start that fails leaves none behind.
 */
import { accessSync, constants, existsSync, fstatSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { type DiskPort, SECTOR_BYTES } from '../dev/virtio/virtio-blk.ts';
import { eachCluster } from '../dev/virtio/memory-disk.ts';
import { CliError } from './cli-error.ts';
import { readWhole, sync, writeWhole } from './file-disk.ts';

const MAGIC = 'PNMBOVL1';
const HEADER_BYTES = 4096;
const CLUSTER_BYTES = 4096;

export class OverlayDisk implements DiskPort {
  readonly sectors: number;
  readonly isReadonly = false;
  private readonly base: DiskPort;
  private readonly path: string;
  private readonly header: Uint8Array;
  private readonly present: Uint8Array;
  private readonly dataAt: number;
  private readonly cluster = new Uint8Array(CLUSTER_BYTES);
  /** -1: there is no file yet. */
  private fd = -1;
  private hasHeader = false;

  /** `baseTime`: modification time of the base's file, ms. */
  constructor(path: string, base: DiskPort, baseTime: number) {
    this.path = path;
    this.base = base;
    this.sectors = base.sectors;
    const clusters = Math.ceil((base.sectors * SECTOR_BYTES) / CLUSTER_BYTES);
    this.present = new Uint8Array(Math.ceil(clusters / 8 / HEADER_BYTES) * HEADER_BYTES);
    this.dataAt = HEADER_BYTES + this.present.length;
    this.header = headerOf(this.sectors, baseTime);
    if (!existsSync(path)) {
      accessSync(dirname(path), constants.W_OK | constants.X_OK);
      return;
    }
    this.fd = openSync(path, constants.O_RDWR);
    const stat = fstatSync(this.fd);
    if (!stat.isFile()) throw new CliError(`${path}: an overlay must be a plain file`);
    if (stat.size > 0) this.load(stat.size, clusters);
  }

  /** What is there already: all of it, or it isn't taken. */
  private load(bytes: number, clusters: number): void {
    const { path, fd, header, present } = this;
    const found = new Uint8Array(HEADER_BYTES);
    if (!readWhole(fd, 0, found) || Buffer.compare(found.subarray(0, 8), header.subarray(0, 8)) !== 0)
      throw new CliError(`${path}: not an overlay`);
    if (Buffer.compare(found, header) !== 0)
      throw new CliError(`${path}: the overlay of another base, or its base has changed`);
    if (!readWhole(fd, HEADER_BYTES, present)) throw new CliError(`${path}: can't be read`);
    const last = lastBit(present);
    if (last >= clusters) throw new CliError(`${path}: damaged: it has clusters behind the end of its base`);
    const whole = last < 0 ? this.dataAt : this.placeOf(last + 1);
    if (bytes < whole) throw new CliError(`${path}: cut short: ${bytes} bytes of ${whole}`);
    this.hasHeader = true;
  }

  read(at: number, into: Uint8Array): boolean {
    return eachCluster(at, into.length, (cluster, from, done, count) => {
      const piece = into.subarray(done, done + count);
      return this.isHere(cluster)
        ? readWhole(this.fd, this.placeOf(cluster) + from, piece)
        : this.base.read(cluster * CLUSTER_BYTES + from, piece);
    });
  }

  write(at: number, from: Uint8Array): boolean {
    if (!this.hasHeader && !this.make()) return false;
    return eachCluster(at, from.length, (cluster, start, done, count) => {
      const piece = from.subarray(done, done + count);
      if (this.isHere(cluster)) return writeWhole(this.fd, this.placeOf(cluster) + start, piece);
      this.cluster.fill(0);
      const end = Math.min(CLUSTER_BYTES, this.sectors * SECTOR_BYTES - cluster * CLUSTER_BYTES);
      if (count < CLUSTER_BYTES && !this.base.read(cluster * CLUSTER_BYTES, this.cluster.subarray(0, end)))
        return false;
      this.cluster.set(piece, start);
      return writeWhole(this.fd, this.placeOf(cluster), this.cluster) && this.setHere(cluster);
    });
  }

  flush(): boolean {
    return this.fd < 0 || sync(this.fd);
  }

  private make(): boolean {
    try {
      if (this.fd < 0) this.fd = openSync(this.path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o644);
    } catch {
      return false;
    }
    this.hasHeader = writeWhole(this.fd, 0, Buffer.concat([this.header, this.present]));
    return this.hasHeader;
  }

  private placeOf(cluster: number): number {
    return this.dataAt + cluster * CLUSTER_BYTES;
  }

  private isHere(cluster: number): boolean {
    return (this.present[cluster >>> 3] & (1 << (cluster & 7))) !== 0;
  }

  private setHere(cluster: number): boolean {
    const at = cluster >>> 3;
    this.present[at] |= 1 << (cluster & 7);
    return writeWhole(this.fd, HEADER_BYTES + at, this.present.subarray(at, at + 1));
  }
}

function headerOf(sectors: number, baseTime: number): Uint8Array {
  const header = new Uint8Array(HEADER_BYTES);
  const view = new DataView(header.buffer);
  header.set(Buffer.from(MAGIC));
  view.setUint32(8, sectors % 4294967296, true);
  view.setUint32(12, sectors / 4294967296, true);
  view.setFloat64(16, baseTime, true);
  return header;
}

/** -1 if none is set. */
function lastBit(bits: Uint8Array): number {
  for (let at = bits.length - 1; at >= 0; at--) if (bits[at] !== 0) return at * 8 + 31 - Math.clz32(bits[at]);
  return -1;
}
