/** Who may use an instruction. */
import type { Cpu } from '../cpu.ts';
import { CPL, CR4 } from '../state.ts';
import { generalProtection, type HelperFunction } from './outcome.ts';

/** Only in ring 0. */
export const supervisor = (f: HelperFunction): HelperFunction => {
  return (cpu, record) => (cpu.state.get(CPL) !== 0 ? generalProtection(cpu) : f(cpu, record));
};

const CR4_UMIP = 1 << 11;

/** SGDT and its like leak kernel addresses: UMIP keeps them from programs. */
export const withUmip = (f: HelperFunction): HelperFunction => {
  return (cpu, record) => {
    const kept = cpu.state.get(CPL) !== 0 && (cpu.state.get(CR4) & CR4_UMIP) !== 0;
    return kept ? generalProtection(cpu) : f(cpu, record);
  };
};

/** Width of control registers and of table bases. */
export const controlBytes = (cpu: Cpu): number => (cpu.mode === 2 ? 8 : 4);
