import { configDefaults, defineConfig } from 'vitest/config';

const long = process.env['PENUMBRA_LONG'] === '1';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts'],
    exclude: [...configDefaults.exclude, ...(long ? [] : ['**/*.long.test.ts'])],
    pool: 'threads',
    maxWorkers: 2,
    // Property tests on a busy machine take seconds; a test that hangs still ends.
    testTimeout: long ? 600_000 : 60_000,
  },
});
