import { describe, expect, it } from 'vitest';
import type { EventField, OpResult } from '../conform/recording.ts';
import { RBX, RSP } from './cpu-state.ts';
import { A, buildGuest, D, type Guest, type GuestOptions, P, type Paging, U, W } from './testing/build-guest.ts';

const DATA = 0x1000000;
const VA = 0x40000000;
const NOWHERE = 0x50000000;
/** A is clear: nothing is mapped ahead of its own fault. */
const FRESH = P | W | U | D;
const TWO_PAGES = { va: VA, gpa: DATA, count: 2, bits: FRESH };

function guestWith(options: GuestOptions): Guest {
  const guest = buildGuest({ slots: [{ id: 1, gpa: DATA, bytes: 2 ** 20 }], ...options });
  guest.expectDone('nop');
  return guest;
}

const textOf = (field: EventField | undefined): string => (typeof field === 'string' ? field : '?');

/** Address and error code of each page fault that KVM saw. */
function faults({ events }: OpResult): string[] {
  return events
    .filter(({ name }) => name === 'kvm_page_fault')
    .map((event) => `${textOf(event['fault_address'])}: ${textOf(event['error_code'])}`);
}

describe('the order of accesses', () => {
  it('is the code page first, then the operand', () => {
    const guest = buildGuest({ maps: [{ va: VA, gpa: 0x1000 }] });
    expect(faults(guest.do(`r ${VA}`))).toEqual(['0x1000: 0x10', '0x40000000: 0x0']);
  });

  it('of a read across two pages is the lower page first', () => {
    const guest = guestWith({ maps: [TWO_PAGES] });
    expect(faults(guest.do(`r64 ${VA + 0xffc}`))).toEqual(['0x40000ffc: 0x0', '0x40001000: 0x0']);
  });

  it('of a write across two pages is the lower page first', () => {
    const guest = guestWith({ maps: [TWO_PAGES] });
    expect(faults(guest.do(`w64 ${VA + 0xffc} 1`))).toEqual(['0x40000ffc: 0x2', '0x40001000: 0x2']);
  });

  it('of an exchange is the whole read, then the whole write', () => {
    // D is clear too: what was read can't be written yet.
    const guest = guestWith({ maps: [{ ...TWO_PAGES, bits: P | W | U }] });
    expect(faults(guest.do(`xchg ${VA + 0xffe} 1`))).toEqual([
      '0x40000ffe: 0x0',
      '0x40001000: 0x0',
      '0x40000ffe: 0x3',
      '0x40001000: 0x3',
    ]);
  });

  it.each([false, true])('touches both pages before it stores to either (nested: %s)', (npt) => {
    const guest = guestWith({
      npt,
      maps: [
        { va: VA, gpa: DATA },
        { va: VA + 4096, gpa: DATA + 4096, bits: P | U | A },
      ],
      data: [[DATA + 0xff8, 0x11n]],
    });
    const { res } = guest.do(`w64 ${VA + 0xffc} 0x1122334455667788`);
    expect(res).toMatchObject({ exit: 'pf', cr2: '0x40001000', err: '0x3' });
    expect([guest.peek(DATA + 0xff8), guest.peek(DATA + 0x1000)]).toEqual([0x11n, 0n]);
  });
});

describe('an access across two pages', () => {
  it.each([false, true])('takes its bytes from both frames, wherever they are (nested: %s)', (npt) => {
    const guest = guestWith({
      npt,
      maps: [
        { va: VA, gpa: DATA + 0x7000 },
        { va: VA + 4096, gpa: DATA + 0x3000 },
      ],
      data: [
        [DATA + 0x7ff8, 0x1122334455667788n],
        [DATA + 0x3000, 0x99aabbccddeeff00n],
      ],
    });
    expect(guest.do(`r64 ${VA + 0xffd}`).res?.value).toBe('0xccddeeff00112233');
    guest.expectDone(`w64 ${VA + 0xffd} 0x0102030405060708`);
    expect(guest.peek(DATA + 0x7ff8)).toBe(0x0607084455667788n);
    expect(guest.peek(DATA + 0x3000)).toBe(0x99aabb0102030405n);
  });
});

describe('a read', () => {
  // biome-ignore format: a table
  it.each([
    ['r8',  '0x88'],
    ['r',   '0x55667788'],
    ['r64', '0x1122334455667788'],
  ])('of the width %s', (op, value) => {
    const guest = guestWith({ maps: [{ va: VA, gpa: DATA }], data: [[DATA, 0x1122334455667788n]] });
    expect(guest.do(`${op} ${VA}`).res?.value).toBe(value);
  });
});

