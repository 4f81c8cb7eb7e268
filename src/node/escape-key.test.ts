import { expect, it } from 'vitest';
import { EscapeKey } from './escape-key.ts';

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));

it.each([
  // typed          to the guest   leaves
  ['ls\n', 'ls\n', false],
  ['a\x01xb', 'ab', true],
  ['\x01X', '', true],
  ['\x01\x01', '\x01', false],
  ['\x01q', '', false],
  ['\x01', '', false],
])('%j gives %j', (typed, given, leaves) => {
  const escape = new EscapeKey();
  expect([String.fromCharCode(...escape.filter(bytes(typed))), escape.wantsToLeave]).toEqual([given, leaves]);
});

it('is two keys also if they come apart', () => {
  const escape = new EscapeKey();
  expect(escape.filter(bytes('a\x01'))).toEqual(bytes('a'));
  expect(escape.filter(bytes('x'))).toEqual(bytes(''));
  expect(escape.wantsToLeave).toBe(true);
});
