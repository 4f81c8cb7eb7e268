/**
 * An ELF file with nothing but symbols, for `file` and `symbol-file` of GDB, from a list of them: /proc/kallsyms, System.map, what nm
 * prints.
 *
 *   node guests/symbols.mjs LIST OUT.elf        LIST: lines "ffffffff81000000 T _stext"; - for stdin
 *
 * Neighbours of one kind (code, data) share a section, without contents: GDB reads those from the guest.
 */
import { readFileSync, writeFileSync } from 'node:fs';

const ELF_HEADER = 64;
const SECTION_HEADER = 64;
const SYMBOL = 24;
const SHT_SYMTAB = 2;
const SHT_STRTAB = 3;
const SHT_NOBITS = 8;
const WRITE_ALLOC = 3n;
const ALLOC_CODE = 6n;
const SHN_ABS = 0xfff1;
const STT_OBJECT = 1;
const STT_FUNC = 2;

/** @typedef {{ address: bigint, name: string, isCode: boolean, isAbsolute: boolean }} Symbol */

/**
 * @param {string} text
 * @returns {Symbol[]} by address
 */
export function parseSymbols(text) {
  const symbols = [];
  for (const line of text.split(/\r?\n/)) {
    const [, address, type, name] = /^([0-9a-f]{1,16})\s+([a-zA-Z])\s+(\S+)/i.exec(line) ?? [];
    if (address === undefined) continue;
    symbols.push({ address: BigInt(`0x${address}`), name, isCode: /[tw]/i.test(type), isAbsolute: /a/i.test(type) });
  }
  return symbols.sort((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0));
}

/** @param {readonly Symbol[]} symbols by address */
export function symbolFile(symbols) {
  /** @type {{ start: bigint, end: bigint, isCode: boolean }[]} */
  const runs = [];
  const section = symbols.map(({ address, isCode, isAbsolute }) => {
    if (isAbsolute) return SHN_ABS;
    const last = runs.at(-1);
    if (last !== undefined) last.end = address;
    if (last === undefined || last.isCode !== isCode) runs.push({ start: address, end: address + 1n, isCode });
    return runs.length;
  });
  const last = runs.at(-1);
  // How long the last symbol is, nobody knows.
  if (last !== undefined) last.end = (last.end | 4095n) + 1n;
  const names = new Strings();
  const table = Buffer.alloc(SYMBOL * (symbols.length + 1));
  for (const [i, { address, name, isCode }] of symbols.entries()) {
    const at = SYMBOL * (i + 1);
    table.writeUInt32LE(names.add(name), at);
    // Global: of names that come more than once GDB shows all.
    table.writeUInt8(0x10 | (isCode ? STT_FUNC : STT_OBJECT), at + 4);
    table.writeUInt16LE(section[i], at + 6);
    table.writeBigUInt64LE(address, at + 8);
  }
  const strings = names.bytes();
  const sections = [
    ...runs.map(({ start, end, isCode }, i) => ({
      name: `${isCode ? '.text' : '.data'}${i === 0 ? '' : `.${i}`}`,
      type: SHT_NOBITS,
      flags: isCode ? ALLOC_CODE : WRITE_ALLOC,
      start,
      size: end - start,
    })),
    { name: '.symtab', type: SHT_SYMTAB, bytes: table, link: runs.length + 2, info: 1, entry: SYMBOL },
    { name: '.strtab', type: SHT_STRTAB, bytes: strings },
  ];
  return assemble(sections);
}

/**
 * @param {readonly { name: string, type: number, flags?: bigint, start?: bigint, size?: bigint, bytes?: Buffer, link?: number,
 *   info?: number, entry?: number }[]} sections
 */
function assemble(sections) {
  const names = new Strings();
  const nameAt = sections.map(({ name }) => names.add(name));
  const ownName = names.add('.shstrtab');
  const all = [...sections, { name: '.shstrtab', type: SHT_STRTAB, bytes: names.bytes() }];
  const headers = Buffer.alloc(SECTION_HEADER * (all.length + 1));
  const parts = [];
  let offset = ELF_HEADER;
  for (const [i, { type, flags = 0n, start = 0n, size = 0n, bytes, link = 0, info = 0, entry = 0 }] of all.entries()) {
    const at = SECTION_HEADER * (i + 1);
    headers.writeUInt32LE(nameAt[i] ?? ownName, at);
    headers.writeUInt32LE(type, at + 4);
    headers.writeBigUInt64LE(flags, at + 8);
    headers.writeBigUInt64LE(start, at + 16);
    headers.writeBigUInt64LE(BigInt(offset), at + 24);
    headers.writeBigUInt64LE(bytes === undefined ? size : BigInt(bytes.length), at + 32);
    headers.writeUInt32LE(link, at + 40);
    headers.writeUInt32LE(info, at + 44);
    headers.writeBigUInt64LE(1n, at + 48);
    headers.writeBigUInt64LE(BigInt(entry), at + 56);
    if (bytes === undefined) continue;
    const padded = Buffer.alloc(Math.ceil(bytes.length / 8) * 8);
    bytes.copy(padded);
    parts.push(padded);
    offset += padded.length;
  }
  const elf = Buffer.alloc(ELF_HEADER);
  elf.write('\x7fELF\x02\x01\x01', 'latin1');
  elf.writeUInt16LE(2, 16); // executable
  elf.writeUInt16LE(62, 18); // x86-64
  elf.writeUInt32LE(1, 20);
  elf.writeBigUInt64LE(BigInt(offset), 40);
  elf.writeUInt16LE(ELF_HEADER, 52);
  elf.writeUInt16LE(SECTION_HEADER, 58);
  elf.writeUInt16LE(all.length + 1, 60);
  elf.writeUInt16LE(all.length, 62);
  return Buffer.concat([elf, ...parts, headers]);
}

class Strings {
  #parts = ['\0'];
  #length = 1;

  /** @param {string} text */
  add(text) {
    const at = this.#length;
    this.#parts.push(`${text}\0`);
    this.#length += Buffer.byteLength(text) + 1;
    return at;
  }

  bytes() {
    return Buffer.from(this.#parts.join(''));
  }
}

if (process.argv[1] !== undefined && import.meta.filename === process.argv[1]) {
  const [list, out] = process.argv.slice(2);
  if (out === undefined) {
    console.error('usage: node guests/symbols.mjs LIST OUT.elf');
    process.exit(2);
  }
  const symbols = parseSymbols(readFileSync(list === '-' ? 0 : list, 'utf8'));
  if (symbols.length === 0) {
    console.error(`${list}: no symbols`);
    process.exit(2);
  }
  writeFileSync(out, symbolFile(symbols));
  console.log(`${out}: ${symbols.length} symbols`);
}
