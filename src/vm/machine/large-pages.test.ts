import { expect, it } from 'vitest';
import { LargePages } from './large-pages.ts';

it.each([21, 22, 30])('knows every address of a page of 2^%i bytes that has pieces', (shift) => {
  const pages = new LargePages();
  pages.add(0x80000000 | 0, 5, shift);
  const inside = (0x80000000 + 2 ** shift - 4096) | 0;
  expect(pages.has(inside, 5)).toBe(true);
  expect(pages.has(inside, 6)).toBe(false);
  pages.clear();
  expect(pages.has(inside, 5)).toBe(false);
});
