/**
 * GDB's remote protocol below its commands: packets in a stream of bytes.
 *
 *     $ text # two hex digits    the text's sum modulo 256; in it `}` makes the next byte itself xor 0x20
 *     + -                        got it, send it again; neither once both sides have agreed on no acknowledgements
 *     0x03                       outside of a packet: stop the machine
 *
 * Texts are bytes, one a character: memory comes in them as it is.
 */

/** Longest packet that is taken, and what we tell GDB. */
export const MAX_PACKET = 0x4000;

const DOLLAR = 0x24;
const HASH = 0x23;
const PLUS = 0x2b;
const MINUS = 0x2d;
const ESCAPE = 0x7d;
const INTERRUPT = 3;

export interface PacketHandlers {
  /** A packet's text, escapes undone. */
  packet(text: string): void;
  interrupt(): void;
  send(bytes: Uint8Array): void;
}

export class PacketLink {
  acknowledges = true;
  private readonly handlers: PacketHandlers;
  private text: number[] | null = null;
  /** Digits of the checksum that have come, or -1 while the text goes on. */
  private digits = -1;
  private sum = 0;
  private isTooLong = false;
  private last: Uint8Array | null = null;
  /** One repetition at a time: nobody can have missed it again before it has come. */
  private hasRepeated = false;

  constructor(handlers: PacketHandlers) {
    this.handlers = handlers;
  }

  receive(bytes: Uint8Array): void {
    this.hasRepeated = false;
    for (const byte of bytes) this.take(byte);
  }

  send(text: string): void {
    const bytes = frame(text);
    this.last = bytes;
    this.handlers.send(bytes);
  }

  private take(byte: number): void {
    if (this.text === null) {
      if (byte === DOLLAR) this.begin();
      else if (byte === INTERRUPT) this.handlers.interrupt();
      else if (byte === MINUS) this.repeat();
      return;
    }
    if (this.digits >= 0) {
      this.sum = this.sum * 16 + digitOf(byte);
      if (++this.digits === 2) this.finish(this.text);
    } else if (byte === HASH) {
      this.digits = 0;
      this.sum = 0;
    } else if (byte === DOLLAR) this.begin();
    else if (this.text.length < MAX_PACKET) this.text.push(byte);
    else this.isTooLong = true;
  }

  private repeat(): void {
    if (!this.acknowledges || this.last === null || this.hasRepeated) return;
    this.hasRepeated = true;
    this.handlers.send(this.last);
  }

  private begin(): void {
    this.text = [];
    this.digits = -1;
    this.isTooLong = false;
  }

  private finish(text: readonly number[]): void {
    this.text = null;
    const isSound = !this.isTooLong && text.reduce((sum, byte) => sum + byte, 0) % 256 === this.sum;
    if (this.acknowledges) this.handlers.send(Uint8Array.of(isSound ? PLUS : MINUS));
    if (isSound) this.handlers.packet(unescaped(text));
  }
}

function unescaped(text: readonly number[]): string {
  let plain = '';
  for (let i = 0; i < text.length; i++) plain += String.fromCharCode(text[i] === ESCAPE ? text[++i] ^ 0x20 : text[i]);
  return plain;
}

function frame(text: string): Uint8Array {
  const bytes: number[] = [DOLLAR];
  let sum = 0;
  const put = (byte: number): void => {
    bytes.push(byte);
    sum += byte;
  };
  for (let i = 0; i < text.length; i++) {
    const byte = text.charCodeAt(i) & 255;
    if (byte === DOLLAR || byte === HASH || byte === ESCAPE || byte === 0x2a) {
      put(ESCAPE);
      put(byte ^ 0x20);
    } else put(byte);
  }
  const check = (sum % 256).toString(16).padStart(2, '0');
  return Uint8Array.from([...bytes, HASH, check.charCodeAt(0), check.charCodeAt(1)]);
}

/** Of a hex digit; NaN makes any checksum wrong. */
function digitOf(byte: number): number {
  return Number.parseInt(String.fromCharCode(byte), 16);
}

export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

/** Null if it is not pairs of hex digits. */
export function fromHex(text: string): Uint8Array | null {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) return null;
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** Bytes of a packet's text. */
export function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text, (c) => c.charCodeAt(0) & 255);
}
