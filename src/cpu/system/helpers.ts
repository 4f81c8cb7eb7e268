/** Instructions in TypeScript, by the names that the instruction table gives them. */
import { CONTROL } from './control.ts';
import { FLOW } from './flow.ts';
import { MISC } from './misc.ts';
import type { HelperFunction } from './outcome.ts';
import { X87 } from './x87.ts';

export const helperFunctions: Record<string, HelperFunction> = { ...FLOW, ...CONTROL, ...MISC, ...X87 };
