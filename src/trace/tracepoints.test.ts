import { describe, expect, it } from 'vitest';
import * as tracepoints from './tracepoints.ts';

const { fieldWords, RECORD_WORDS, TRACEPOINT_BY_ID, TRACEPOINTS } = tracepoints;

describe('the catalogue', () => {
  it('has a tracepoint for each number that has a name', () => {
    const numbers = Object.entries(tracepoints)
      .filter(([name]) => name.startsWith('TP_'))
      .map(([, value]) => value);
    expect(new Set(numbers)).toEqual(new Set(TRACEPOINTS.map(({ id }) => id)));
    expect(numbers).toHaveLength(TRACEPOINTS.length);
  });

  it('finds a tracepoint by its number', () => {
    for (const tracepoint of TRACEPOINTS) expect(TRACEPOINT_BY_ID.get(tracepoint.id)).toBe(tracepoint);
    expect(TRACEPOINT_BY_ID.get(0)).toBeUndefined();
  });

  it('has no name twice, and no field twice in one record', () => {
    expect(new Set(TRACEPOINTS.map(({ name }) => name)).size).toBe(TRACEPOINTS.length);
    for (const { name, fields } of TRACEPOINTS)
      expect(new Set(fields.map(([field]) => field)).size, name).toBe(fields.length);
  });

  it('keeps the events of the two systems apart', () => {
    for (const { id, system, name } of TRACEPOINTS) expect(id < 32, name).toBe(system === 'kvmmmu');
  });

  it('fits each record into its slot', () => {
    for (const { name, fields } of TRACEPOINTS)
      expect(
        fields.reduce((n, [, kind]) => n + fieldWords(kind), 1),
        name,
      ).toBeLessThanOrEqual(RECORD_WORDS);
  });
});

describe('fieldWords', () => {
  // biome-ignore format: a table
  it.each([
    ['i32',   1],
    ['h32',   1],
    ['h64',   2],
    ['spte',  2],
    ['sptep', 1],
    ['role',  1],
    ['gfn',   1],
    ['hva',   2],
    ['ret',   1],
  ] as const)('of %s is %i', (kind, words) => {
    expect(fieldWords(kind)).toBe(words);
  });
});
