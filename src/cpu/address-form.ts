/** The memory operand of ModRM, SIB and displacement: base, index and scale as fields of a record. */
import type { ByteReader } from './byte-reader.ts';
import { RBP, RBX, RDI, RIP_PAGE, RSI, ZERO } from './state.ts';

/** A general register, in 16-bit addresses, by ModRM.rm: base, then index. */
const BASES_16 = [RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX];
const INDEXES_16 = [RSI, RDI, RSI, RDI, ZERO, ZERO, ZERO, ZERO];

export class AddressForm {
  base = ZERO;
  index = ZERO;
  scale = 0;
  displacement = 0;
  /** The stack segment is the default. */
  stack = false;
  /** The displacement counts from the next instruction. */
  relative = false;

  clear(): void {
    this.base = ZERO;
    this.index = ZERO;
    this.scale = 0;
    this.displacement = 0;
    this.stack = false;
    this.relative = false;
  }

  /** `long`: 64-bit mode. `rex`: that prefix or 0. */
  read(reader: ByteReader, modrm: number, addressBytes: number, long: boolean, rex: number): void {
    const mod = modrm >> 6;
    const rm = modrm & 7;
    if (addressBytes === 2) {
      this.#read16(reader, mod, rm);
      return;
    }
    if (rm === 4) {
      this.#scaled(reader, mod, rex);
    } else if (rm === 5 && mod === 0) {
      this.displacement = reader.int();
      if (long) {
        this.base = RIP_PAGE;
        this.relative = true;
      }
      return;
    } else {
      this.base = (rm | ((rex & 1) << 3)) * 8;
      this.stack = rm === 5 && !(rex & 1);
    }
    if (mod === 1) this.displacement += reader.signedByte();
    else if (mod === 2) this.displacement += reader.int();
  }

  #scaled(reader: ByteReader, mod: number, rex: number): void {
    const sib = reader.byte();
    const index = ((sib >> 3) & 7) | ((rex & 2) << 2);
    if (index !== 4) {
      this.index = index * 8;
      this.scale = sib >> 6;
    }
    if ((sib & 7) === 5 && mod === 0) {
      this.displacement = reader.int();
      return;
    }
    const base = (sib & 7) | ((rex & 1) << 3);
    this.base = base * 8;
    this.stack = base === 4 || base === 5;
  }

  #read16(reader: ByteReader, mod: number, rm: number): void {
    if (rm === 6 && mod === 0) {
      this.displacement = reader.word();
      return;
    }
    this.base = BASES_16[rm];
    this.index = INDEXES_16[rm];
    this.stack = this.base === RBP;
    if (mod === 1) this.displacement = reader.signedByte();
    else if (mod === 2) this.displacement = reader.signedWord();
  }
}
