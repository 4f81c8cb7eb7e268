/** Reading and writing the fields of 9P messages. What is too short reads as zeros and is `isShort`. */
const TWO_32 = 4294967296;

export class MessageReader {
  isShort = false;
  private at: number;
  private readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array, at: number) {
    this.bytes = bytes;
    this.at = at;
  }

  number(bytes: number): number {
    if (this.at + bytes > this.bytes.length) {
      this.isShort = true;
      return 0;
    }
    let value = 0;
    for (let i = bytes - 1; i >= 0; i--) value = value * 256 + this.bytes[this.at + i];
    this.at += bytes;
    return value;
  }

  string(): string {
    return fromUtf8(this.data(this.number(2)));
  }

  data(count: number): Uint8Array {
    if (this.at + count > this.bytes.length) {
      this.isShort = true;
      return new Uint8Array(0);
    }
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }
}

export class MessageWriter {
  readonly bytes: Uint8Array;
  length = 0;
  private readonly view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(value: number): this {
    this.view.setUint8(this.length, value);
    this.length += 1;
    return this;
  }

  u16(value: number): this {
    this.view.setUint16(this.length, value, true);
    this.length += 2;
    return this;
  }

  u32(value: number): this {
    this.view.setUint32(this.length, value, true);
    this.length += 4;
    return this;
  }

  u64(value: number): this {
    return this.u32(value % TWO_32).u32(Math.floor(value / TWO_32));
  }

  string(text: string): this {
    const bytes = toUtf8(text);
    return this.u16(bytes.length).raw(bytes);
  }

  raw(bytes: Uint8Array): this {
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
    return this;
  }
}

/** Own, since this room knows no encoder. Lone surrogates become `?`. */
export function toUtf8(text: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code >= 0xd800 && code < 0xe000) bytes.push(0x3f);
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return Uint8Array.from(bytes);
}

/** What isn't UTF-8 becomes U+FFFD, which names nothing. */
export function fromUtf8(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at++];
    const more = first < 0x80 ? 0 : first >= 0xf0 && first < 0xf5 ? 3 : first >= 0xe0 ? 2 : 1;
    let code = more === 0 ? first : first & (0x3f >> more);
    let good = first < 0x80 || (first >= 0xc2 && first < 0xf5);
    for (let i = 0; i < more && good; i++) {
      if ((bytes[at] & 0xc0) === 0x80) code = (code << 6) | (bytes[at++] & 63);
      else good = false;
    }
    text += good && code < 0x110000 ? String.fromCodePoint(code) : '\ufffd';
  }
  return text;
}
