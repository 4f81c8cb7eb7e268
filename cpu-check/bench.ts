/**
 * `npm run bench:cpu`: the programs of `programs/`, built by gcc, in a bare 64-bit machine. Prints results and millions of
 * instructions per second of processor time (other load on the machine matters less that way).
 *
 *   node cpu-check/bench.mjs [DIRECTORY OF BUILT PROGRAMS]
 */
import { readFileSync } from 'node:fs';
import { bareMachine, setRip, setStack } from '../src/cpu/testing/bare-machine.ts';
import { EXIT_HALT } from '../src/cpu/bus.ts';
import { INSTRUCTIONS, RAX } from '../src/cpu/state.ts';

const directory = process.argv[2];
const names = process.argv.length > 3 ? process.argv.slice(3) : ['sieve', 'crc', 'quicksort', 'fib', 'hash', 'states'];
let product = 1;
for (const name of names) {
  const { cpu, ram } = bareMachine(64);
  const image = readFileSync(`${directory}/${name}.bin`);
  let best = Infinity;
  for (let round = 0; round < 3; round++) {
    ram.fill(0, 0x100000);
    cpu.tlb.flush();
    for (let p = 0x100000; p < 0x100000 + image.length + 4096; p += 4096) cpu.code.invalidate(ram.byteOffset + p);
    ram.set(image, 0x100000);
    setRip(cpu, 0x100000);
    setStack(cpu, 0x3000000);
    cpu.state.set(INSTRUCTIONS, 0);
    const start = process.cpuUsage();
    const why = cpu.run(4e9);
    const used = process.cpuUsage(start);
    const ns = (used.user + used.system) * 1000;
    if (why !== EXIT_HALT) console.log(name, 'exit', why, cpu.unsupported, cpu.state.big(224).toString(16));
    best = Math.min(best, ns);
  }
  const count = cpu.state.get(INSTRUCTIONS) >>> 0;
  const mips = (count / best) * 1000;
  product *= mips;
  console.log(`${name.padEnd(10)} ${cpu.state.big(RAX).toString(16).padStart(16)} ${count} insns ${mips.toFixed(0)} MIPS`);
}
console.log(`geometric mean ${(product ** (1 / names.length)).toFixed(0)} MIPS`);
