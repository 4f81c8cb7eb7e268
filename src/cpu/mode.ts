/** The mode that instructions are decoded in, from the registers that decide it. */
import type { CpuState } from './cpu-state.ts';
import { FPU_ALL, FPU_NO_SSE, FPU_OFF, MODE_16, MODE_32, MODE_64, MODE_REAL, MODES } from './decoder.ts';
import { CR0, CR4, CS, SEGMENT_ATTRIBUTES, SEGMENT_BYTES, SEGMENTS } from './state.ts';

const DESCRIPTOR_LONG = 1 << 21;
const DESCRIPTOR_BIG = 1 << 22;
const CR0_EM = 1 << 2;
const CR0_TS = 1 << 3;
const CR4_OSFXSR = 1 << 9;

/** That of the code segment. */
export function modeOf(state: CpuState): number {
  const attributes = state.get(SEGMENTS + CS * SEGMENT_BYTES + SEGMENT_ATTRIBUTES);
  if (state.longMode && attributes & DESCRIPTOR_LONG) return MODE_64;
  return attributes & DESCRIPTOR_BIG ? MODE_32 : MODE_16;
}

/** What CR0 and CR4 leave of MMX and SSE. */
function fpuLevel(state: CpuState): number {
  if (state.get(CR0) & (CR0_EM | CR0_TS)) return FPU_OFF;
  return state.get(CR4) & CR4_OSFXSR ? FPU_ALL : FPU_NO_SSE;
}

export function decodeModeOf(state: CpuState): number {
  const mode = modeOf(state);
  return (mode !== MODE_64 && state.realSegments ? MODE_REAL + mode : mode) + MODES * fpuLevel(state);
}
