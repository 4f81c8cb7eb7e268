/**
 * A shadow page's role: what kind of translation it holds. (gfn, role) is its key, so that pages whose inherited
 * rights or paging mode differ are never shared.
 *
 *     31 ....... 24  23 ... 19   18    17    16    15      14      13   12   11    10 - 8   7    6 - 5   4    3 - 0
 *     +------------+----------+-----+-----+-----+-------+-------+-----+----+-----+--------+----+-------+----+-------+
 *     |    smm     |    0     | pass| gst | !ad | smap! | smep! | wp  | nx | inv | access | dir| quadr | 4B | level |
 *     +------------+----------+-----+-----+-----+-------+-------+-----+----+-----+--------+----+-------+----+-------+
 *
 * 4B: the guest's entries have 4 bytes. quadr: which part of such a guest table the page covers. smep!, smap!: SMEP
 * or SMAP while CR0.WP is clear. pass, gst: nested paging. Source: Linux 6.1 union kvm_mmu_page_role.
 */
export const ROLE_LEVEL = 0xf;
export const ROLE_HAS_4_BYTE_GPTE = 1 << 4;
export const ROLE_QUADRANT_SHIFT = 5;
export const ROLE_QUADRANT = 3 << ROLE_QUADRANT_SHIFT;
export const ROLE_DIRECT = 1 << 7;
export const ROLE_ACCESS_SHIFT = 8;
export const ROLE_ACCESS = 7 << ROLE_ACCESS_SHIFT;
export const ROLE_INVALID = 1 << 11;
export const ROLE_EFER_NX = 1 << 12;
export const ROLE_CR0_WP = 1 << 13;
export const ROLE_SMEP_ANDNOT_WP = 1 << 14;
export const ROLE_SMAP_ANDNOT_WP = 1 << 15;
export const ROLE_AD_DISABLED = 1 << 16;
export const ROLE_GUEST_MODE = 1 << 17;
export const ROLE_PASSTHROUGH = 1 << 18;
export const ROLE_SMM_SHIFT = 24;

/** Bits in which a page may differ from its root and still be synced against it. @kvm sync_role_ign */
export const ROLE_SYNC_IGNORED = ROLE_LEVEL | ROLE_ACCESS | ROLE_QUADRANT | ROLE_PASSTHROUGH;

export function roleLevel(role: number): number {
  return role & ROLE_LEVEL;
}
export function roleAccess(role: number): number {
  return (role >>> ROLE_ACCESS_SHIFT) & 7;
}
export function roleQuadrant(role: number): number {
  return (role >>> ROLE_QUADRANT_SHIFT) & 3;
}
export function isDirectRole(role: number): boolean {
  return (role & ROLE_DIRECT) !== 0;
}
/** No A and D in the page's entries. @kvm sp_ad_disabled */
export function hasRoleNoAd(role: number): boolean {
  return (role & ROLE_AD_DISABLED) !== 0;
}
export function isInvalidRole(role: number): boolean {
  return (role & ROLE_INVALID) !== 0;
}
/** The address space (0 normal, 1 SMM) whose memslots the page maps. @kvm kvm_mmu_role_as_id */
export function roleAddressSpace(role: number): number {
  return role >>> ROLE_SMM_SHIFT !== 0 ? 1 : 0;
}
/** The page mirrors a guest page table. @kvm sp_has_gptes */
export function roleHasGptes(role: number): boolean {
  return (role & (ROLE_DIRECT | ROLE_PASSTHROUGH)) === 0;
}
export function withLevel(role: number, level: number): number {
  return (role & ~ROLE_LEVEL) | level;
}
export function withQuadrant(role: number, quadrant: number): number {
  return (role & ~ROLE_QUADRANT) | (quadrant << ROLE_QUADRANT_SHIFT);
}

/**
 * The role of a table below a table of role `parent`, at entry `index` of it. Level 1 of a 32-bit guest covers half a
 * guest table, told by the parent's index. @kvm kvm_mmu_child_role
 */
export function childRole(parent: number, index: number, direct: boolean, access: number): number {
  const kept = parent & ~(ROLE_ACCESS | ROLE_DIRECT | ROLE_PASSTHROUGH | ROLE_INVALID);
  const role = (kept - 1) | (access << ROLE_ACCESS_SHIFT) | (direct ? ROLE_DIRECT : 0);
  return (role & ROLE_HAS_4_BYTE_GPTE) === 0 ? role : withQuadrant(role, index & 1);
}

// ---- the guest's own mode: base role as above, plus these ----------------------------------------------------------

/** The extension word of the CPU role: mode bits that change translation but not the tables. @kvm kvm_mmu_extended_role */
export const EXT_VALID = 1 << 0;
export const EXT_CR4_PSE = 1 << 2;
export const EXT_CR4_PKE = 1 << 3;
export const EXT_CR4_SMAP = 1 << 4;
export const EXT_CR4_SMEP = 1 << 5;
export const EXT_CR4_LA57 = 1 << 6;
export const EXT_EFER_LMA = 1 << 7;
