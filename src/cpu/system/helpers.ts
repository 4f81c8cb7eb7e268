/** Instructions in TypeScript, by the names that the instruction table gives them. */
import { CONTROL_REGISTERS } from './control-registers.ts';
import { DEBUG_REGISTERS } from './debug-registers.ts';
import { DESCRIPTOR_TABLES } from './descriptor-tables.ts';
import { FAR_TRANSFERS } from './far-transfers.ts';
import { FXSAVE } from './fxsave.ts';
import { INVALIDATION } from './invalidation.ts';
import { LEGACY } from './legacy.ts';
import { MISC } from './misc.ts';
import { MODEL_SPECIFIC } from './model-specific.ts';
import type { HelperFunction } from './outcome.ts';
import { PORTS } from './ports.ts';
import { RETURNS } from './returns.ts';
import { SEGMENT_QUERIES } from './segment-queries.ts';
import { SEGMENT_REGISTERS } from './segment-registers.ts';
import { SOFTWARE_INTERRUPTS } from './software-interrupts.ts';
import { STACK_INSTRUCTIONS } from './stack-instructions.ts';
import { SYSTEM_CALLS } from './system-calls.ts';
import { AES } from '../vector/aes.ts';
import { VECTOR_ESTIMATES } from '../vector/estimate.ts';
import { VECTOR_FLOAT } from '../vector/float.ts';
import { VECTOR_STRINGS } from '../vector/strings.ts';
import { XSAVE } from './xsave.ts';
import { X87 } from '../x87/escape.ts';

export const helperFunctions: Record<string, HelperFunction> = {
  ...FAR_TRANSFERS,
  ...RETURNS,
  ...SOFTWARE_INTERRUPTS,
  ...SYSTEM_CALLS,
  ...STACK_INSTRUCTIONS,
  ...CONTROL_REGISTERS,
  ...DEBUG_REGISTERS,
  ...MODEL_SPECIFIC,
  ...DESCRIPTOR_TABLES,
  ...SEGMENT_REGISTERS,
  ...SEGMENT_QUERIES,
  ...INVALIDATION,
  ...PORTS,
  ...LEGACY,
  ...MISC,
  ...X87,
  ...FXSAVE,
  ...XSAVE,
  ...AES,
  ...VECTOR_STRINGS,
  ...VECTOR_ESTIMATES,
  ...VECTOR_FLOAT,
};
