/** Disks in memory: plain, and as a copy-on-write layer over another disk, which it never writes. */
import { type DiskPort, SECTOR_BYTES } from './virtio-blk.ts';

export class MemoryDisk implements DiskPort {
  readonly sectors: number;
  readonly isReadonly = false;
  readonly bytes: Uint8Array;

  /** Whole sectors. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.sectors = Math.floor(bytes.length / SECTOR_BYTES);
  }

  read(at: number, into: Uint8Array): boolean {
    into.set(this.bytes.subarray(at, at + into.length));
    return true;
  }

  write(at: number, from: Uint8Array): boolean {
    this.bytes.set(from, at);
    return true;
  }

  flush(): boolean {
    return true;
  }
}

const CLUSTER_BYTES = 4096;

/** What the guest writes stays in memory, in clusters of 4 KiB, and is gone with the machine. */
export class SnapshotDisk implements DiskPort {
  readonly sectors: number;
  readonly isReadonly = false;
  private readonly base: DiskPort;
  private readonly clusters = new Map<number, Uint8Array>();

  constructor(base: DiskPort) {
    this.base = base;
    this.sectors = base.sectors;
  }

  /** Clusters that differ from the base. */
  get changedClusters(): number {
    return this.clusters.size;
  }

  read(at: number, into: Uint8Array): boolean {
    return eachCluster(at, into.length, (cluster, from, done, count) => {
      const piece = into.subarray(done, done + count);
      const own = this.clusters.get(cluster);
      if (own === undefined) return this.base.read(cluster * CLUSTER_BYTES + from, piece);
      piece.set(own.subarray(from, from + count));
      return true;
    });
  }

  write(at: number, from: Uint8Array): boolean {
    return eachCluster(at, from.length, (cluster, start, done, count) => {
      let own = this.clusters.get(cluster);
      if (own === undefined) {
        own = new Uint8Array(CLUSTER_BYTES);
        const end = Math.min(CLUSTER_BYTES, this.sectors * SECTOR_BYTES - cluster * CLUSTER_BYTES);
        if (count < CLUSTER_BYTES && !this.base.read(cluster * CLUSTER_BYTES, own.subarray(0, end))) return false;
        this.clusters.set(cluster, own);
      }
      own.set(from.subarray(done, done + count), start);
      return true;
    });
  }

  flush(): boolean {
    return true;
  }
}

/** Cuts a range at the clusters' borders; false as soon as a step says so. */
export function eachCluster(
  at: number,
  bytes: number,
  step: (cluster: number, from: number, done: number, count: number) => boolean,
): boolean {
  for (let done = 0; done < bytes; ) {
    const cluster = Math.floor((at + done) / CLUSTER_BYTES);
    const from = at + done - cluster * CLUSTER_BYTES;
    const count = Math.min(CLUSTER_BYTES - from, bytes - done);
    if (!step(cluster, from, done, count)) return false;
    done += count;
  }
  return true;
}
