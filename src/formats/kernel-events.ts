/**
 * The tracepoints as Linux 6.1 lays them out and prints them: C types and order of the fields, and the text of each event.
 * Everything that writes kernel-shaped traces (`ftrace.ts`, `trace-dat.ts`, `perfetto.ts`) takes both from here.
 *
 * A few of the kernel's fields are not in our records, because no recording can know them or because the model has none:
 * `pfn` of kvm_mmu_spte_requested, `intr_info` and `error_code` of kvm_exit. They are written as 0. `isa` stands in a bit of `exit_reason`.
 *
 * Source: Linux 6.1 arch/x86/kvm/mmu/mmutrace.h, arch/x86/kvm/trace.h, include/trace/events/kvm.h.
 */
import {
  EXIT_REASON_VMX,
  fieldWords,
  TP_AGE_HVA,
  TP_CHECK_MMIO_SPTE,
  TP_DIRTY_RING_EXIT,
  TP_DIRTY_RING_PUSH,
  TP_DIRTY_RING_RESET,
  TP_EMULATE_INSN,
  TP_ENTRY,
  TP_EXIT,
  TP_FAST_PAGE_FAULT,
  TP_GET_PAGE,
  TP_HANDLE_MMIO_PAGE_FAULT,
  TP_INJ_EXCEPTION,
  TP_MARK_MMIO_SPTE,
  TP_MMIO,
  TP_PAGE_FAULT,
  TP_PAGETABLE_WALK,
  TP_PAGING_ELEMENT,
  TP_PML_FULL,
  TP_PREPARE_ZAP_PAGE,
  TP_SET_ACCESSED_BIT,
  TP_SET_DIRTY_BIT,
  TP_SET_SPTE,
  TP_SET_SPTE_HVA,
  TP_SPLIT_HUGE_PAGE,
  TP_SPTE_REQUESTED,
  TP_SYNC_PAGE,
  TP_TDP_SPTE_CHANGED,
  TP_TEST_AGE_HVA,
  TP_UNMAP_HVA_RANGE,
  TP_UNSYNC_PAGE,
  TP_VCPU_MATCH_MMIO,
  TP_WALKER_ERROR,
  TP_ZAP_ALL_FAST,
  TRACEPOINT_BY_ID,
  type Tracepoint,
} from '../trace/tracepoints.ts';

/** A field of the kernel's record: C type, name, bytes, and its place after the common header. */
export interface KernelField {
  readonly type: string;
  readonly name: string;
  readonly bytes: number;
  readonly offset: number;
  readonly signed: boolean;
  /** Elements of an array, or 0. */
  readonly length: number;
}

export interface KernelEvent {
  readonly tracepoint: Tracepoint;
  readonly fields: readonly KernelField[];
  /** Of the record, the common header included. */
  readonly bytes: number;
  /** The event's text, as the kernel's own `trace` file has it. */
  readonly print: (record: RecordReader) => string;
  /** The text as a format description has it: a format and expressions over `REC`. */
  readonly printFormat: string;
}

/** common_type, common_flags, common_preempt_count, common_pid */
export const COMMON_BYTES = 8;

/** Bytes of the C types that occur; all are aligned to their size. */
// biome-ignore format: a table
const TYPE_BYTES: Readonly<Record<string, number>> = {
  __u8: 1, u8: 1, bool: 1, 'signed char': 1, int: 4, 'unsigned int': 4, unsigned: 4, u32: 4, __u32: 4,
  u64: 8, __u64: 8, gfn_t: 8, gpa_t: 8, gva_t: 8, 'unsigned long': 8, 'void *': 8, 'u64 *': 8,
};

