import { describe, expect, it } from 'vitest';
import { EMUL_PF } from './emulator.ts';
import { A, buildGuest, type Guest, type GuestOptions, P, U, WUAD } from './testing/build-guest.ts';

const DATA = 0x1000000;
const DEVICE = 0x70000000;
const VA = 0x40000000;
const VALUE = 0x1122334455667788n;

function guestWith(options: GuestOptions): Guest {
  const guest = buildGuest({ slots: [{ id: 1, gpa: DATA, bytes: 2 ** 20 }], ...options });
  guest.expectDone('nop');
  return guest;
}

/** Two pages, each memory or a device. */
function twoPages(npt: boolean, first: number, second: number): Guest {
  return guestWith({
    npt,
    maps: [
      { va: VA, gpa: first },
      { va: VA + 4096, gpa: second },
    ],
    data: [
      [DATA + 0xff8, 0xaabbccdd00000000n],
      [DATA + 0x1000, 0x99n],
    ],
  });
}

const write = (gpa: number, len: number, data: string): object => ({
  dir: 'write',
  gpa: `0x${gpa.toString(16)}`,
  len,
  data,
});
const read = (gpa: number, len: number): object => ({
  dir: 'read',
  gpa: `0x${gpa.toString(16)}`,
  len,
  data: `0x${'a5'.repeat(len)}`,
});

describe.each([
  ['shadow', false],
  ['nested', true],
])('MMIO under %s paging', (_name, npt) => {
  // biome-ignore format: a table
  it.each([
    ['r8',  1, '0xa5'],
    ['r',   4, '0xa5a5a5a5'],
    ['r64', 8, '0xa5a5a5a5a5a5a5a5'],
  ])('reads as wide as the instruction: %s', (op, len, value) => {
    const { res, mmio } = twoPages(npt, DEVICE, DEVICE + 4096).do(`${op} ${VA + 0x10}`);
    expect([res?.value, mmio]).toEqual([value, [read(DEVICE + 0x10, len)]]);
  });

  // biome-ignore format: a table
  it.each([
    ['w8',  1, '0x88'],
    ['w',   4, '0x55667788'],
    ['w64', 8, '0x1122334455667788'],
  ])('writes as wide as the instruction: %s', (op, len, value) => {
    const { res, mmio } = twoPages(npt, DEVICE, DEVICE + 4096).do(`${op} ${VA + 0x10} 0x${VALUE.toString(16)}`);
    expect([res?.exit, mmio]).toEqual(['done', [write(DEVICE + 0x10, len, value)]]);
  });

  it('across two pages is two reads, the lower first', () => {
    const { res, mmio } = twoPages(npt, DEVICE, DEVICE + 0x5000).do(`r64 ${VA + 0xffd}`);
    expect(res?.value).toBe('0xa5a5a5a5a5a5a5a5');
    expect(mmio).toEqual([read(DEVICE + 0xffd, 3), read(DEVICE + 0x5000, 5)]);
  });

  it('across two pages is two writes, the lower first', () => {
    const { mmio } = twoPages(npt, DEVICE, DEVICE + 0x5000).do(`w64 ${VA + 0xffd} 0x${VALUE.toString(16)}`);
    expect(mmio).toEqual([write(DEVICE + 0xffd, 3, '0x667788'), write(DEVICE + 0x5000, 5, '0x1122334455')]);
  });

  it('of the upper page only: memory below is read and written by KVM', () => {
    const guest = twoPages(npt, DATA, DEVICE);
    const { res, mmio } = guest.do(`r64 ${VA + 0xffc}`);
    expect([res?.value, mmio]).toEqual(['0xa5a5a5a5aabbccdd', [read(DEVICE, 4)]]);
    expect(guest.do(`w64 ${VA + 0xffc} 0x${VALUE.toString(16)}`).mmio).toEqual([write(DEVICE, 4, '0x11223344')]);
    expect(guest.peek(DATA + 0xffc, 4)).toBe(0x55667788n);
  });

  it('of the lower page only', () => {
    const guest = twoPages(npt, DEVICE, DATA + 0x1000);
    const { res, mmio } = guest.do(`r64 ${VA + 0xffc}`);
    expect([res?.value, mmio]).toEqual(['0x99a5a5a5a5', [read(DEVICE + 0xffc, 4)]]);
    expect(guest.do(`w64 ${VA + 0xffc} 0x${VALUE.toString(16)}`).mmio).toEqual([
      write(DEVICE + 0xffc, 4, '0x55667788'),
    ]);
    expect(guest.peek(DATA + 0x1000, 4)).toBe(0x11223344n);
  });

  it('of an exchange is a read and a write', () => {
    const { res, mmio } = twoPages(npt, DEVICE, DEVICE).do(`xchg ${VA + 8} 0x77`);
    expect([res?.exit, mmio]).toEqual(['done', [read(DEVICE + 8, 4), write(DEVICE + 8, 4, '0x77')]]);
  });

  it('counts an exit for each instruction, not for each part', () => {
    const guest = twoPages(npt, DEVICE, DEVICE + 4096);
    guest.do(`w64 ${VA + 0xffc} 1`);
    expect(guest.vcpu.mmu.stats.mmio_exits).toBe(1);
  });

  it('goes on with the instruction as it was, and leaves alone the registers that user space has set meanwhile', () => {
    const guest = twoPages(npt, DEVICE, DEVICE);
    const { vcpu } = guest;
    vcpu.state.gpr.fill(0);
    vcpu.state.gpr[6] = VA;
    vcpu.setRip(0x1000, 0);
    expect([vcpu.run(), vcpu.exit.reason]).toEqual([0, 'mmio']);
    vcpu.state.gpr[0] = 0x1234;
    vcpu.setRip(0x10b0, 0);
    vcpu.run(new Uint8Array(8).fill(0xa5));
    expect([vcpu.exit.reason, vcpu.state.gpr[0]]).toEqual(['io', 0x1234]);
  });
});

