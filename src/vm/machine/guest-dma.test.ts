import { describe, expect, it } from 'vitest';
import { MemoryDisk } from '../../dev/virtio/memory-disk.ts';
import { bootPc } from './boot.ts';
import { attachDevices } from './devices.ts';
import { DirtyLogCheck } from './dirty-log-check.ts';
import type { Pc, PagingName } from './pc.ts';
import { codeImage, le32, makePc, runToEnd } from './testing/guests.ts';

const PAGINGS: readonly PagingName[] = ['tdp', 'tdp-mmu', 'shadow'];
const LOOP = codeImage(0xeb, 0xfe);
const NO_OUTPUT = { writeByte: () => {} };

const DESC = 0x400000;
const AVAIL = 0x401000;
const USED = 0x402000;
const HEADER = 0x403000;
const DATA = 0x500000;

/** As a driver would: one read of `pages` pages from the disk to DATA. */
function readDisk(pc: Pc, pages: number): void {
  const { ports, mmio } = pc.board;
  const ram = new DataView(pc.ram.buffer, pc.ram.byteOffset, pc.ramBytes);
  ports.write(0xcf8, 4, 0x80000804);
  ports.write(0xcfc, 2, 6);
  ports.write(0xcf8, 4, 0x80000810);
  const bar = ports.read(0xcfc, 4);
  const write = (offset: number, bytes: number, value: number): void => mmio.write(bar + offset, bytes, value);
  for (const [offset, value] of [
    [0x08, 1],
    [0x0c, 1],
  ] as const)
    write(offset, 4, value);
  write(0x14, 1, 11);
  for (const [i, gpa] of [DESC, AVAIL, USED].entries()) write(0x20 + 8 * i, 4, gpa);
  write(0x18, 2, 4);
  write(0x1c, 2, 1);
  write(0x14, 1, 15);
  const pieces = [
    [HEADER, 16, 1],
    [DATA, pages * 4096, 3],
    [HEADER + 16, 1, 2],
  ];
  for (const [i, [gpa, bytes, flags]] of pieces.entries()) {
    ram.setUint32(DESC + i * 16, gpa, true);
    ram.setUint32(DESC + i * 16 + 8, bytes, true);
    ram.setUint16(DESC + i * 16 + 12, flags, true);
    ram.setUint16(DESC + i * 16 + 14, i + 1, true);
  }
  ram.setUint16(AVAIL + 2, 1, true);
  write(0x3000, 2, 0);
  expect(ram.getUint8(HEADER + 16)).toBe(0);
}

function diskOf(pages: number): MemoryDisk {
  return new MemoryDisk(new Uint8Array(pages * 4096).fill(0xab));
}

describe('a guest that keeps a device busy', () => {
  it('gives way as one does that computes', () => {
    const memory = 16 << 20;
    const { pc } = makePc(
      codeImage(
        // One more chain is available, and the device is told: inc word [AVAIL + 2]; mov word [BAR + 3000], 0; jmp
        [0x66, 0xff, 0x05, ...le32(AVAIL + 2), 0x66, 0xc7, 0x05, ...le32(0xc000b000), 0, 0, 0xeb, 0xee],
      ),
      { megabytes: memory >> 20 },
    );
    let reads = 0;
    const disk = { sectors: 8192, isReadonly: true, read: () => ++reads > 0, write: () => false, flush: () => true };
    attachDevices(pc, { disks: [disk] }, NO_OUTPUT);
    readDisk(pc, 1024);
    const once = reads;
    pc.run(1_000_000);
    expect(pc.instructions).toBeGreaterThan(0);
    // Chains of 4 MiB; more than 64 MiB of them end the run.
    expect((reads - once) / once).toBeGreaterThanOrEqual(16);
    expect((reads - once) / once).toBeLessThan(40);
    pc.run(1_000_000);
    expect((reads - once) / once).toBeLessThan(80);
  });
});

describe('a guest that resets itself without end', () => {
  it('gives way, too', () => {
    const kernel = codeImage([0x66, 0xba, 0xf9, 0x0c, 0xb0, 6, 0xee, 0xf4]); // mov dx, 0xcf9; mov al, 6; out dx, al; hlt
    const { pc } = makePc(kernel);
    let boots = 0;
    pc.onBoot = () => {
      boots++;
      bootPc(pc, { kernel, cmdline: '' });
    };
    pc.run(1_000_000);
    expect(boots).toBeGreaterThan(0);
    expect(boots).toBeLessThan(20);
  });
});

