/** `npm start`: the flagship experiment on the embedded recording, on a checkout in any state. */
process.argv.splice(2, 0, 'story');
await import('../bin/penumbra.mjs');
