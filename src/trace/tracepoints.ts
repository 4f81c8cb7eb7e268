/**
 * The catalogue of tracepoints: the kernel's names and fields. A record in the ring is the event's number followed by
 * its fields' words, in the order given here; a 64-bit field takes two (lo, hi). Decoding happens elsewhere, later.
 *
 * Source: Linux 6.1 arch/x86/kvm/mmu/mmutrace.h, arch/x86/kvm/trace.h, include/trace/events/kvm.h. Left out are
 * `kvm_mmu_spte_requested`'s pfn (a host frame number) and what depends on the host machine.
 */

/**
 * i32 decimal, h32 and h64 hexadecimal, spte a table entry, sptep its place, role a shadow page role, gfn a guest
 * frame number, hva a host address, ret a fast page fault's result, insn the 15 bytes of an instruction fetch.
 */
export type FieldKind = 'i32' | 'h32' | 'h64' | 'spte' | 'sptep' | 'role' | 'gfn' | 'hva' | 'ret' | 'insn';

export interface Tracepoint {
  readonly id: number;
  readonly system: 'kvm' | 'kvmmmu';
  readonly name: string;
  readonly fields: readonly (readonly [name: string, kind: FieldKind])[];
}

/** Words that a field takes in a record. */
export function fieldWords(kind: FieldKind): number {
  if (kind === 'insn') return 4;
  return kind === 'h64' || kind === 'spte' || kind === 'hva' ? 2 : 1;
}

const PAGE_FIELDS = [
  ['mmu_valid_gen', 'i32'],
  ['gfn', 'gfn'],
  ['role', 'role'],
  ['root_count', 'i32'],
  ['unsync', 'i32'],
] as const;

function kvmmmu(id: number, name: string, fields: Tracepoint['fields']): Tracepoint {
  return { id, system: 'kvmmmu', name, fields };
}
function kvm(id: number, name: string, fields: Tracepoint['fields']): Tracepoint {
  return { id, system: 'kvm', name, fields };
}

export const TP_PAGETABLE_WALK = 1;
export const TP_PAGING_ELEMENT = 2;
export const TP_SET_ACCESSED_BIT = 3;
export const TP_SET_DIRTY_BIT = 4;
export const TP_WALKER_ERROR = 5;
export const TP_GET_PAGE = 6;
export const TP_SYNC_PAGE = 7;
export const TP_UNSYNC_PAGE = 8;
export const TP_PREPARE_ZAP_PAGE = 9;
export const TP_MARK_MMIO_SPTE = 10;
export const TP_HANDLE_MMIO_PAGE_FAULT = 11;
export const TP_CHECK_MMIO_SPTE = 12;
export const TP_FAST_PAGE_FAULT = 13;
export const TP_ZAP_ALL_FAST = 14;
export const TP_SET_SPTE = 15;
export const TP_SPTE_REQUESTED = 16;
export const TP_SPLIT_HUGE_PAGE = 17;
export const TP_TDP_SPTE_CHANGED = 18;
export const TP_PAGE_FAULT = 32;
export const TP_MMIO = 33;
export const TP_VCPU_MATCH_MMIO = 34;
export const TP_INJ_EXCEPTION = 35;
export const TP_UNMAP_HVA_RANGE = 36;
export const TP_SET_SPTE_HVA = 37;
export const TP_AGE_HVA = 38;
export const TP_TEST_AGE_HVA = 39;
export const TP_ENTRY = 40;
export const TP_EXIT = 41;
export const TP_EMULATE_INSN = 42;
export const TP_DIRTY_RING_PUSH = 43;
export const TP_DIRTY_RING_RESET = 44;
export const TP_DIRTY_RING_EXIT = 45;
export const TP_PML_FULL = 46;

/**
 * In the word of kvm_exit's `exit_reason`: the reason is VMX's. In the kernel's record the field `isa` tells, which recordings,
 * all of them SVM's, leave out.
 */
export const EXIT_REASON_VMX = 1 << 16;

