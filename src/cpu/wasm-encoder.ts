/**
 * A WebAssembly module, put together section by section. Code is plain arrays of bytes; `expression.ts` makes them.
 *
 * Only what generated code needs: imported functions and one imported memory, functions with locals, exports.
 */

/** Value types. */
export const I32 = 0x7f;
export const I64 = 0x7e;
export const F32 = 0x7d;
export const F64 = 0x7c;
export const V128 = 0x7b;
/** The type of a block without a result. */
export const VOID = 0x40;

export type Code = readonly number[];

/** Unsigned LEB128 of a number below 2^32. */
export function uleb(value: number): number[] {
  const bytes: number[] = [];
  let rest = value >>> 0;
  while (rest > 127) {
    bytes.push((rest & 127) | 128);
    rest >>>= 7;
  }
  bytes.push(rest);
  return bytes;
}

/** Signed LEB128. */
export function sleb(value: bigint): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const low = Number(rest & 127n);
    rest >>= 7n;
    if ((rest === 0n && !(low & 64)) || (rest === -1n && low & 64)) {
      bytes.push(low);
      return bytes;
    }
    bytes.push(low | 128);
  }
}

function text(value: string): number[] {
  return [...uleb(value.length), ...Array.from(value, (c) => c.charCodeAt(0))];
}

function vector(items: readonly Code[]): number[] {
  const bytes = uleb(items.length);
  for (const item of items) append(bytes, item);
  return bytes;
}

/** Appends without spreading, which overflows the stack on long arrays. */
export function append(to: number[], from: Code): void {
  for (let i = 0; i < from.length; i++) to.push(from[i]);
}

interface FunctionBody {
  readonly type: number;
  readonly locals: readonly number[];
  readonly code: Code;
}

export class WasmModule {
  readonly #types: number[][] = [];
  readonly #imports: number[][] = [];
  readonly #functions: FunctionBody[] = [];
  readonly #exports: number[][] = [];
  #imported = 0;

  #type(params: readonly number[], results: readonly number[]): number {
    const type = [0x60, ...uleb(params.length), ...params, ...uleb(results.length), ...results];
    const known = this.#types.findIndex((other) => other.join() === type.join());
    return known >= 0 ? known : this.#types.push(type) - 1;
  }

  /** Imports the memory that every load and store uses. */
  importMemory(module: string, name: string): void {
    this.#imports.push([...text(module), ...text(name), 2, 0, 0]);
  }

  /** The index to call it by. All imports come before all functions. */
  importFunction(module: string, name: string, params: readonly number[], results: readonly number[]): number {
    if (this.#functions.length > 0) throw new Error('imports come first');
    this.#imports.push([...text(module), ...text(name), 0, ...uleb(this.#type(params, results))]);
    return this.#imported++;
  }

  /** `locals`: a type for each local beyond the parameters. `code` is without the final `end`. */
  addFunction(
    params: readonly number[],
    results: readonly number[],
    locals: readonly number[],
    code: Code,
    exportAs = '',
  ): number {
    const index = this.#imported + this.#functions.push({ type: this.#type(params, results), locals, code }) - 1;
    if (exportAs) this.#exports.push([...text(exportAs), 0, ...uleb(index)]);
    return index;
  }

  bytes(): Uint8Array {
    const out = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
    const section = (id: number, content: Code) => {
      out.push(id);
      append(out, uleb(content.length));
      append(out, content);
    };
    section(1, vector(this.#types));
    section(2, vector(this.#imports));
    section(3, vector(this.#functions.map((f) => uleb(f.type))));
    section(7, vector(this.#exports));
    section(10, vector(this.#functions.map(functionCode)));
    return Uint8Array.from(out);
  }
}

function functionCode({ locals, code }: FunctionBody): number[] {
  const groups: [count: number, type: number][] = [];
  for (const type of locals) {
    const last = groups.at(-1);
    if (last && last[1] === type) last[0]++;
    else groups.push([1, type]);
  }
  const body = vector(groups.map(([count, type]) => [...uleb(count), type]));
  append(body, code);
  body.push(0x0b);
  const bytes = uleb(body.length);
  append(bytes, body);
  return bytes;
}
