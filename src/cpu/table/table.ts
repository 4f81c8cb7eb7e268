/** The whole instruction table. */
import { INTEGER } from './integer.ts';
import type { Row } from './row.ts';
import { SSE } from './sse.ts';
import { SYSTEM } from './system.ts';
import { X87 } from './x87.ts';

export const INSTRUCTION_TABLE: readonly Row[] = [...INTEGER, ...SYSTEM, ...SSE, ...X87];
