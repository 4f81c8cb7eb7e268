/** AES rounds (FIPS 197) and carry-less multiplication. A state's byte `i` is row `i % 4`, column `i >> 2`. */
import { R_IMMEDIATE } from '../record.ts';
import type { HelperFunction } from '../system/outcome.ts';
import { first, firstBytes, result, resultBytes, second, secondBytes, vectorFunction } from './operands.ts';

const BOX = new Uint8Array(256);
const INVERSE_BOX = new Uint8Array(256);
const POLYNOMIAL = 0x11b;

/** Product in the field of 256 elements. */
function times(a: number, b: number): number {
  let product = 0;
  for (let bit = 0, x = a; bit < 8; bit++) {
    if ((b >> bit) & 1) product ^= x;
    x = (x << 1) ^ (x & 0x80 ? POLYNOMIAL : 0);
  }
  return product;
}

function makeBoxes(): void {
  for (let a = 0; a < 256; a++) {
    let inverse = 0;
    for (let b = 1; b < 256 && inverse === 0; b++) if (times(a, b) === 1) inverse = b;
    let value = 0x63;
    for (let turn = 0; turn < 5; turn++) value ^= ((inverse << turn) | (inverse >> (8 - turn))) & 255;
    BOX[a] = value;
    INVERSE_BOX[value] = a;
  }
}
makeBoxes();

const products = (factor: number): Uint8Array => Uint8Array.from({ length: 256 }, (_, i) => times(i, factor));
const [BY_2, BY_3, BY_9, BY_11, BY_13, BY_14] = [2, 3, 9, 11, 13, 14].map(products);
const FORWARD = [BY_2, BY_3];
const BACKWARD = [BY_14, BY_11, BY_13, BY_9];

const column = new Uint8Array(4);

/** MixColumns, or its inverse, of a state in place. */
function mix(state: Uint8Array, inverse: boolean): void {
  for (let c = 0; c < 16; c += 4) {
    for (let r = 0; r < 4; r++) column[r] = state[c + r];
    for (let r = 0; r < 4; r++) {
      const at = (i: number) => column[(r + i) & 3];
      state[c + r] = inverse
        ? BACKWARD[0][at(0)] ^ BACKWARD[1][at(1)] ^ BACKWARD[2][at(2)] ^ BACKWARD[3][at(3)]
        : FORWARD[0][at(0)] ^ FORWARD[1][at(1)] ^ at(2) ^ at(3);
    }
  }
}

/** One round: rows shifted, bytes replaced, columns mixed unless it is the last, the key added. */
const round = (inverse: boolean, last: boolean): HelperFunction =>
  vectorFunction(() => {
    const box = inverse ? INVERSE_BOX : BOX;
    for (let i = 0; i < 16; i++) {
      const from = (i + 4 * (inverse ? -(i & 3) : i & 3)) & 15;
      resultBytes[i] = box[firstBytes[from]];
    }
    if (!last) mix(resultBytes, inverse);
    for (let i = 0; i < 16; i++) resultBytes[i] ^= secondBytes[i];
  });

const mixKey: HelperFunction = vectorFunction(() => {
  resultBytes.set(secondBytes);
  mix(resultBytes, true);
});

const boxed = (word: number): number =>
  BOX[word & 255] | (BOX[(word >>> 8) & 255] << 8) | (BOX[(word >>> 16) & 255] << 16) | (BOX[word >>> 24] << 24);
const turned = (word: number): number => (word >>> 8) | (word << 24);

const keyAssist: HelperFunction = vectorFunction((immediate) => {
  for (const i of [1, 3]) {
    const word = boxed(second.getUint32(i * 4, true));
    result.setInt32((i - 1) * 4, word, true);
    result.setInt32(i * 4, turned(word) ^ immediate, true);
  }
}, R_IMMEDIATE);

/** The product of two polynomials of 64 bits over the field of two elements. */
const multiplyCarryless: HelperFunction = vectorFunction((immediate) => {
  const a = first.getBigUint64(immediate & 1 ? 8 : 0, true);
  const b = second.getBigUint64(immediate & 16 ? 8 : 0, true);
  let product = 0n;
  for (let bit = 0n; bit < 64n; bit++) if ((b >> bit) & 1n) product ^= a << bit;
  result.setBigUint64(0, BigInt.asUintN(64, product), true);
  result.setBigUint64(8, product >> 64n, true);
}, R_IMMEDIATE);

export const AES: Record<string, HelperFunction> = {
  aesenc: round(false, false),
  aesenclast: round(false, true),
  aesdec: round(true, false),
  aesdeclast: round(true, true),
  aesimc: mixKey,
  aeskeygenassist: keyAssist,
  pclmulqdq: multiplyCarryless,
};