const VMX_ISA = 1;
const SVM_ISA = 2;
const RET_PF_FIXED = 4;
const RET_PF_SPURIOUS = 5;
const ACCESS = ['---', '--x', 'w--', 'w-x', '-u-', '-ux', 'wu-', 'wux'];
// biome-ignore format: a table
const PFERR = [[1, 'P'], [2, 'W'], [4, 'U'], [8, 'RSVD'], [16, 'F']] as const;
const VMX_EXITS: Readonly<Record<number, string>> = {
  2: 'TRIPLE_FAULT',
  14: 'INVLPG',
  28: 'CR_ACCESS',
  30: 'IO_INSTRUCTION',
  48: 'EPT_VIOLATION',
  49: 'EPT_MISCONFIG',
  62: 'PML_FULL',
};
const SVM_EXITS: Readonly<Record<number, string>> = { 0x4e: 'PF excp', 0x7b: 'io', 0x7f: 'shutdown', 0x400: 'npf' };
const MMIO_TYPES: Readonly<Record<number, string>> = { 0: 'unsatisfied-read', 1: 'read', 2: 'write' };
const EMULATION_MODES: Readonly<Record<number, string>> = {
  0: 'real',
  3: 'vm16',
  1: 'prot16',
  5: 'prot32',
  9: 'prot64',
};
// biome-ignore format: a table
const EXCEPTIONS: Readonly<Record<number, string>> = {
  0: '#DE', 1: '#DB', 3: '#BP', 4: '#OF', 5: '#BR', 6: '#UD', 7: '#NM', 8: '#DF', 10: '#TS', 11: '#NP', 12: '#SS',
  13: '#GP', 14: '#PF', 16: '#MF', 17: '#AC', 18: '#MC',
};

/** Looks into one record of the ring after the other. */
export class RecordReader {
  event: KernelEvent = KERNEL_EVENTS[0];
  private words = new Int32Array(0);
  private at = 0;
  private readonly tableBasePfn: number;

  constructor(tableBasePfn: number) {
    this.tableBasePfn = tableBasePfn;
  }

  load(words: Int32Array, at: number): this {
    const event = KERNEL_EVENT_BY_ID.get(words[at]);
    if (event === undefined) throw new Error(`a record has the unknown event number ${words[at]}`);
    this.event = event;
    this.words = words as Int32Array<ArrayBuffer>;
    this.at = at;
    return this;
  }

  /** The low word of a field, signed; 0 for one that our records don't have. */
  word(name: string): number {
    if (name === 'isa') return this.isVmx() ? VMX_ISA : SVM_ISA;
    const place = this.placeOf(name);
    if (place === undefined) return 0;
    const word = this.words[this.at + place.word];
    return name === 'exit_reason' ? word & ~EXIT_REASON_VMX : word;
  }

  private isVmx(): boolean {
    const place = this.placeOf('exit_reason');
    return place !== undefined && (this.words[this.at + place.word] & EXIT_REASON_VMX) !== 0;
  }

  /** The high word: of a 64-bit field its own, else 0. */
  high(name: string): number {
    const place = this.placeOf(name);
    return place === undefined || place.words !== 2 ? 0 : this.words[this.at + place.word + 1];
  }

  /** Low and high word as the kernel's field has them: an entry's place becomes its address. */
  value(name: string): readonly [lo: number, hi: number] {
    if (this.placeOf(name)?.kind !== 'sptep') return [this.word(name), this.high(name)];
    const sptep = this.word(name);
    const address = (this.tableBasePfn + (sptep >>> 9)) * 4096 + (sptep & 511) * 8;
    return [address | 0, Math.floor(address / 2 ** 32)];
  }

  /** The 15 bytes of an instruction. */
  bytes(name: string): Uint8Array {
    const at = this.at + (this.placeOf(name)?.word ?? 0);
    return new Uint8Array(this.words.slice(at, at + 4).buffer, 0, 15);
  }

  unsigned(name: string): number {
    return this.word(name) >>> 0;
  }

  /** Hexadecimal digits, as many as it takes, or padded with zeros. */
  hex(name: string, digits = 1): string {
    const [lo, hi] = this.value(name);
    const low = (lo >>> 0).toString(16);
    return (hi === 0 ? low : (hi >>> 0).toString(16) + low.padStart(8, '0')).padStart(digits, '0');
  }

  private placeOf(name: string): Place | undefined {
    return PLACES.get(this.event.tracepoint.id)?.get(name);
  }
}

interface Place {
  readonly word: number;
  readonly words: number;
  readonly kind: string;
}

