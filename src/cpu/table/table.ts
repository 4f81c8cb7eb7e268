/** The whole instruction table. */
import { BMI } from './bmi.ts';
import { INTEGER } from './integer.ts';
import type { Row } from './row.ts';
import { SSE } from './sse.ts';
import { SSE_LATER } from './sse-later.ts';
import { SYSTEM } from './system.ts';
import { X87 } from './x87.ts';

const withFlag = (rows: readonly Row[], flag: string): Row[] =>
  rows.map((row) =>
    row.flags.has('nofpu') || row.flags.has('mmx') ? row : { ...row, flags: new Set([...row.flags, flag]) },
  );

export const INSTRUCTION_TABLE: readonly Row[] = [
  ...INTEGER,
  ...SYSTEM,
  ...withFlag(SSE, 'sse'),
  ...withFlag(SSE_LATER, 'sse'),
  ...X87,
  ...BMI,
];
