import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TableArena } from './table-arena.ts';

const WORDS = 1024;
const contents = (arena: TableArena, table: number): Int32Array =>
  arena.words.subarray(table * WORDS, (table + 1) * WORDS);

describe('an arena', () => {
  it('hands out tables from 1 on, never 0', () => {
    const arena = new TableArena(4);
    expect([arena.alloc(), arena.alloc(), arena.alloc()]).toEqual([1, 2, 3]);
    expect([arena.used, arena.capacity]).toEqual([3, 4]);
  });

  it('doubles when it is full, tells so, and keeps what is in the tables', () => {
    const arena = new TableArena(2);
    const told: number[] = [];
    arena.onGrow = (tables) => told.push(tables);
    for (let table = arena.alloc(); table < 9; table = arena.alloc()) contents(arena, table).fill(table);
    expect(told).toEqual([4, 8, 16]);
    expect(arena.capacity).toBe(16);
    for (let table = 1; table < 9; table++) expect(contents(arena, table).every((word) => word === table)).toBe(true);
    expect(contents(arena, 0).every((word) => word === 0)).toBe(true);
  });

  it('uses a freed table again, zeroed', () => {
    const arena = new TableArena();
    const table = arena.alloc();
    contents(arena, table).fill(-1);
    arena.free(table);
    expect(arena.used).toBe(0);
    expect(arena.alloc()).toBe(table);
    expect(contents(arena, table).every((word) => word === 0)).toBe(true);
  });

  it('never hands out a table that is in use, and hands each out zeroed', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -8, max: 8 }), { maxLength: 60 }), (steps) => {
        const arena = new TableArena(2);
        const live: number[] = [];
        for (const step of steps) {
          if (step >= 0 || live.length === 0) {
            const table = arena.alloc();
            if (contents(arena, table).some((word) => word !== 0)) throw new Error(`table ${table} is not zeroed`);
            contents(arena, table).fill(table);
            live.push(table);
          } else arena.free(live.splice(-step % live.length, 1)[0]);
          expect(arena.used).toBe(live.length);
          expect(new Set(live).size).toBe(live.length);
        }
        for (const table of live) expect(contents(arena, table).every((word) => word === table)).toBe(true);
      }),
    );
  });
});
