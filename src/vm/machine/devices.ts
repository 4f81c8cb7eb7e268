/** The virtio devices of a machine, as its owner asks for them: one slot of the PCI bus each, in the order below. */
import type { NetworkPort } from '../../dev/net/network-port.ts';
import { UserNet } from '../../dev/net/user-net.ts';
import type { FolderPort } from '../../dev/p9/folder-port.ts';
import type { ByteSink } from '../../dev/uart-16550.ts';
import { Virtio9p } from '../../dev/virtio/virtio-9p.ts';
import { VirtioBalloon } from '../../dev/virtio/virtio-balloon.ts';
import { type DiskPort, VirtioBlk } from '../../dev/virtio/virtio-blk.ts';
import { VirtioConsole } from '../../dev/virtio/virtio-console.ts';
import { VirtioNet } from '../../dev/virtio/virtio-net.ts';
import { VirtioRng } from '../../dev/virtio/virtio-rng.ts';
import type { Pc } from './pc.ts';

export interface DeviceOptions {
  /** Block devices: /dev/vda, /dev/vdb, ... */
  readonly disks?: readonly DiskPort[];
  /** An entropy device; its numbers follow from the seed. */
  readonly rngSeed?: number;
  /** A network card on a user-mode network, whose connections go through the port. */
  readonly network?: NetworkPort;
  /** A folder of the host's, by 9P; its tag is `host`. */
  readonly share?: FolderPort;
  /** A balloon, empty at first. */
  readonly balloon?: boolean;
  /** A console besides the serial port (/dev/hvc0), which gets what is typed. */
  readonly virtioConsole?: boolean;
}

export interface AttachedDevices {
  readonly terminal: VirtioConsole | null;
  readonly balloon: VirtioBalloon | null;
  readonly net: UserNet | null;
}

/** Before the guest runs. Throws a RangeError if there are too many. */
export function attachDevices(pc: Pc, options: DeviceOptions, output: ByteSink): AttachedDevices {
  const { board, dma } = pc;
  const host = { memory: dma, clock: board.clock, workload: board.workload };
  for (const [i, disk] of (options.disks ?? []).entries())
    board.addVirtio(new VirtioBlk(host, disk, `penumbra-disk${i}`));
  if (options.rngSeed !== undefined) board.addVirtio(new VirtioRng(host, options.rngSeed));
  const balloon = options.balloon === true ? new VirtioBalloon(host) : null;
  if (balloon !== null) board.addVirtio(balloon);
  const net = options.network === undefined ? null : new UserNet(options.network, board.clock);
  if (net !== null) board.addVirtio(new VirtioNet(host, net));
  if (options.share !== undefined) board.addVirtio(new Virtio9p(host, options.share, 'host'));
  const terminal = options.virtioConsole === true ? new VirtioConsole(host, output) : null;
  if (terminal !== null) board.addVirtio(terminal);
  return { terminal, balloon, net };
}
