/** Damage: random changes to bytes, to a text, to a JSON value. */
import type { Prng } from '../../base/prng.ts';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

const NUMBERS = [0, 1, -1, 2, 63, 64, 511, 512, 4096, 2 ** 21, 2 ** 28, 2 ** 31, 2 ** 32, 2 ** 40, 2 ** 53, 1e300, 0.5];
const TEXTS = ['', '0x0', '0x1', '0xffffffffffffffff', '0x8000000000000000', '0xfffffffffffff000', '0x10000000000'];
const MORE_TEXTS = [
  '0x1000',
  '0x01',
  '0X1',
  'A',
  'C',
  'long',
  '32',
  'nop',
  '__proto__',
  '\u0000',
  '\ud800',
  'kvm_entry',
];

/** Flips, cuts, doubles, overwrites, drops: up to `times` of them. */
export function mutateBytes(bytes: Uint8Array, prng: Prng, times = 4): Uint8Array {
  let out = Uint8Array.from(bytes);
  for (let n = 1 + prng.int(times); n > 0 && out.length > 0; n--) out = mutateOnce(out, prng);
  return out;
}

function mutateOnce(bytes: Uint8Array, prng: Prng): Uint8Array<ArrayBuffer> {
  const out = Uint8Array.from(bytes);
  const at = prng.int(out.length);
  const length = 1 + prng.int(Math.min(out.length - at, prng.chance(0.8) ? 8 : 4096));
  switch (prng.int(7)) {
    case 0:
      out[at] ^= 1 << prng.int(8);
      return out;
    case 1:
      return out.slice(0, at);
    case 2:
      out[at] = prng.pick([0, 1, 0x7f, 0x80, 0xff, prng.int(256)]);
      return out;
    case 3:
      for (let i = at; i < at + length; i++) out[i] = prng.int(256);
      return out;
    case 4:
      return joined(out.subarray(0, at), out.subarray(at + length));
    case 5:
      return joined(out.subarray(0, at + length), out.subarray(at));
    default: {
      const from = prng.int(out.length);
      out.copyWithin(at, from, Math.min(out.length, from + length));
      return out;
    }
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}

/** As bytes; what is no UTF-8 any more becomes U+FFFD. Now and then a value that is nested deeply. */
export function mutateText(text: string, prng: Prng, times = 4): string {
  if (prng.chance(0.02)) {
    const at = text.indexOf(prng.pick([':', ',']), prng.int(text.length)) + 1;
    const depth = 1 + prng.int(200_000);
    const [open, close] = prng.pick([
      ['[', ']'],
      ['{"a":', '}'],
    ]);
    return `${text.slice(0, at)}${open.repeat(depth)}0${close.repeat(depth)}${text.slice(at)}`;
  }
  return new TextDecoder().decode(mutateBytes(new TextEncoder().encode(text), prng, times));
}

/** The value with up to `times` things in it replaced, removed, doubled, swapped or nested; changes it in place. */
export function mutateJson(value: Json, prng: Prng, times = 3): Json {
  let out = value;
  for (let n = 1 + prng.int(times); n > 0; n--) {
    if (isContainer(out) && prng.chance(0.98)) changeWithin(out, prng);
    else out = odd(out, prng);
  }
  return out;
}

function isContainer(value: Json): value is Json[] | { [key: string]: Json } {
  return typeof value === 'object' && value !== null;
}

function changeWithin(container: Json[] | { [key: string]: Json }, prng: Prng): void {
  const keys = Object.keys(container);
  if (keys.length === 0) return;
  const key = prng.pick(keys);
  const inner = (container as { [key: string]: Json })[key] ?? null;
  if (isContainer(inner) && Object.keys(inner).length > 0 && prng.chance(0.85)) changeWithin(inner, prng);
  else if (Array.isArray(container)) changeList(container, Number(key), prng);
  else changeField(container, key, keys, prng);
}

function changeList(list: Json[], at: number, prng: Prng): void {
  const value = list[at] ?? null;
  const other = prng.int(list.length);
  switch (prng.int(5)) {
    case 0:
      list.splice(at, 1);
      return;
    case 1:
      list.splice(at, 0, structuredClone(value));
      return;
    case 2:
      list[at] = list[other] ?? null;
      list[other] = value;
      return;
    case 3:
      list.length = at;
      return;
    default:
      list[at] = odd(value, prng);
  }
}

function changeField(object: { [key: string]: Json }, key: string, keys: readonly string[], prng: Prng): void {
  const value = object[key] ?? null;
  const other = prng.pick(keys);
  switch (prng.int(6)) {
    case 0:
      delete object[key];
      return;
    case 1:
      object[key] = object[other] ?? null;
      object[other] = value;
      return;
    case 2:
      object[prng.pick(MORE_TEXTS)] = value;
      return;
    default:
      object[key] = odd(value, prng);
  }
}

/** Another value in its place, of its kind more often than not. */
function odd(value: Json, prng: Prng): Json {
  if (prng.chance(0.02)) return nested(1 + prng.int(1500), prng);
  if (prng.chance(0.15)) return prng.pick<Json>([null, true, false, [], {}, [[]], '', 0]);
  if (typeof value === 'number') return prng.chance(0.5) ? value + prng.pick([-1, 1, 4096]) : prng.pick(NUMBERS);
  if (typeof value === 'string') return oddText(value, prng);
  return prng.chance(0.5) ? prng.pick(NUMBERS) : prng.pick(TEXTS);
}

function oddText(text: string, prng: Prng): string {
  const hex = /^0x[0-9a-f]{1,16}$/.test(text);
  if (hex && prng.chance(0.6)) return `0x${(BigInt(text) ^ (1n << BigInt(prng.int(64)))).toString(16)}`;
  if (prng.chance(0.4)) return prng.pick([...TEXTS, ...MORE_TEXTS]);
  if (prng.chance(0.05)) return text.padEnd(1 + prng.int(100_000), 'x');
  return mutateText(text, prng, 2);
}

function nested(depth: number, prng: Prng): Json {
  let value: Json = 0;
  const asObject = prng.chance(0.5);
  for (let i = 0; i < depth; i++) value = asObject ? { a: value } : [value];
  return value;
}
