export interface NestedCase {
  number: number;
  /** The guest's entries by level, 1 to 4, and their guest physical addresses. */
  entries: readonly bigint[];
  entryAt: readonly bigint[];
  guestLeaf: number;
  /** The nested entries on the way to the final address by level, 1 to 4, and their physical addresses. */
  nested: readonly bigint[];
  nestedAt: readonly bigint[];
  nestedLeaf: number;
  /** The nested level-1 entries that map the guest's tables, by the tables' levels, and their physical addresses. */
  tableEntries: readonly bigint[];
  tableEntryAt: readonly bigint[];
  va: bigint;
  /** The final guest physical address, and the physical one, if nothing stops the walk. */
  gpa: bigint;
  target: bigint;
  access: 'r' | 'w' | 'x' | 'i';
  cpl3: boolean;
  ac: boolean;
  cr0: bigint;
  cr3: bigint;
  cr4: bigint;
  efer: bigint;
  nxe: boolean;
  pkru: number;
  id: number;
}

export interface NestedAnswer {
  /** 0 done, 1 #PF, 2 nested fault, 3 another exit. */
  end: number;
  error: number;
  /** Bits 32 and 33 of the error code. */
  final: boolean;
  table: boolean;
  odd: boolean;
  /** 0 elsewhere, 1 to 4 the guest's entry of that level, 5 the final address, 6 the access's own. */
  where: number;
  hit: boolean;
  intact: boolean;
  /** A (bit 0) and D (bit 1) by level. */
  flags: number[];
  nestedFlags: number[];
  tableFlags: number[];
}

export const NESTED_SET: { name: 'nested'; count: number; seed: number };
export const NESTED_LOW_TABLE: bigint;
export const NESTED_RESULT_BYTES: number;
export const nestedTableOf: readonly bigint[];
export function makeNestedCases(): NestedCase[];
export function encodeNestedCases(cases: readonly NestedCase[]): Uint8Array;
export function decodeNestedResult(bytes: Uint8Array, number: number): NestedAnswer;
