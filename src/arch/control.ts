/**
 * Control registers: the bits that have a name. All of them lie in the low word.
 */
import { checkLayout } from './layout.ts';

export const CR0_PE = 1 << 0;
export const CR0_MP = 1 << 1;
export const CR0_EM = 1 << 2;
export const CR0_TS = 1 << 3;
export const CR0_ET = 1 << 4;
export const CR0_NE = 1 << 5;
export const CR0_WP = 1 << 16;
export const CR0_AM = 1 << 18;
export const CR0_NW = 1 << 29;
export const CR0_CD = 1 << 30;
export const CR0_PG = (1 << 31) | 0;

export const CR3_PWT = 1 << 3;
export const CR3_PCD = 1 << 4;
/** With CR4.PCIDE: the process-context identifier. */
export const CR3_PCID = 0xfff;
/** Bit 63 of the value given to MOV CR3: keep this PCID's translations. It isn't stored. */
export const CR3_NOFLUSH_HI = (1 << 31) | 0;
/** PAE: the table of four entries is aligned to 32 bytes. */
export const CR3_PAE_TABLE_LO = 0xffffffe0 | 0;
export const CR3_TABLE_LO = 0xfffff000 | 0;

export const CR4_VME = 1 << 0;
export const CR4_PVI = 1 << 1;
export const CR4_TSD = 1 << 2;
export const CR4_DE = 1 << 3;
export const CR4_PSE = 1 << 4;
export const CR4_PAE = 1 << 5;
export const CR4_MCE = 1 << 6;
export const CR4_PGE = 1 << 7;
export const CR4_PCE = 1 << 8;
export const CR4_OSFXSR = 1 << 9;
export const CR4_OSXMMEXCPT = 1 << 10;
export const CR4_UMIP = 1 << 11;
export const CR4_LA57 = 1 << 12;
export const CR4_VMXE = 1 << 13;
export const CR4_SMXE = 1 << 14;
export const CR4_FSGSBASE = 1 << 16;
export const CR4_PCIDE = 1 << 17;
export const CR4_OSXSAVE = 1 << 18;
export const CR4_SMEP = 1 << 20;
export const CR4_SMAP = 1 << 21;
export const CR4_PKE = 1 << 22;
export const CR4_CET = 1 << 23;
export const CR4_PKS = 1 << 24;

export const EFER_SCE = 1 << 0;
export const EFER_LME = 1 << 8;
export const EFER_LMA = 1 << 10;
export const EFER_NX = 1 << 11;
export const EFER_SVME = 1 << 12;
export const EFER_LMSLE = 1 << 13;
export const EFER_FFXSR = 1 << 14;

/** EFLAGS.AC: explicit supervisor accesses to user pages are allowed under SMAP. */
export const RFLAGS_AC = 1 << 18;

checkLayout(
  'cr0',
  [
    ['PE', CR0_PE, 0],
    ['MP', CR0_MP, 0],
    ['EM', CR0_EM, 0],
    ['TS', CR0_TS, 0],
    ['ET', CR0_ET, 0],
    ['NE', CR0_NE, 0],
    ['WP', CR0_WP, 0],
    ['AM', CR0_AM, 0],
    ['NW', CR0_NW, 0],
    ['CD', CR0_CD, 0],
    ['PG', CR0_PG, 0],
  ],
  0xe005003f,
  0,
);
checkLayout(
  'cr4',
  [
    ['VME', CR4_VME, 0],
    ['PVI', CR4_PVI, 0],
    ['TSD', CR4_TSD, 0],
    ['DE', CR4_DE, 0],
    ['PSE', CR4_PSE, 0],
    ['PAE', CR4_PAE, 0],
    ['MCE', CR4_MCE, 0],
    ['PGE', CR4_PGE, 0],
    ['PCE', CR4_PCE, 0],
    ['OSFXSR', CR4_OSFXSR, 0],
    ['OSXMMEXCPT', CR4_OSXMMEXCPT, 0],
    ['UMIP', CR4_UMIP, 0],
    ['LA57', CR4_LA57, 0],
    ['VMXE', CR4_VMXE, 0],
    ['SMXE', CR4_SMXE, 0],
    ['FSGSBASE', CR4_FSGSBASE, 0],
    ['PCIDE', CR4_PCIDE, 0],
    ['OSXSAVE', CR4_OSXSAVE, 0],
    ['SMEP', CR4_SMEP, 0],
    ['SMAP', CR4_SMAP, 0],
    ['PKE', CR4_PKE, 0],
    ['CET', CR4_CET, 0],
    ['PKS', CR4_PKS, 0],
  ],
  0x01f77fff,
  0,
);
checkLayout(
  'efer',
  [
    ['SCE', EFER_SCE, 0],
    ['LME', EFER_LME, 0],
    ['LMA', EFER_LMA, 0],
    ['NX', EFER_NX, 0],
    ['SVME', EFER_SVME, 0],
    ['LMSLE', EFER_LMSLE, 0],
    ['FFXSR', EFER_FFXSR, 0],
  ],
  0x7d01,
  0,
);