/** Where each of our fields lies in a ring record, by event and name. */
const PLACES: ReadonlyMap<number, ReadonlyMap<string, Place>> = new Map(
  [...TRACEPOINT_BY_ID.values()].map(({ id, fields }) => {
    let word = 1;
    const places = fields.map(([name, kind]): [string, Place] => {
      const words = fieldWords(kind);
      const place = { word, words, kind };
      word += words;
      return [name, place];
    });
    return [id, new Map(places)];
  }),
);

// ---- texts -----------------------------------------------------------------------------------------------------------

/** @kvm kvm_mmu_trace_pferr_flags */
function pferr(value: number): string {
  const names: string[] = PFERR.filter(([bit]) => value & bit).map(([, name]) => name);
  const rest = (value & ~31) >>> 0;
  if (rest !== 0) names.push(`0x${rest.toString(16)}`);
  return names.join('|');
}

function symbol(names: Readonly<Record<number, string>>, value: number): string {
  return names[value] ?? `0x${(value >>> 0).toString(16)}`;
}

/** `%#llx`: no 0x before 0. */
function alternate(hex: string): string {
  return hex === '0' ? hex : `0x${hex}`;
}

/** `%#016lx`: 0x and 14 digits. */
function wideAlternate(r: RecordReader, name: string): string {
  const hex = r.hex(name);
  return hex === '0' ? '0'.repeat(16) : `0x${hex.padStart(14, '0')}`;
}

/** @kvm KVM_MMU_PAGE_PRINTK */
function page(r: RecordReader): string {
  const role = r.word('role');
  return (
    `sp gen ${r.unsigned('mmu_valid_gen')} gfn ${r.hex('gfn')} l${role & 15} ${role & (1 << 4) ? 4 : 8}-byte ` +
    `q${(role >>> 5) & 3}${role & (1 << 7) ? ' direct' : ''} ${ACCESS[(role >>> 8) & 7]}` +
    `${role & (1 << 11) ? ' invalid' : ''} ${role & (1 << 12) ? '' : '!'}nxe ${role & (1 << 16) ? '!' : ''}ad ` +
    `root ${r.unsigned('root_count')} ${r.word('unsync') ? 'unsync' : 'sync'}`
  );
}

function emulated(r: RecordReader): string {
  const insn = Array.from(r.bytes('insn').subarray(0, r.word('len')), (byte) => byte.toString(16).padStart(2, '0'));
  return (
    `${r.hex('csbase')}:${r.hex('rip')}:${insn.join(' ')} (${symbol(EMULATION_MODES, r.word('flags'))})` +
    (r.word('failed') ? ' failed' : '')
  );
}

function exception(r: RecordReader): string {
  const code = r.word('has_error') ? ` (0x${r.hex('error_code')})` : '';
  return `${symbol(EXCEPTIONS, r.word('exception'))}${code}${r.word('reinjected') ? ' [reinjected]' : ''}`;
}

function ringUsed(r: RecordReader): number {
  return (r.word('dirty_index') - r.word('reset_index')) >>> 0;
}

function vcpuExit(r: RecordReader): string {
  return (
    `vcpu ${r.unsigned('vcpu_id')} reason ${symbol(r.word('isa') === VMX_ISA ? VMX_EXITS : SVM_EXITS, r.word('exit_reason'))} rip 0x${r.hex('guest_rip')} ` +
    `info1 0x${r.hex('info1', 16)} info2 0x${r.hex('info2', 16)} intr_info 0x00000000 error_code 0x00000000`
  );
}

function fastPageFault(r: RecordReader): string {
  const ret = r.word('ret');
  return (
    `vcpu ${r.word('vcpu_id')} gva ${r.hex('cr2_or_gpa')} error_code ${pferr(r.word('error_code'))} ` +
    `sptep ${r.hex('sptep', 16)} old ${alternate(r.hex('old_spte'))} new ${r.hex('new_spte')} ` +
    `spurious ${ret === RET_PF_SPURIOUS ? 1 : 0} fixed ${ret === RET_PF_FIXED ? 1 : 0}`
  );
}

