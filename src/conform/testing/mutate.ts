/** Small random changes to a recording's JSON, most of which leave a well-formed recording. */
import type { Prng } from '../../base/prng.ts';

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The text with one thing changed somewhere in it: a value, a key, or the order of a list. */
export function mutate(text: string, prng: Prng): string {
  const document = JSON.parse(text) as { [key: string]: Json };
  const start = prng.chance(0.1) ? document : prng.pick(document['results'] as Json[]);
  changeWithin(start as { [key: string]: Json }, prng);
  return JSON.stringify(document);
}

/** Goes down at random; what is deep is reached as often as what is not, because a level has few keys. */
function changeWithin(container: Json[] | { [key: string]: Json }, prng: Prng): void {
  const keys = Object.keys(container).filter((key) => !['n', 'memory', 'results', 'scenario'].includes(key));
  if (keys.length === 0) return;
  const key = prng.pick(keys);
  const inner = (container as { [key: string]: Json })[key];
  const isContainer = typeof inner === 'object' && inner !== null && Object.keys(inner).length > 0;
  if (isContainer && prng.chance(0.85)) changeWithin(inner, prng);
  else if (Array.isArray(container)) changeList(container, Number(key), prng);
  else if (prng.chance(0.25)) delete container[key];
  else container[key] = changed(inner, prng);
}

function changeList(list: Json[], at: number, prng: Prng): void {
  const other = prng.int(list.length);
  const [a, b] = [list[at], list[other]];
  const what = prng.int(4);
  if (what === 0) list.splice(at, 1);
  else if (what === 1) list.splice(at, 0, structuredClone(a));
  else if (what === 2) [list[at], list[other]] = [b, a];
  else list[at] = changed(a, prng);
}

function changed(value: Json, prng: Prng): Json {
  if (typeof value === 'number') return prng.chance(0.5) ? value + 1 : Math.max(0, value - 1);
  if (typeof value === 'boolean') return !value;
  if (typeof value !== 'string') return value;
  if (/^0x[0-9a-f]+$/.test(value)) return `0x${(BigInt(value) ^ (1n << BigInt(prng.int(64)))).toString(16)}`;
  return prng.chance(0.5) ? `${value}x` : value.slice(0, -1);
}
