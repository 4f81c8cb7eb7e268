import { describe, expect, it } from 'vitest';
import { LEVEL_1G, LEVEL_2M, LEVEL_4K, PAGE_BYTES, PAGE_SHIFT, pagesPerLevel } from './page.ts';

describe('pagesPerLevel', () => {
  // biome-ignore format: a table
  it.each([
    [LEVEL_4K, 1],
    [LEVEL_2M, 512],
    [LEVEL_1G, 262144],
    [4,        134217728],
    [5,        68719476736],
  ])('of level %i is %i', (level, pages) => {
    expect(pagesPerLevel(level)).toBe(pages);
  });

  it('goes with the size of a page', () => {
    expect(PAGE_BYTES).toBe(2 ** PAGE_SHIFT);
    expect(pagesPerLevel(LEVEL_2M) * PAGE_BYTES).toBe(2 ** 21);
    expect(pagesPerLevel(LEVEL_1G) * PAGE_BYTES).toBe(2 ** 30);
  });
});