function setSpte(r: RecordReader): string {
  const rights =
    (r.word('r') ? 'r' : '-') +
    (r.word('spte') & 2 ? 'w' : '-') +
    (r.word('x') ? 'x' : '-') +
    (r.word('u') ? 'u' : '-');
  return `gfn ${r.hex('gfn')} spte ${r.hex('spte')} (${rights}) level ${r.word('level')} at ${r.hex('sptep')}`;
}

// ---- the same as format descriptions -----------------------------------------------------------------------------------

const flagsFormat = (field: string): string =>
  `__print_flags(REC->${field}, "|", ${PFERR.map(([bit, name]) => `{ ${bit}, "${name}" }`).join(', ')})`;
const symbolFormat = (value: string, names: Readonly<Record<number, string>> | readonly string[]): string =>
  `__print_symbolic(${value}, ${Object.entries(names)
    .map(([number, name]) => `{ ${number}, "${name}" }`)
    .join(', ')})`;

const PAGE_TEXT = 'sp gen %u gfn %llx l%u %u-byte q%u%s %s%s %snxe %sad root %u %s';
const PAGE_ARGUMENTS = [
  'REC->mmu_valid_gen',
  'REC->gfn',
  'REC->role & 15',
  '(REC->role & 16) ? 4 : 8',
  '(REC->role >> 5) & 3',
  '(REC->role & 128) ? " direct" : ""',
  symbolFormat('(REC->role >> 8) & 7', ACCESS),
  '(REC->role & 2048) ? " invalid" : ""',
  '(REC->role & 4096) ? "" : "!"',
  '(REC->role & 65536) ? "!" : ""',
  'REC->root_count',
  'REC->unsync ? "unsync" : "sync"',
].join(', ');
const PAGE_FORMAT = `"${PAGE_TEXT}", ${PAGE_ARGUMENTS}`;

const PAGE_FIELDS = ['__u8 mmu_valid_gen', '__u64 gfn', '__u32 role', '__u32 root_count', 'bool unsync'];
const PFERR_FORMAT = `"pferr %x %s", REC->pferr, ${flagsFormat('pferr')}`;

