/**
 * A decoded instruction: 32 bytes, the next one in memory behind it. Register fields are offsets into the state.
 *
 *      0  u16  handler            8  u16  offset of the instruction in its page     16  i64  immediate, or the target
 *      2  u8   operand 0         10  u16  offset of the next one                            of a jump from RIP_PAGE
 *      3  u8   operand 1         12  u8   64 - address bits                         24  i64  displacement
 *      4  u8   base              13  u8   flags (META_*)                                    i32  link: the record that
 *      5  u8   index             14  u16  handler within a group, helper                         a jump leads to
 *      6  u8   log2 of scale
 *      7  u8   segment base
 *
 * Without a memory operand there is no base: a third register operand has its place.
 */
export const RECORD_BYTES = 32;
export const R_HANDLER = 0;
export const R_OPERAND = 2;
export const R_BASE = 4;
export const R_INDEX = 5;
export const R_SCALE = 6;
export const R_SEGMENT = 7;
export const R_OFFSET = 8;
export const R_NEXT = 10;
export const R_ADDRESS_SHIFT = 12;
export const R_META = 13;
export const R_SUB = 14;
export const R_IMMEDIATE = 16;
export const R_DISPLACEMENT = 24;
export const R_LINK = 24;

/** log2 of the operand size. */
export const META_SIZE = 3;
/** The memory operand, if there is one, lies in the stack segment by default or by prefix. */
export const META_STACK = 1 << 2;
export const META_MEMORY = 1 << 3;
export const META_REP = 1 << 4;
export const META_REPNE = 1 << 5;
/** Decoded with a REX prefix that has W. */
export const META_WIDE = 1 << 6;
