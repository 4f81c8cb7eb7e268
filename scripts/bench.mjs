/** `npm run bench`: sets the checkout up, then measures; `src/node/bench/main.bench.ts` tells the options. */
import { setupOrExit } from './setup.mjs';

await setupOrExit();
await import(new URL('../dist/bench.js', import.meta.url).href);
