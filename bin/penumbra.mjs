#!/usr/bin/env node
// The installed command and the one of a checkout: the latter installs and builds what is missing or out of date first.
import { setupOrExit } from '../scripts/setup.mjs';

await setupOrExit();
if (process.env['PENUMBRA_DEBUG'] === '1') process.setSourceMapsEnabled(true);
// By address, so that the type checker does not go looking for a file that is built.
await import(new URL('../dist/cli.js', import.meta.url).href);
