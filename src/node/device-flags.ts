/** What the device flags of `penumbra run` say, as options of a machine. */
import { statSync } from 'node:fs';
import { SnapshotDisk } from '../dev/virtio/memory-disk.ts';
import type { DiskPort } from '../dev/virtio/virtio-blk.ts';
import type { DeviceOptions } from '../vm/machine/devices.ts';
import { type AllowedNetwork, parseNetwork } from './allowed-network.ts';
import { CliError } from './cli-error.ts';
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
  return {
    disks: (flags.disk ?? []).map(openDisk),
    rngSeed: flags.rng === undefined ? undefined : flags.rng === true ? 1 : parseSeed(flags.rng),
    network: flags.net === undefined ? undefined : parseNetwork(flags.net),
    share: flags.share === undefined ? undefined : parseShare(flags.share),
    balloon: flags.balloon,
    virtioConsole: flags.console === 'virtio',
  };
}

/** FILE[,overlay=FILE|,snapshot][,ro] */
export function openDisk(text: string): DiskPort {
  const [path, ...words] = text.split(',');
  let overlay: string | null = null;
  let snapshot = false;
  let readonly = false;
  for (const word of words) {
    if (word === 'snapshot') snapshot = true;
    else if (word === 'ro') readonly = true;
    else if (word.startsWith('overlay=') && word.length > 8) overlay = word.slice(8);
    else throw new CliError(`--disk ${text}: '${word}' is not overlay=FILE, snapshot or ro`);
  }
  if ((overlay !== null ? 1 : 0) + (snapshot ? 1 : 0) + (readonly ? 1 : 0) > 1)
    throw new CliError(`--disk ${text}: one of overlay, snapshot and ro`);
  const base = new FileDisk(path, readonly || snapshot || overlay !== null);
  if (snapshot) return new SnapshotDisk(base);
  return overlay === null ? base : new OverlayDisk(overlay, base, statSync(path).mtimeMs);
}

function parseSeed(text: string): number {
  if (!/^\d{1,10}$/.test(text) || Number(text) > 0xffffffff)
    throw new CliError(`--rng takes a seed below 2^32, not '${text}'`);
  return Number(text);
}