describe('what a device writes', () => {
  it.each(PAGINGS)('is in the dirty log, and nothing else is (%s)', (paging) => {
    const { pc } = makePc(LOOP, { paging });
    attachDevices(pc, { disks: [diskOf(5)] }, NO_OUTPUT);
    pc.run(1000);
    pc.setLogging(true);
    readDisk(pc, 5);
    const bitmap = pc.vm.getDirtyLog(0);
    const pages = Array.from({ length: pc.ramBytes >> 12 }, (_, i) => i).filter(
      (i) => (bitmap[i >> 5] >>> (i & 31)) & 1,
    );
    expect(pages).toEqual([USED >> 12, HEADER >> 12, 0x500, 0x501, 0x502, 0x503, 0x504]);
    expect(pc.ram[DATA + 5 * 4096 - 1]).toBe(0xab);
  });

  it.each(PAGINGS)('is in the dirty ring, even if it is more than the ring can take (%s)', (paging) => {
    const { pc } = makePc(LOOP, { paging, ringBytes: 4096 });
    attachDevices(pc, { disks: [diskOf(700)] }, NO_OUTPUT);
    pc.run(1000);
    const check = new DirtyLogCheck(pc);
    readDisk(pc, 700);
    const driver = [DESC, AVAIL, HEADER].map((gpa) => gpa >> 12);
    check.round();
    // What the test wrote in the driver's place was written by nobody.
    expect(check.lost.filter((gfn) => !driver.includes(gfn))).toEqual([]);
    expect(check.logged).toBeGreaterThanOrEqual(702);
  });

  it('goes nowhere if the guest can not write there', () => {
    const { pc } = makePc(LOOP);
    expect(pc.dma.isWritable(pc.ramBytes - 8, 8)).toBe(true);
    expect(pc.dma.isWritable(pc.ramBytes - 8, 9)).toBe(false);
    expect(pc.dma.writable(pc.ramBytes, 1)).toBeNull();
    expect(pc.dma.readable(0xfee00000, 4)).toBeNull();
    expect(pc.dma.readable(2 ** 60, 4)).toBeNull();
    pc.vm.setUserMemoryRegion({ slot: 0, flags: 0, guestPhysAddr: 0, memorySize: 0, userspaceAddr: 0 });
    expect(pc.dma.readable(0, 1)).toBeNull();
  });

  it.each(PAGINGS)('is executed, not what was decoded before (%s)', (paging) => {
    // again: call the routine; cmp al, 9; jne again; out 0xf4, eax
    const routine = 0x108000;
    const { pc } = makePc(
      codeImage(0xbc, ...le32(0x10f000), 0xb8, ...le32(routine), 0xff, 0xd0, 0x3c, 9, 0x75, 0xf5, 0xe7, 0xf4),
      { paging },
    );
    const code = (n: number): number[] => [0xb8, ...le32(n), 0xc3];
    pc.ram.set(code(3), routine);
    pc.run(10_000);
    expect(pc.end).toBeNull();
    pc.dma.writable(routine, 6)?.set(code(9));
    runToEnd(pc, 100_000);
    expect(pc.end).toMatchObject({ reason: 'debug-exit', status: 19 });
  });
});

describe('a page that the balloon takes', () => {
  it.each(PAGINGS)('loses its entries by the notifier, and comes back empty (%s)', (paging) => {
    // again: mov eax, [0x600000]; test eax, eax; jnz again; out 0xf4, eax
    const { pc } = makePc(codeImage(0xa1, ...le32(0x600000), 0x85, 0xc0, 0x75, 0xf7, 0xe7, 0xf4), {
      paging,
      hostLevel: 1,
    });
    pc.ram.fill(1, 0x600000, 0x601000);
    pc.run(10_000);
    expect(pc.end).toBeNull();
    const { pf_taken } = pc.unit.vcpu.stats;
    pc.dma.discard(0x600000, 4096);
    expect(pc.vm.mmu.invalidateSeq).toBeGreaterThan(0);
    runToEnd(pc, 100_000);
    expect(pc.end).toMatchObject({ reason: 'debug-exit', status: 1 });
    expect(pc.unit.vcpu.stats.pf_taken).toBeGreaterThan(pf_taken);
    expect(pc.vm.verify()).toEqual([]);
  });
});