describe('an emulated write across two pages', () => {
  it('has written the lower page when the upper one faults', () => {
    const guest = guestWith({
      maps: [{ va: VA + 4096, gpa: DATA, bits: P | U | A }],
      edit: (image) => image.map({ va: VA, gpa: image.entry(0, VA, 3) & ~0xfff }),
    });
    // The lower page is a table of level 3: never writable, each write to it is emulated.
    const table = guest.entry(VA, 3) & ~0xfff;
    expect(guest.do(`w64 ${VA + 0xffc} 0x${VALUE.toString(16)}`).res).toMatchObject({
      exit: 'pf',
      cr2: '0x40001000',
      err: '0x3',
    });
    expect([guest.peek(table + 0xffc, 4), guest.peek(DATA, 4)]).toEqual([0x55667788n, 0n]);
  });
});

describe('an emulated exchange', () => {
  /** An MMIO entry that is stale: the guest's entry maps memory by now, and nobody told KVM. */
  function staleEntry(contents: bigint): Guest {
    const guest = guestWith({ maps: [{ va: VA, gpa: DEVICE }], data: [[DATA, contents]] });
    guest.do(`r ${VA}`);
    guest.expectDone(`hw ${guest.entry(VA, 1)} ${DATA | WUAD}`);
    return guest;
  }

  it('runs again if memory holds another value than was read: here a device answers the read, for ever', () => {
    const guest = staleEntry(0x1111n);
    const { res, mmio } = guest.do(`xchg ${VA} 0x77`);
    expect(res?.exit).toBe('loop');
    expect(mmio!.length).toBeGreaterThan(30);
    expect(mmio!.every(({ dir }) => dir === 'read')).toBe(true);
    expect(guest.peek(DATA)).toBe(0x1111n);
  });

  it('is done if the value is the same by chance', () => {
    const guest = staleEntry(0xa5a5a5a5n);
    const { res, mmio } = guest.do(`xchg ${VA} 0x77`);
    expect([res?.exit, mmio!.length]).toEqual(['done', 1]);
    expect([guest.peek(DATA), guest.vcpu.state.gpr[2]]).toEqual([0x77n, 0xa5a5a5a5 | 0]);
  });

  it('marks its page dirty even if it fails', () => {
    const guest = staleEntry(0x1111n);
    guest.expectDone('log 1 on');
    // The slots have changed, so the entry is made anew: back to the device, and stale once more.
    guest.expectDone(`hw ${guest.entry(VA, 1)} ${DEVICE | WUAD}`);
    guest.do(`r ${VA}`);
    guest.expectDone(`hw ${guest.entry(VA, 1)} ${DATA | WUAD}`);
    expect(guest.do(`xchg ${VA} 0x77`).res?.exit).toBe('loop');
    expect(guest.do('getlog 1').bitmap?.gfns).toEqual([[0, 0]]);
  });

  it('across two pages is a plain write', () => {
    const { mmio } = twoPages(false, DEVICE, DEVICE + 4096).do(`xchg ${VA + 0xffe} 0x11223344`);
    expect(mmio!.filter(({ dir }) => dir === 'write')).toEqual([
      write(DEVICE + 0xffe, 2, '0x3344'),
      write(DEVICE + 0x1000, 2, '0x1122'),
    ]);
  });
});

describe('an instruction that cannot be decoded', () => {
  it('stops the kernel and gives the user #UD', () => {
    for (const cpl of [0, 3]) {
      const guest = guestWith({ maps: [{ va: VA, gpa: DATA }], data: [[DATA, 0x0b0fn]] });
      const { vcpu } = guest;
      vcpu.setSregs({ cpl });
      vcpu.setRip(VA, 0);
      const result = vcpu.emulator.emulate(VA, 0, EMUL_PF);
      expect([result, vcpu.exit.reason]).toEqual(cpl === 0 ? [0, 'internal'] : [1, 'io']);
    }
  });
});
