export interface WalkSet {
  name: 'long' | 'la57' | 'pae' | '32';
  mode: 'long' | 'pae' | '32';
  levels: number;
  entryBytes: 4 | 8;
  count: number;
  seed: number;
}

export interface WalkCase {
  number: number;
  set: WalkSet['name'];
  mode: WalkSet['mode'];
  levels: number;
  entryBytes: 4 | 8;
  /** By level, 1 to 5; 0 where the path has none. */
  entries: readonly bigint[];
  /** Physical address of each entry, by level. */
  entryAt: readonly bigint[];
  /** Level at which the path ends if nothing stops it. */
  leafLevel: number;
  va: bigint;
  /** Physical address that the path leads to if nothing stops it. */
  target: bigint;
  /** 'i': an implicit read (LSL from a local descriptor table). */
  access: 'r' | 'w' | 'x' | 'i';
  cpl3: boolean;
  ac: boolean;
  cr0: bigint;
  cr3: bigint;
  cr4: bigint;
  efer: bigint;
  pkru: number;
  id: number;
}

export interface WalkAnswer {
  fault: boolean;
  error: number;
  cr2: boolean;
  /** A (bit 0) and D (bit 1) by level. */
  flags: number[];
  hit: boolean;
  intact: boolean;
  odd: boolean;
}

export const MAXPHYADDR: number;
export const tableOf: readonly bigint[];
export const RESULT_BYTES: number;
export const SETS: readonly WalkSet[];
export function makeCases(set: WalkSet): WalkCase[];
export function encodeCases(set: WalkSet, cases: readonly WalkCase[]): Uint8Array;
export function decodeResult(bytes: Uint8Array, number: number): WalkAnswer;
