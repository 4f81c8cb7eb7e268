import { describe, expect, it } from 'vitest';
import { Prng } from '../../base/prng.ts';
import { CpuState } from '../../cpu/cpu-state.ts';
import { CR0, CR3, CR4, EFER, layoutAt } from '../../cpu/state.ts';
import { translate } from '../../oracle/translate.ts';
import { debugWalk } from './debug-walk.ts';

const PAGES = 16;
const CR0_PG = (1 << 31) | 1;
const PSE = 1 << 4;
const PAE = 1 << 5;
const LA57 = 1 << 12;
const LMA = 0x500;

const layout = layoutAt(64, 1, 4096);
const state = new CpuState(new ArrayBuffer(layout.end), layout);
const ram = new DataView(new ArrayBuffer(PAGES * 4096));

// biome-ignore format: a table
const MODES = [
  ['no paging',         'none', 0,      0,         0  ],
  ['32-bit',            '32',   CR0_PG, 0,         0  ],
  ['32-bit with PSE',   '32',   CR0_PG, PSE,       0  ],
  ['PAE',               'pae',  CR0_PG, PAE,       0  ],
  ['four levels',       'long', CR0_PG, PAE,       LMA],
  ['five levels',       'long', CR0_PG, PAE | LA57, LMA],
] as const;

/** Mostly present, mostly of a table in memory, sometimes large or of a frame beyond it. */
function fill(random: (below: number) => number, bytes: 4 | 8): void {
  for (let at = 0; at < ram.byteLength; at += bytes) {
    const frame = random(8) === 0 ? random(1 << 16) : random(PAGES);
    const isLarge = random(4) === 0;
    // A large page's reserved bits are clear, whatever its size.
    const lo =
      ((isLarge ? 0x80 | ((frame & 3) << 30) : frame << 12) | (random(8) === 0 ? 0 : 1)) & (isLarge ? 0xc0000081 : -1);
    ram.setInt32(at, lo, true);
    if (bytes === 8) ram.setInt32(at + 4, random(8) === 0 ? random(256) : 0, true);
  }
}

describe('a debugger’s walk', () => {
  it.each(MODES)('finds what the manuals say, under %s, and touches nothing', (_, mode, cr0, cr4, efer) => {
    const prng = new Prng(1);
    let found = 0;
    for (let round = 0; round < 400; round++) {
      if (round % 20 === 0) fill((below) => prng.int(below), mode === '32' ? 4 : 8);
      const cr3 = prng.int(PAGES) * 4096;
      state.set(CR0, cr0);
      state.set(CR4, cr4);
      state.set(EFER, efer);
      state.setPair(CR3, cr3, 0);
      const lo = prng.int(2 ** 32) | 0;
      const hi = mode !== 'long' ? 0 : prng.int(cr4 & LA57 ? 1 << 24 : 1 << 15);
      const expected = translate({
        mode,
        cr0: BigInt(cr0 >>> 0),
        cr3: BigInt(cr3),
        cr4: BigInt(cr4),
        efer: BigInt(efer),
        pkru: 0,
        ac: true,
        cpl3: false,
        implicit: false,
        access: 'r',
        va: (BigInt(hi) << 32n) | BigInt(lo >>> 0),
        maxphyaddr: 40,
        read: readAt,
        write: () => {},
      });
      // Reserved bits are a fault to the CPU, and nothing to a debugger.
      if (!expected.ok && expected.error & 8) continue;
      if (expected.ok) found++;
      const before = Buffer.from(ram.buffer.slice(0));
      expect(debugWalk(state, ram, lo, hi)).toBe(expected.ok ? Number(expected.pa) : -1);
      expect(before.equals(new Uint8Array(ram.buffer))).toBe(true);
    }
    // Most ways end in an entry that isn't present.
    expect(found).toBeGreaterThan(20);
  });

  it('finds nothing at an address that isn’t canonical', () => {
    state.set(CR0, CR0_PG);
    state.set(CR4, PAE);
    state.set(EFER, LMA);
    expect([debugWalk(state, ram, 0, 0x8000), debugWalk(state, ram, 0, 0x01000000)]).toEqual([-1, -1]);
  });
});

/** Beyond memory there is nothing present. */
function readAt(pa: bigint, bytes: 4 | 8): bigint {
  const at = Number(pa);
  if (at + bytes > ram.byteLength) return 0n;
  return bytes === 4 ? BigInt(ram.getUint32(at, true)) : ram.getBigUint64(at, true);
}