// biome-ignore format: a table
export const KERNEL_EVENTS: readonly KernelEvent[] = [
  define(TP_PAGETABLE_WALK, ['__u64 addr', '__u32 pferr'],
    (r) => `addr ${r.hex('addr')} pferr ${r.hex('pferr')} ${pferr(r.word('pferr'))}`,
    `"addr %llx pferr %x %s", REC->addr, REC->pferr, ${flagsFormat('pferr')}`),
  define(TP_PAGING_ELEMENT, ['__u64 pte', '__u32 level'],
    (r) => `pte ${r.hex('pte')} level ${r.unsigned('level')}`,
    '"pte %llx level %u", REC->pte, REC->level'),
  define(TP_SET_ACCESSED_BIT, ['__u64 gpa'], (r) => `gpa ${r.hex('gpa')}`, '"gpa %llx", REC->gpa'),
  define(TP_SET_DIRTY_BIT, ['__u64 gpa'], (r) => `gpa ${r.hex('gpa')}`, '"gpa %llx", REC->gpa'),
  define(TP_WALKER_ERROR, ['__u32 pferr'], (r) => `pferr ${r.hex('pferr')} ${pferr(r.word('pferr'))}`, PFERR_FORMAT),
  define(TP_GET_PAGE, [...PAGE_FIELDS, 'bool created'],
    (r) => `${page(r)} ${r.word('created') ? 'new' : 'existing'}`,
    `"${PAGE_TEXT} %s", ${PAGE_ARGUMENTS}, REC->created ? "new" : "existing"`),
  define(TP_SYNC_PAGE, PAGE_FIELDS, page, PAGE_FORMAT),
  define(TP_UNSYNC_PAGE, PAGE_FIELDS, page, PAGE_FORMAT),
  define(TP_PREPARE_ZAP_PAGE, PAGE_FIELDS, page, PAGE_FORMAT),
  define(TP_MARK_MMIO_SPTE, ['void * sptep', 'gfn_t gfn', 'unsigned access', 'unsigned int gen'],
    (r) => `sptep:${r.hex('sptep', 16)} gfn ${r.hex('gfn')} access ${r.hex('access')} gen ${r.hex('gen')}`,
    '"sptep:%p gfn %llx access %x gen %x", REC->sptep, REC->gfn, REC->access, REC->gen'),
  define(TP_HANDLE_MMIO_PAGE_FAULT, ['u64 addr', 'gfn_t gfn', 'unsigned access'],
    (r) => `addr:${r.hex('addr')} gfn ${r.hex('gfn')} access ${r.hex('access')}`,
    '"addr:%llx gfn %llx access %x", REC->addr, REC->gfn, REC->access'),
  define(TP_CHECK_MMIO_SPTE, ['unsigned int kvm_gen', 'unsigned int spte_gen', 'u64 spte'],
    (r) => `spte ${r.hex('spte')} kvm_gen ${r.hex('kvm_gen')} spte-gen ${r.hex('spte_gen')} ` +
      `valid ${r.word('kvm_gen') === r.word('spte_gen') ? 1 : 0}`,
    '"spte %llx kvm_gen %x spte-gen %x valid %d", REC->spte, REC->kvm_gen, REC->spte_gen, REC->kvm_gen == REC->spte_gen'),
  define(TP_FAST_PAGE_FAULT,
    ['int vcpu_id', 'gpa_t cr2_or_gpa', 'u32 error_code', 'u64 * sptep', 'u64 old_spte', 'u64 new_spte', 'int ret'],
    fastPageFault,
    `"vcpu %d gva %llx error_code %s sptep %p old %#llx new %llx spurious %d fixed %d", REC->vcpu_id, REC->cr2_or_gpa, ` +
      `${flagsFormat('error_code')}, REC->sptep, REC->old_spte, REC->new_spte, REC->ret == 5, REC->ret == 4`),
  define(TP_ZAP_ALL_FAST, ['__u8 mmu_valid_gen', 'unsigned int mmu_used_pages'],
    (r) => `kvm-mmu-valid-gen ${r.unsigned('mmu_valid_gen')} used_pages ${r.hex('mmu_used_pages')}`,
    '"kvm-mmu-valid-gen %u used_pages %x", REC->mmu_valid_gen, REC->mmu_used_pages'),
  define(TP_SET_SPTE,
    ['u64 gfn', 'u64 spte', 'u64 sptep', 'u8 level', 'bool r', 'bool x', 'signed char u'],
    setSpte,
    '"gfn %llx spte %llx (%s%s%s%s) level %d at %llx", REC->gfn, REC->spte, REC->r ? "r" : "-", ' +
      '(REC->spte & 2) ? "w" : "-", REC->x ? "x" : "-", REC->u == -1 ? "" : (REC->u ? "u" : "-"), REC->level, REC->sptep'),
  define(TP_SPTE_REQUESTED, ['u64 gfn', 'u64 pfn', 'u8 level'],
    (r) => `gfn ${r.hex('gfn')} pfn ${r.hex('pfn')} level ${r.word('level')}`,
    '"gfn %llx pfn %llx level %d", REC->gfn, REC->pfn, REC->level'),
  define(TP_SPLIT_HUGE_PAGE, ['u64 gfn', 'u64 spte', 'int level', 'int errno'],
    (r) => `gfn ${r.hex('gfn')} spte ${r.hex('spte')} level ${r.word('level')} errno ${r.word('errno')}`,
    '"gfn %llx spte %llx level %d errno %d", REC->gfn, REC->spte, REC->level, REC->errno'),
  define(TP_TDP_SPTE_CHANGED, ['u64 gfn', 'u64 old_spte', 'u64 new_spte', 'u8 level', 'u8 as_id'],
    (r) => `as id ${r.word('as_id')} gfn ${r.hex('gfn')} level ${r.word('level')} ` +
      `old_spte ${r.hex('old_spte')} new_spte ${r.hex('new_spte')}`,
    '"as id %d gfn %llx level %d old_spte %llx new_spte %llx", REC->as_id, REC->gfn, REC->level, REC->old_spte, ' +
      'REC->new_spte'),
  define(TP_PAGE_FAULT, ['unsigned int vcpu_id', 'unsigned long guest_rip', 'u64 fault_address', 'u64 error_code'],
    (r) => `vcpu ${r.unsigned('vcpu_id')} rip 0x${r.hex('guest_rip')} address 0x${r.hex('fault_address', 16)} ` +
      `error_code 0x${r.hex('error_code')}`,
    '"vcpu %u rip 0x%lx address 0x%016llx error_code 0x%llx", REC->vcpu_id, REC->guest_rip, REC->fault_address, ' +
      'REC->error_code'),
  define(TP_MMIO, ['u32 type', 'u32 len', 'u64 gpa', 'u64 val'],
    (r) => `mmio ${symbol(MMIO_TYPES, r.word('type'))} len ${r.unsigned('len')} gpa 0x${r.hex('gpa')} val 0x${r.hex('val')}`,
    `"mmio %s len %u gpa 0x%llx val 0x%llx", ${symbolFormat('REC->type', MMIO_TYPES)}, REC->len, REC->gpa, REC->val`),
  define(TP_VCPU_MATCH_MMIO, ['gva_t gva', 'gpa_t gpa', 'bool write', 'bool gpa_match'],
    (r) => `gva ${alternate(r.hex('gva'))} gpa ${alternate(r.hex('gpa'))} ${r.word('write') ? 'Write' : 'Read'} ` +
      (r.word('gpa_match') ? 'GPA' : 'GVA'),
    '"gva %#lx gpa %#llx %s %s", REC->gva, REC->gpa, REC->write ? "Write" : "Read", REC->gpa_match ? "GPA" : "GVA"'),
  // The kernel gives its error codes no names at all, which trace-cmd cannot parse: here one that never occurs.
  define(TP_INJ_EXCEPTION, ['u8 exception', 'u8 has_error', 'u32 error_code', 'bool reinjected'],
    exception,
    `"%s%s%s%s%s", ${symbolFormat('REC->exception', EXCEPTIONS)}, REC->has_error ? " (" : "", ` +
      'REC->has_error ? __print_symbolic(REC->error_code, { -1, "" }) : "", REC->has_error ? ")" : "", ' +
      'REC->reinjected ? " [reinjected]" : ""'),
  define(TP_UNMAP_HVA_RANGE, ['unsigned long start', 'unsigned long end'],
    (r) => `mmu notifier unmap range: ${wideAlternate(r, 'start')} -- ${wideAlternate(r, 'end')}`,
    '"mmu notifier unmap range: %#016lx -- %#016lx", REC->start, REC->end'),
  define(TP_SET_SPTE_HVA, ['unsigned long hva'],
    (r) => `mmu notifier set pte hva: ${wideAlternate(r, 'hva')}`,
    '"mmu notifier set pte hva: %#016lx", REC->hva'),
  define(TP_AGE_HVA, ['unsigned long start', 'unsigned long end'],
    (r) => `mmu notifier age hva: ${wideAlternate(r, 'start')} -- ${wideAlternate(r, 'end')}`,
    '"mmu notifier age hva: %#016lx -- %#016lx", REC->start, REC->end'),
  define(TP_TEST_AGE_HVA, ['unsigned long hva'],
    (r) => `mmu notifier test age hva: ${wideAlternate(r, 'hva')}`,
    '"mmu notifier test age hva: %#016lx", REC->hva'),
  define(TP_ENTRY, ['unsigned int vcpu_id', 'unsigned long rip', 'bool immediate_exit'],
    (r) => `vcpu ${r.unsigned('vcpu_id')}, rip 0x${r.hex('rip')}${r.word('immediate_exit') ? '[immediate exit]' : ''}`,
    '"vcpu %u, rip 0x%lx%s", REC->vcpu_id, REC->rip, REC->immediate_exit ? "[immediate exit]" : ""'),
  define(TP_EXIT,
    ['unsigned int exit_reason', 'unsigned long guest_rip', 'u32 isa', 'u64 info1', 'u64 info2', 'u32 intr_info',
      'u32 error_code', 'unsigned int vcpu_id'],
    vcpuExit,
    `"vcpu %u reason %s rip 0x%lx info1 0x%016llx info2 0x%016llx intr_info 0x%08x error_code 0x%08x", REC->vcpu_id, ` +
      `(REC->isa == ${VMX_ISA}) ? ${symbolFormat('REC->exit_reason', VMX_EXITS)} : ` +
      `${symbolFormat('REC->exit_reason', SVM_EXITS)}, REC->guest_rip, REC->info1, REC->info2, REC->intr_info, ` +
      'REC->error_code'),
  define(TP_EMULATE_INSN, ['__u64 rip', '__u32 csbase', '__u8 len', '__u8 insn[15]', '__u8 flags', '__u8 failed'],
    emulated,
    `"%x:%llx:%s (%s)%s", REC->csbase, REC->rip, __print_hex(REC->insn, REC->len), ` +
      `${symbolFormat('REC->flags', EMULATION_MODES)}, REC->failed ? " failed" : ""`),
  define(TP_DIRTY_RING_PUSH,
    ['int index', 'u32 dirty_index', 'u32 reset_index', 'u32 slot', 'u64 offset'],
    (r) => `ring ${r.word('index')}: dirty 0x${r.hex('dirty_index')} reset 0x${r.hex('reset_index')} slot ${r.unsigned('slot')} ` +
      `offset 0x${r.hex('offset')} (used ${ringUsed(r)})`,
    '"ring %d: dirty 0x%x reset 0x%x slot %u offset 0x%llx (used %u)", REC->index, REC->dirty_index, REC->reset_index, ' +
      'REC->slot, REC->offset, REC->dirty_index - REC->reset_index'),
  define(TP_DIRTY_RING_RESET, ['int index', 'u32 dirty_index', 'u32 reset_index'],
    (r) => `ring ${r.word('index')}: dirty 0x${r.hex('dirty_index')} reset 0x${r.hex('reset_index')} (used ${ringUsed(r)})`,
    '"ring %d: dirty 0x%x reset 0x%x (used %u)", REC->index, REC->dirty_index, REC->reset_index, ' +
      'REC->dirty_index - REC->reset_index'),
  define(TP_PML_FULL, ['unsigned int vcpu_id'], (r) => `vcpu ${r.word('vcpu_id')}: PML full`,
    '"vcpu %d: PML full", REC->vcpu_id'),
  define(TP_DIRTY_RING_EXIT, ['int vcpu_id'], (r) => `vcpu ${r.word('vcpu_id')}`, '"vcpu %d", REC->vcpu_id'),
];

