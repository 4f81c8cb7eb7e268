import { describe, expect, it } from 'vitest';
import { EFAULT } from '../base/errno.ts';
import { LEVEL_2M } from '../base/page.ts';
import { FLAT_HVA, FLAT_PFN, FlatHost } from './flat-host.ts';

const BYTES = 4 << 20;

describe('a flat host', () => {
  it('maps every page, writable, at its one level, and nothing outside', () => {
    const host = new FlatHost({ bytes: BYTES, level: LEVEL_2M, sparse: true });
    expect(host.gupFast(FLAT_HVA)).toBe(FLAT_PFN);
    expect(host.gupSlow(FLAT_HVA + BYTES - 1, true)).toBe(FLAT_PFN + BYTES / 4096 - 1);
    expect(host.mappingLevel(FLAT_HVA)).toBe(LEVEL_2M);
    expect(host.gupFast(FLAT_HVA - 1)).toBe(-1);
    expect(host.gupSlow(FLAT_HVA + BYTES, false)).toBe(-EFAULT);
  });

  it('shows the same contents to the host and to hardware', () => {
    const host = new FlatHost({ bytes: BYTES, level: LEVEL_2M });
    expect(host.writeUser(FLAT_HVA + 4096 + 8, Uint8Array.of(1, 2, 3, 0x84), 4)).toBe(0);
    expect(host.phys.read32(FLAT_PFN + 1, 8)).toBe(0x84030201 | 0);
    host.phys.write8(FLAT_PFN + 1, 9, 7);
    const bytes = new Uint8Array(4);
    expect(host.readUser(FLAT_HVA + 4096 + 8, bytes, 4)).toBe(0);
    expect([...bytes]).toEqual([1, 7, 3, 0x84]);
    expect(host.readUser(FLAT_HVA + BYTES - 2, bytes, 4)).toBe(-EFAULT);
  });

  it('keeps no contents if it is sparse', () => {
    const host = new FlatHost({ bytes: BYTES, level: LEVEL_2M, sparse: true });
    host.phys.write32(FLAT_PFN, 0, -1);
    expect(host.writeUser(FLAT_HVA, Uint8Array.of(9), 1)).toBe(0);
    const bytes = Uint8Array.of(5);
    host.readUser(FLAT_HVA, bytes, 1);
    expect([bytes[0], host.phys.read32(FLAT_PFN, 0)]).toEqual([0, 0]);
  });
});