describe('delivering an exception', () => {
  const STUB = 0x1000n;
  const USER_STUB = 0x2000n;
  // Words below the top of the stack, first pushed first.
  // biome-ignore format: a table
  it.each<[string, Paging, string, number, bigint[]]>([
    // from          mode    op                    ss     rsp      flags    cs     rip        error
    ['the kernel',   'long', `r ${NOWHERE}`,       8, [0x10n, 0x1ff0n, 2n,      8n,    STUB,      0n]],
    ['the user',     'long', `r ${NOWHERE} user`,  8, [0x23n, 0x1ff0n, 0x3002n, 0x1bn, USER_STUB, 4n]],
    ['the kernel',   'pae',  `r ${NOWHERE}`,       4, [2n, 8n, STUB, 0n]],
    ['the user',     'pae',  `r ${NOWHERE} user`,  4, [0x23n, 0x1ff0n, 0x3002n, 0x1bn, USER_STUB, 4n]],
    ['the kernel',   '32',   `r ${NOWHERE}`,       4, [2n, 8n, STUB, 0n]],
    ['the user',     '32',   `r ${NOWHERE} user`,  4, [0x23n, 0x1ff0n, 0x3002n, 0x1bn, USER_STUB, 4n]],
  ])('leaves a frame as the manual has it, from %s in mode %s', (_from, paging, op, bytes, frame) => {
    for (const npt of [false, true]) {
      const guest = guestWith({ paging, npt });
      expect(guest.do(op).res).toMatchObject({ exit: 'pf', cr2: '0x50000000' });
      expect(frame.map((_, i) => guest.peek(0x1ff0 - bytes * (i + 1), bytes))).toEqual(frame);
      expect([guest.vcpu.state.gpr[2 * RSP], guest.vcpu.state.cpl]).toEqual([0x1ff0 - bytes * frame.length, 3 * Number(op.endsWith('user'))]);
    }
  });

  /** Runs the guest at `rip` until it stops: the port, or why else. */
  function runAt(guest: Guest, rip: number, registers: Record<number, number>): number | string {
    const { vcpu } = guest;
    vcpu.state.gpr.fill(0);
    for (const [register, value] of Object.entries(registers)) vcpu.state.gpr[2 * Number(register)] = value;
    vcpu.setRip(rip, 0);
    expect(vcpu.run()).toBe(0);
    return vcpu.exit.reason === 'io' ? vcpu.exit.port : vcpu.exit.reason;
  }

  it('aligns the stack to 16 bytes in long mode, and only there', () => {
    // biome-ignore format: a table
    const cases = [
      ['long', 0x1f00 - 48],
      ['pae',  0x1f0c - 16],
    ] as const;
    for (const [paging, rsp] of cases) {
      const guest = guestWith({ paging });
      expect(runAt(guest, 0x1000, { [RBX]: NOWHERE, [RSP]: 0x1f0c })).toBe(0x11);
      expect(guest.vcpu.state.gpr[2 * RSP]).toBe(rsp);
    }
  });

  it('pushes no error code for an invalid instruction', () => {
    for (const npt of [false, true]) {
      const guest = guestWith({ npt, maps: [{ va: VA, gpa: DATA }], data: [[DATA, 0x0b0fn]] });
      expect(runAt(guest, VA, { [RSP]: 0x1ff0 })).toBe(0x14);
      expect(guest.vcpu.state.gpr[2 * RSP]).toBe(0x1ff0 - 40);
      expect(guest.peek(0x1ff0 - 40)).toBe(BigInt(VA));
    }
  });

  it('comes to a shutdown on a stack that is not there: the double fault finds none either', () => {
    for (const npt of [false, true])
      expect(runAt(guestWith({ npt }), 0x1000, { [RBX]: NOWHERE, [RSP]: NOWHERE })).toBe('shutdown');
  });

  it('is done by the CPU under nested paging, by KVM under shadow paging', () => {
    expect(guestWith({ npt: true }).events(`r ${NOWHERE}`)).not.toContain('kvm_inj_exception');
    expect(guestWith({ npt: false }).events(`r ${NOWHERE}`)).toContain('kvm_inj_exception');
  });

  it('goes on after faults of its own: the stack is mapped anew, the frame is whole', () => {
    const guest = guestWith({ npt: true });
    guest.expectDone('dontneed 0 0x3000 0x1000');
    expect(runAt(guest, 0x1000, { [RBX]: NOWHERE, [RSP]: 0x3ff0 })).toBe(0x11);
    expect(guest.peek(0x3ff0 - 40)).toBe(STUB);
  });
});

describe('instructions that KVM intercepts', () => {
  /** Exits that an op takes besides the `out` at its end. */
  function exits(guest: Guest, op: string): number {
    const before = guest.vcpu.mmu.stats.exits;
    guest.expectDone(op);
    return guest.vcpu.mmu.stats.exits - before - 1;
  }
  const CR0 = 0x80010031;
  const TS = 8;
  const AM = 1 << 18;
  // biome-ignore format: a table
  it.each([
    // op                          shadow nested
    ['nop',                        0,     0],
    ['cr3 0',                      1,     0],
    ['cr4 0x20',                   1,     1],
    [`cr0 ${CR0 | 0}`,             0,     0],
    [`cr0 ${(CR0 | TS) >>> 0}`,    0,     0],
    [`cr0 ${(CR0 | AM) >>> 0}`,    1,     1],
    [`invlpg ${VA}`,               1,     0],
  ])('%s', (op, shadow, nested) => {
    const text = op.replace(`${CR0 | 0}`, `${CR0}`);
    expect([exits(guestWith({}), text), exits(guestWith({ npt: true }), text)]).toEqual([shadow, nested]);
  });
});
