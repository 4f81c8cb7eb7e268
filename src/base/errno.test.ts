import { describe, expect, it } from 'vitest';
import * as errno from './errno.ts';

const { KvmError } = errno;
const NUMBERS = Object.entries(errno).flatMap(([name, value]) =>
  typeof value === 'number' ? [[name, value] as const] : [],
);

describe('a KvmError', () => {
  it.each(NUMBERS)('names %s', (name, number) => {
    const error = new KvmError(number, 'why');
    expect(error.message).toBe(`${name}: why`);
    expect(error.errno).toBe(number);
    expect(error.name).toBe('KvmError');
  });

  it('shows the number of an errno without a name', () => {
    expect(new KvmError(99, 'why').message).toBe('errno 99: why');
  });
});