export const TRACEPOINTS: readonly Tracepoint[] = [
  kvmmmu(TP_PAGETABLE_WALK, 'kvm_mmu_pagetable_walk', [
    ['addr', 'h64'],
    ['pferr', 'h32'],
  ]),
  kvmmmu(TP_PAGING_ELEMENT, 'kvm_mmu_paging_element', [
    ['pte', 'h64'],
    ['level', 'i32'],
  ]),
  kvmmmu(TP_SET_ACCESSED_BIT, 'kvm_mmu_set_accessed_bit', [['gpa', 'h64']]),
  kvmmmu(TP_SET_DIRTY_BIT, 'kvm_mmu_set_dirty_bit', [['gpa', 'h64']]),
  kvmmmu(TP_WALKER_ERROR, 'kvm_mmu_walker_error', [['pferr', 'h32']]),
  kvmmmu(TP_GET_PAGE, 'kvm_mmu_get_page', [...PAGE_FIELDS, ['created', 'i32']]),
  kvmmmu(TP_SYNC_PAGE, 'kvm_mmu_sync_page', PAGE_FIELDS),
  kvmmmu(TP_UNSYNC_PAGE, 'kvm_mmu_unsync_page', PAGE_FIELDS),
  kvmmmu(TP_PREPARE_ZAP_PAGE, 'kvm_mmu_prepare_zap_page', PAGE_FIELDS),
  kvmmmu(TP_MARK_MMIO_SPTE, 'mark_mmio_spte', [
    ['sptep', 'sptep'],
    ['gfn', 'gfn'],
    ['access', 'h32'],
    ['gen', 'i32'],
  ]),
  kvmmmu(TP_HANDLE_MMIO_PAGE_FAULT, 'handle_mmio_page_fault', [
    ['addr', 'h64'],
    ['gfn', 'gfn'],
    ['access', 'h32'],
  ]),
  kvmmmu(TP_CHECK_MMIO_SPTE, 'check_mmio_spte', [
    ['kvm_gen', 'i32'],
    ['spte_gen', 'i32'],
    ['spte', 'spte'],
  ]),
  kvmmmu(TP_FAST_PAGE_FAULT, 'fast_page_fault', [
    ['vcpu_id', 'i32'],
    ['cr2_or_gpa', 'h64'],
    ['error_code', 'h64'],
    ['sptep', 'sptep'],
    ['old_spte', 'spte'],
    ['new_spte', 'spte'],
    ['ret', 'ret'],
  ]),
  kvmmmu(TP_ZAP_ALL_FAST, 'kvm_mmu_zap_all_fast', [
    ['mmu_valid_gen', 'i32'],
    ['mmu_used_pages', 'i32'],
  ]),
  kvmmmu(TP_SET_SPTE, 'kvm_mmu_set_spte', [
    ['gfn', 'gfn'],
    ['spte', 'spte'],
    ['sptep', 'sptep'],
    ['level', 'i32'],
    ['r', 'i32'],
    ['x', 'i32'],
    ['u', 'i32'],
  ]),
  kvmmmu(TP_SPTE_REQUESTED, 'kvm_mmu_spte_requested', [
    ['gfn', 'gfn'],
    ['level', 'i32'],
  ]),
  kvmmmu(TP_SPLIT_HUGE_PAGE, 'kvm_mmu_split_huge_page', [
    ['gfn', 'gfn'],
    ['spte', 'spte'],
    ['level', 'i32'],
    ['errno', 'i32'],
  ]),
  // A table of level 4 below a root of level 5 has entries for frames that no guest has.
  kvmmmu(TP_TDP_SPTE_CHANGED, 'kvm_tdp_mmu_spte_changed', [
    ['gfn', 'h64'],
    ['old_spte', 'spte'],
    ['new_spte', 'spte'],
    ['level', 'i32'],
    ['as_id', 'i32'],
  ]),
  kvm(TP_PAGE_FAULT, 'kvm_page_fault', [
    ['vcpu_id', 'i32'],
    ['guest_rip', 'h64'],
    ['fault_address', 'h64'],
    ['error_code', 'h64'],
  ]),
  kvm(TP_MMIO, 'kvm_mmio', [
    ['type', 'i32'],
    ['len', 'i32'],
    ['gpa', 'h64'],
    ['val', 'h64'],
  ]),
  kvm(TP_VCPU_MATCH_MMIO, 'vcpu_match_mmio', [
    ['gva', 'h64'],
    ['gpa', 'h64'],
    ['write', 'i32'],
    ['gpa_match', 'h32'],
  ]),
  kvm(TP_INJ_EXCEPTION, 'kvm_inj_exception', [
    ['exception', 'h32'],
    ['has_error', 'i32'],
    ['error_code', 'h32'],
    ['reinjected', 'h32'],
  ]),
  kvm(TP_UNMAP_HVA_RANGE, 'kvm_unmap_hva_range', [
    ['start', 'hva'],
    ['end', 'hva'],
  ]),
  kvm(TP_SET_SPTE_HVA, 'kvm_set_spte_hva', [['hva', 'hva']]),
  kvm(TP_AGE_HVA, 'kvm_age_hva', [
    ['start', 'hva'],
    ['end', 'hva'],
  ]),
  kvm(TP_TEST_AGE_HVA, 'kvm_test_age_hva', [['hva', 'hva']]),
  kvm(TP_ENTRY, 'kvm_entry', [
    ['vcpu_id', 'i32'],
    ['rip', 'h64'],
    ['immediate_exit', 'i32'],
  ]),
  kvm(TP_EXIT, 'kvm_exit', [
    ['exit_reason', 'h32'],
    ['guest_rip', 'h64'],
    ['info1', 'h64'],
    ['info2', 'h64'],
    ['vcpu_id', 'i32'],
  ]),
  kvm(TP_EMULATE_INSN, 'kvm_emulate_insn', [
    ['rip', 'h64'],
    ['csbase', 'h32'],
    ['len', 'i32'],
    ['insn', 'insn'],
    ['flags', 'h32'],
    ['failed', 'i32'],
  ]),
  kvm(TP_DIRTY_RING_PUSH, 'kvm_dirty_ring_push', [
    ['index', 'i32'],
    ['dirty_index', 'h32'],
    ['reset_index', 'h32'],
    ['slot', 'i32'],
    ['offset', 'h64'],
  ]),
  kvm(TP_DIRTY_RING_RESET, 'kvm_dirty_ring_reset', [
    ['index', 'i32'],
    ['dirty_index', 'h32'],
    ['reset_index', 'h32'],
  ]),
  kvm(TP_DIRTY_RING_EXIT, 'kvm_dirty_ring_exit', [['vcpu_id', 'i32']]),
  kvm(TP_PML_FULL, 'kvm_pml_full', [['vcpu_id', 'i32']]),
];

/** Tracepoint of an event number, or undefined. */
export const TRACEPOINT_BY_ID: ReadonlyMap<number, Tracepoint> = new Map(TRACEPOINTS.map((t) => [t.id, t]));

// Checks at import: numbers are unique, and each record fits the ring's slots.
export const RECORD_WORDS = 12;
if (TRACEPOINT_BY_ID.size !== TRACEPOINTS.length) throw new Error('two tracepoints share a number');
for (const t of TRACEPOINTS) {
  const words = t.fields.reduce((n, [, kind]) => n + fieldWords(kind), 1);
  if (words > RECORD_WORDS) throw new Error(`${t.name} takes ${words} words`);
}