export const KERNEL_EVENT_BY_ID: ReadonlyMap<number, KernelEvent> = new Map(
  KERNEL_EVENTS.map((event) => [event.tracepoint.id, event]),
);

function define(
  id: number,
  declarations: readonly string[],
  print: KernelEvent['print'],
  printFormat: string,
): KernelEvent {
  const tracepoint = TRACEPOINT_BY_ID.get(id);
  if (tracepoint === undefined) throw new Error(`there is no tracepoint ${id}`);
  const fields: KernelField[] = [];
  let offset = COMMON_BYTES;
  for (const declaration of declarations) {
    const [, type, name, length] = /^(.*) (\w+)(?:\[(\d+)\])?$/.exec(declaration) ?? [];
    const element = TYPE_BYTES[type];
    if (element === undefined) throw new Error(`'${declaration}' has no known type`);
    const count = Number(length ?? 0);
    const bytes = element * Math.max(1, count);
    offset = Math.ceil(offset / element) * element;
    fields.push({ type, name, bytes, offset, signed: type === 'int' || type === 'signed char', length: count });
    offset += bytes;
  }
  return { tracepoint, fields, bytes: offset, print, printFormat };
}

// Check at import: each tracepoint is here, and none of our fields is lost.
for (const { id, name, fields } of TRACEPOINT_BY_ID.values()) {
  const event = KERNEL_EVENT_BY_ID.get(id);
  if (event === undefined) throw new Error(`${name} has no layout`);
  for (const [field] of fields) {
    if (!event.fields.some((known) => known.name === field)) throw new Error(`${name} has no field ${field}`);
  }
}
