import { gzipSync, gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { readPntrace } from '../formats/pntrace.ts';
import { encodePntrace } from '../formats/pntrace-encode.ts';
import { profileTrace } from './profile.ts';
import { syntheticTrace } from './synthetic.ts';

const bytesOf = (records: Uint32Array): Uint8Array =>
  new Uint8Array(records.buffer, records.byteOffset, records.byteLength);

describe('a synthetic guest', () => {
  it('is the same for the same seed and another for another', () => {
    const textOf = (seed: number): string => JSON.stringify(syntheticTrace(seed));
    const seven = textOf(7);
    expect(textOf(7) === seven).toBe(true);
    expect(textOf(8) === seven).toBe(false);
  });

  it('is a recording that the strict reader takes, whatever the seed', () => {
    for (let seed = 0; seed < 10; seed++) {
      const trace = syntheticTrace(seed);
      const file = encodePntrace(trace, (bytes) => gzipSync(bytes, { level: 1 }));
      const again = readPntrace(file, (packed) => gunzipSync(packed));
      expect(Buffer.compare(bytesOf(again.records), bytesOf(trace.records))).toBe(0);
    }
  });

  it('takes sizes that it is given', () => {
    const { header } = syntheticTrace(3, { regions: 2, epochs: 5, vcpus: 3 });
    expect([header.memBytes, header.epochs, header.vcpus]).toEqual([4 << 20, 5, 3]);
  });

  it('comes in many kinds: some that write nearly everywhere they read, some nearly nowhere', () => {
    const shares = Array.from({ length: 100 }, (_, seed) => {
      const { writtenRegions, touchedRegions, writtenBesideFirst } = profileTrace(syntheticTrace(seed));
      expect(writtenBesideFirst).toBeGreaterThan(0);
      return writtenRegions / touchedRegions;
    });
    expect(Math.min(...shares)).toBeLessThan(0.4);
    expect(Math.max(...shares)).toBe(1);
    expect(shares.filter((share) => share < 0.7).length).toBeGreaterThan(10);
  });
});
