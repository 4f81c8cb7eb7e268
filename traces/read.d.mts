/** Types of the reference reader, for the tests that hold ours against it. */
export interface ReferenceTrace {
  readonly header: { readonly name: string; readonly epochs: number; readonly vcpus: number };
  readonly populated: Uint8Array;
  readonly records: Uint32Array;
  epochs(): Generator<{
    epoch: number;
    vcpus: { insns: number; loads: number; stores: number; records: Uint32Array }[];
  }>;
}
export function openTrace(bytes: Uint8Array): ReferenceTrace;
