/**
 * The instructions of the scripted guest, as bytes: what its CPU runs and KVM's emulator decodes.
 *
 *     8b 03  mov eax, [rbx]     89 0b  mov [rbx], ecx     87 0b     xchg [rbx], ecx     48  REX.W; dec eax outside of
 *     8a 03  mov al, [rbx]      88 0b  mov [rbx], cl      0f 01 3b  invlpg [rbx]            long mode
 *     0f 22 db / e3 / c3  mov cr3 / cr4 / cr0, rbx        e6 ib     out ib, al
 */
export const INSN_NONE = 0;
export const INSN_LOAD = 1;
export const INSN_STORE = 2;
export const INSN_XCHG = 3;
export const INSN_INVLPG = 4;
export const INSN_MOV_CR = 5;
export const INSN_OUT = 6;
/** A lone 48 outside of long mode. */
export const INSN_DEC_EAX = 7;

export class Instruction {
  kind = INSN_NONE;
  /** Bytes of the instruction, and of the memory operand. */
  length = 0;
  bytes = 0;
  /** Control register, or port. */
  operand = 0;

  /** Decodes `code`; `kind` is INSN_NONE if it is none of the above. */
  decode(code: Uint8Array, longMode: boolean): void {
    this.kind = INSN_NONE;
    let at = 0;
    let wide = false;
    if (code[0] === 0x48) {
      if (!longMode) {
        this.set(INSN_DEC_EAX, 1, 0, 0);
        return;
      }
      wide = true;
      at = 1;
    }
    const bytes = wide ? 8 : 4;
    const [first, second, third] = [code[at], code[at + 1], code[at + 2]];
    if (first === 0xe6) this.set(INSN_OUT, at + 2, 1, second);
    else if (first === 0x8b && second === 0x03) this.set(INSN_LOAD, at + 2, bytes, 0);
    else if (first === 0x8a && second === 0x03) this.set(INSN_LOAD, at + 2, 1, 0);
    else if (first === 0x89 && second === 0x0b) this.set(INSN_STORE, at + 2, bytes, 0);
    else if (first === 0x88 && second === 0x0b) this.set(INSN_STORE, at + 2, 1, 0);
    else if (first === 0x87 && second === 0x0b) this.set(INSN_XCHG, at + 2, bytes, 0);
    else if (first === 0x0f && second === 0x01 && third === 0x3b) this.set(INSN_INVLPG, at + 3, 0, 0);
    else if (first === 0x0f && second === 0x22) this.decodeMovCr(third, at + 3);
  }

  private decodeMovCr(modrm: number, length: number): void {
    const cr = (modrm >>> 3) & 7;
    if (modrm >>> 6 === 3 && (modrm & 7) === 3 && (cr === 0 || cr === 3 || cr === 4))
      this.set(INSN_MOV_CR, length, 0, cr);
  }

  private set(kind: number, length: number, bytes: number, operand: number): void {
    this.kind = kind;
    this.length = length;
    this.bytes = bytes;
    this.operand = operand;
  }
}
