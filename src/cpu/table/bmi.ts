/** BMI1 and BMI2, behind VEX. TZCNT, which isn't, is in `integer.ts`. */
import * as f from '../semantics/bit-fields.ts';
import { MULX } from '../semantics/multiply.ts';
import { type Row, row } from './row.ts';

export const BMI: readonly Row[] = [
  row('andn', 'vex np 0f38 f2 /r', 'Gy,By,Ey', f.ANDN, 'if:bmi1'),
  row('bextr', 'vex np 0f38 f7 /r', 'Gy,By,Ey', f.BEXTR, 'if:bmi1'),
  row('blsr', 'vex np 0f38 f3 /1', 'By,Ey', f.BLSR, 'if:bmi1'),
  row('blsmsk', 'vex np 0f38 f3 /2', 'By,Ey', f.BLSMSK, 'if:bmi1'),
  row('blsi', 'vex np 0f38 f3 /3', 'By,Ey', f.BLSI, 'if:bmi1'),
  row('bzhi', 'vex np 0f38 f5 /r', 'Gy,By,Ey', f.BZHI, 'if:bmi2'),
  row('pext', 'vex f3 0f38 f5 /r', 'Gy,By,Ey', f.PEXT, 'if:bmi2'),
  row('pdep', 'vex f2 0f38 f5 /r', 'Gy,By,Ey', f.PDEP, 'if:bmi2'),
  row('mulx', 'vex f2 0f38 f6 /r', 'Gy,By,Ey', MULX, 'if:bmi2'),
  row('shlx', 'vex 66 0f38 f7 /r', 'Gy,By,Ey', f.SHLX, 'if:bmi2'),
  row('sarx', 'vex f3 0f38 f7 /r', 'Gy,By,Ey', f.SARX, 'if:bmi2'),
  row('shrx', 'vex f2 0f38 f7 /r', 'Gy,By,Ey', f.SHRX, 'if:bmi2'),
  row('rorx', 'vex f2 0f3a f0 /r', 'Gy,Ey,Ib', f.RORX, 'if:bmi2'),
].flat();
