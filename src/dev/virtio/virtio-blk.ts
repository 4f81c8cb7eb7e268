/** A virtio block device (virtio 1.2, 5.2): reads, writes, flushes, all done when the notification returns. */
import type { DescriptorChain } from './descriptor-chain.ts';
import { VirtioDevice, type VirtioHost } from './virtio-device.ts';

/** What lies behind the disk. Offsets are in bytes, whole sectors; false: it could not be done. */
export interface DiskPort {
  readonly sectors: number;
  readonly isReadonly: boolean;
  read(at: number, into: Uint8Array): boolean;
  write(at: number, from: Uint8Array): boolean;
  flush(): boolean;
}

export const SECTOR_BYTES = 512;
const HEADER_BYTES = 16;
/** Of a flush, which waits for the host's disk: what could be copied meanwhile. */
const FLUSH_EFFORT = 2 ** 20;
const ID_BYTES = 20;

const F_SEG_MAX = 1 << 2;
const F_RO = 1 << 5;
const F_BLK_SIZE = 1 << 6;
const F_FLUSH = 1 << 9;
/** Pieces of a request, without header and status. */
const SEG_MAX = 254;

const T_IN = 0;
const T_OUT = 1;
const T_FLUSH = 4;
const T_GET_ID = 8;
const S_OK = 0;
const S_IOERR = 1;
const S_UNSUPPORTED = 2;

export class VirtioBlk extends VirtioDevice {
  private readonly disk: DiskPort;
  private readonly header = new Uint8Array(HEADER_BYTES);
  private readonly status = new Uint8Array(1);
  private readonly id: Uint8Array;

  /** `serial`: up to 20 characters of ASCII. */
  constructor(host: VirtioHost, disk: DiskPort, serial: string) {
    const features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | (disk.isReadonly ? F_RO : 0);
    super({ type: 2, pciClass: 0x010000, features, queues: [256], configBytes: 24 }, host);
    this.disk = disk;
    this.id = Uint8Array.from({ length: ID_BYTES }, (_, i) => (i < serial.length ? serial.charCodeAt(i) : 0));
    const view = new DataView(this.config.buffer);
    view.setUint32(0, disk.sectors % 4294967296, true);
    view.setUint32(4, disk.sectors / 4294967296, true);
    view.setUint32(12, SEG_MAX, true);
    view.setUint32(20, SECTOR_BYTES, true);
  }

  protected serve(_queue: number, chain: DescriptorChain): number {
    const { writableBytes } = chain;
    if (writableBytes === 0) return 0; // nowhere to say what is wrong
    let done = 0;
    let status = S_IOERR;
    if (chain.read(0, this.header) === HEADER_BYTES) {
      const view = new DataView(this.header.buffer);
      const type = view.getUint32(0, true);
      const at = (view.getUint32(12, true) * 4294967296 + view.getUint32(8, true)) * SECTOR_BYTES;
      if (type === T_IN) {
        status = this.transfer(at, writableBytes - 1, (piece, i) => this.disk.read(at + i, piece), chain, true);
        if (status === S_OK) done = writableBytes - 1;
      } else if (type === T_OUT) {
        const bytes = chain.readableBytes - HEADER_BYTES;
        if (!this.disk.isReadonly)
          status = this.transfer(at, bytes, (piece, i) => this.disk.write(at + i, piece), chain, false);
      } else if (type === T_FLUSH) {
        status = this.disk.flush() ? S_OK : S_IOERR;
        this.effort = FLUSH_EFFORT;
      } else if (type === T_GET_ID) {
        done = chain.write(0, this.id.subarray(0, Math.min(ID_BYTES, writableBytes - 1)));
        status = S_OK;
      } else {
        status = S_UNSUPPORTED;
      }
    }
    this.status[0] = status;
    chain.write(writableBytes - 1, this.status);
    return done + 1;
  }

  private transfer(
    at: number,
    bytes: number,
    move: (piece: Uint8Array, done: number) => boolean,
    chain: DescriptorChain,
    read: boolean,
  ): number {
    // `at` may be far beyond what a number holds exactly; the comparison is right all the same.
    if (bytes % SECTOR_BYTES !== 0 || at + bytes > this.disk.sectors * SECTOR_BYTES) return S_IOERR;
    let good = true;
    const each = (piece: Uint8Array, done: number): void => {
      if (good && !move(piece, done)) good = false;
    };
    if (read) chain.eachWritable(0, bytes, each);
    else chain.eachReadable(HEADER_BYTES, bytes, each);
    return good ? S_OK : S_IOERR;
  }
}
