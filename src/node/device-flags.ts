/** What the device flags of `penumbra run` say, as options of a machine. */
import { realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { PCI_SLOTS } from '../dev/pci/pci-host.ts';
import { SnapshotDisk } from '../dev/virtio/memory-disk.ts';
import type { DiskPort } from '../dev/virtio/virtio-blk.ts';
import type { DeviceOptions } from '../vm/machine/devices.ts';
import { type AllowedNetwork, parseNetwork } from './allowed-network.ts';
import { CliError, forFlag } from './cli-error.ts';
import { FileDisk } from './file-disk.ts';
import { OverlayDisk } from './overlay-disk.ts';
import { parseShare } from './shared-folder.ts';

export interface DeviceFlags {
  readonly disk?: readonly string[];
  readonly rng?: string | true;
  readonly net?: string | true;
  readonly share?: string;
  readonly balloon?: boolean;
  readonly console: string;
}

export function deviceOptions(flags: DeviceFlags): DeviceOptions & { readonly network?: AllowedNetwork } {
  const { disk = [], rng, net, share, balloon, console } = flags;
  const others = [rng, net, share, balloon, console === 'virtio' ? true : undefined].filter((one) => one !== undefined);
  if (disk.length + others.length >= PCI_SLOTS)
    throw new CliError(`--disk: ${disk.length + others.length} devices, and room for ${PCI_SLOTS - 1}`);
  return {
    rngSeed: rng === undefined ? undefined : rng === true ? 1 : parseSeed(rng),
    network: net === undefined ? undefined : parseNetwork(net),
    share: share === undefined ? undefined : forFlag(`--share ${share}`, () => parseShare(share)),
    disks: openDisks(disk),
    balloon,
    virtioConsole: console === 'virtio',
  };
}

interface DiskFlag {
  readonly text: string;
  readonly path: string;
  readonly kind: 'file' | 'overlay' | 'snapshot' | 'ro';
  /** Of an overlay. */
  readonly overlay: string;
}

/** What no two disks can share: a file that one of them writes to. */
export function openDisks(texts: readonly string[]): DiskPort[] {
  const disks = texts.map(parseDisk);
  const uses = new Map<string, { readonly text: string; readonly writes: boolean }>();
  const use = (text: string, path: string, writes: boolean): void => {
    const key = fileKey(path);
    const other = uses.get(key);
    if (other !== undefined && (writes || other.writes))
      throw new CliError(`--disk ${text}: '${path}' is that of --disk ${other.text}, and one of them writes to it`);
    uses.set(key, { text, writes });
  };
  return disks.map((disk) =>
    forFlag(`--disk ${disk.text}`, () => {
      const { text, path, kind, overlay } = disk;
      use(text, path, kind === 'file');
      const base = new FileDisk(path, kind !== 'file');
      if (kind === 'snapshot') return new SnapshotDisk(base);
      if (kind !== 'overlay') return base;
      use(text, overlay, true);
      return new OverlayDisk(overlay, base, statSync(path).mtimeMs);
    }),
  );
}

/** FILE[,overlay=FILE|,snapshot|,ro] */
function parseDisk(text: string): DiskFlag {
  const [path, word, ...more] = text.split(',');
  if (path === '') throw new CliError(`--disk ${text}: no file`);
  if (more.length > 0) throw new CliError(`--disk ${text}: one of overlay=FILE, snapshot and ro`);
  if (word === undefined) return { text, path, kind: 'file', overlay: '' };
  if (word === 'snapshot' || word === 'ro') return { text, path, kind: word, overlay: '' };
  if (word.startsWith('overlay=') && word.length > 8) return { text, path, kind: 'overlay', overlay: word.slice(8) };
  throw new CliError(`--disk ${text}: '${word}' is not overlay=FILE, snapshot or ro`);
}

/** The same for the same file, whatever its name, also for one that isn't there yet. */
function fileKey(path: string): string {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? join(realpathSync(dirname(path)), basename(path)) : `${stat.dev}:${stat.ino}`;
}

function parseSeed(text: string): number {
  if (!/^\d{1,10}$/.test(text) || Number(text) > 0xffffffff)
    throw new CliError(`--rng takes a seed below 2^32, not '${text}'`);
  return Number(text);
}
