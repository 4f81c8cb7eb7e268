/**
 * `npm start`: the flagship experiment on the embedded recordings, on a checkout in any state: a table on the terminal, and
 * the same with maps and charts as one HTML file. What is added on the command line goes to `penumbra story`.
 */
const given = process.argv.slice(2);
const report = given.some((word) => word === '--report' || word.startsWith('--report='))
  ? []
  : ['--report', 'penumbra-story.html'];
process.argv.splice(2, given.length, 'story', ...report, ...given);
await import('../bin/penumbra.mjs');
