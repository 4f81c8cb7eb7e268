/**
 * A small validator for parsed JSON: checks that say exactly where a file is wrong.
 *
 * A `JsonCheck` walks along with its caller: `within(key)` steps down, `up()` steps back, and whatever fails in between
 * names the place. The checks return the value itself, typed; nothing is copied.
 */

/** Malformed input; the message names the file, the op and the field. */
export class RecordingError extends Error {
  override readonly name = 'RecordingError';
}

const HEX = /^0x(?:0|[1-9a-f][0-9a-f]{0,15})$/;

export class JsonCheck {
  private readonly file: string;
  private path: (string | number)[] = [];
  private outerPath: (string | number)[] = [];
  private op = '';

  constructor(file: string) {
    this.file = file;
  }

  fail(problem: string, value?: unknown): never {
    const field = this.path.reduce<string>((text, key) => {
      if (typeof key === 'number') return `${text}[${key}]`;
      return text === '' ? key : `${text}.${key}`;
    }, '');
    const got = value === undefined ? '' : `, not ${shorten(value)}`;
    throw new RecordingError(`${this.file}:${this.op}${field === '' ? '' : ` ${field}:`} ${problem}${got}`);
  }

  within(key: string | number): void {
    this.path.push(key);
  }

  up(): void {
    this.path.pop();
  }

  /** What fails is named by the op that it belongs to and the path from there. */
  withinOp(n: number, text: string): void {
    this.outerPath = this.path;
    this.path = [];
    this.op = ` op ${n} (${text})`;
  }

  upFromOp(): void {
    this.path = this.outerPath;
    this.op = '';
  }

  object(value: unknown): Record<string, unknown> {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      this.fail('must be an object', value ?? 'missing');
    }
    return value as Record<string, unknown>;
  }

  /** Fails on keys that nobody would look at. */
  only(value: Record<string, unknown>, known: ReadonlySet<string>): void {
    for (const key in value) if (!known.has(key)) this.fail(`unknown field '${key}'`);
  }

  array(value: unknown): readonly unknown[] {
    if (!Array.isArray(value)) this.fail('must be a list', value ?? 'missing');
    return value as readonly unknown[];
  }

  text(value: unknown): string {
    if (typeof value !== 'string' || value === '') this.fail('must be a text', value ?? 'missing');
    return value;
  }

  oneOf<T extends string>(value: unknown, allowed: readonly T[]): T {
    if (!allowed.includes(value as T)) this.fail(`must be one of ${allowed.join(', ')}`, value ?? 'missing');
    return value as T;
  }

  boolean(value: unknown): boolean {
    if (typeof value !== 'boolean') this.fail('must be true or false', value ?? 'missing');
    return value;
  }

  integer(value: unknown, min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER): number {
    const number = value as number;
    if (Number.isSafeInteger(number) && number >= min && number <= max) return number;
    if (max !== Number.MAX_SAFE_INTEGER) this.fail(`must be an integer from ${min} to ${max}`, value ?? 'missing');
    const range = min === Number.MIN_SAFE_INTEGER ? '' : ` of ${min} or more`;
    this.fail(`must be an integer${range}`, value ?? 'missing');
  }

  /** 64 bits as the recorder writes them: `0x`, lower case, no leading zeros. */
  hex(value: unknown): string {
    if (typeof value !== 'string' || !HEX.test(value))
      this.fail('must be a hexadecimal number (0x...)', value ?? 'missing');
    return value;
  }

  /** Runs `check` on each element, with its index in the path. */
  each(value: unknown, check: (element: unknown, index: number) => void): void {
    const list = this.array(value);
    for (let i = 0; i < list.length; i++) {
      this.within(i);
      check(list[i], i);
      this.up();
    }
  }
}

function shorten(value: unknown): string {
  const text = value === 'missing' ? 'missing' : (JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
