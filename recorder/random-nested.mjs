// Random scenarios with nested guests:  node random-nested.mjs OUT_DIR FIRST_SEED COUNT [OPS, default 200]
// A hypervisor with up to three sets of nested tables over the same memory (other sizes, rights, places), its nested
// guests, changes of the tables by the hypervisor and by a nested guest that it lets, of the slots and of the host's memory,
// and accesses to what is no memory.
import fs from 'node:fs';
import path from 'node:path';

function rng(seed) {            // mulberry32
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const M = 1024 * 1024;
const hex = (v) => '0x' + v.toString(16);

/** The same seed always gives the same scenario. */
function scenario(seed, ops) {
  const random = rng(seed * 2654435761);
  const int = (n) => Math.floor(random() * n);
  const pick = (a) => a[int(a.length)];
  const chance = (p) => random() < p;
  const roots = [1, 2, 3].slice(0, 1 + int(3));
  const out = [`# random with nested guests, seed ${seed}`, 'modes A B', ...roots.map((r) => `nested ${r}`),
    `param eager_page_split ${chance(0.5) ? 'Y' : 'N'}`];
  if (chance(0.15)) out.push('param nx_huge_pages force');
  const manual = pick([0, 0, 1, 3]);
  if (manual) out.push(`manual ${manual}`);
  if (chance(0.3)) out.push(`mmupages ${pick([64, 64, 96])}`);
  const vcpus = chance(0.25) ? 2 : 1;
  if (vcpus > 1) out.push('vcpus 2');

  const slots = [];
  for (let i = 1; i <= 2 + int(2); i++) {
    const gpa = 0x1000000 + (i - 1) * 8 * M;
    slots.push({ id: i, gpa, home: gpa, size: pick([2, 4, 4]) * M, backing: pick(['2m', '2m', '4k', 'thp']), log: false });
  }
  for (const s of slots) out.push(`slot ${s.id} ${hex(s.gpa)} ${hex(s.size)} ${s.backing}`);
  // the guest's own tables, of hypervisor and nested guest: identical, with more than there is
  for (const s of slots) out.push(`map ${hex(s.gpa)} ${hex(s.gpa)} 4M ${pick(['4k', '2m'])} WUAD`);
  out.push('map 0x8000000 0x8000000 8M 2m WUAD', 'map 0x6000000 0x6000000 0x10000 4k WUAD');
  const windows = [];           // what a nested guest may access: where, and what backs it
  for (const r of roots) {
    out.push(`root ${r}`);
    for (const s of slots) {
      const size = pick(['4k', '2m', '2m']);
      out.push(`map ${hex(s.gpa)} ${hex(s.gpa)} ${hex(s.size)} ${size} ${pick(['WUAD', 'WUAD', 'WU', 'UA', 'WUADN'])}`);
      windows.push({ root: r, va: s.gpa, slot: s, level: size === '4k' ? 1 : 2 });
    }
    out.push(`map 0x6000000 0x6000000 0x10000 4k ${pick(['WUAD', 'WUAD', 'UA'])}`);
    for (let i = 0; i < 2; i++) {
      const s = pick(slots), size = pick(['4k', '2m']);
      const va = 0x8000000 + i * 4 * M;
      out.push(`map ${hex(va)} ${hex(s.gpa)} ${hex(s.size)} ${size} ${pick(['WUAD', 'WU', 'UA', 'UN'])}`);
      windows.push({ root: r, va, slot: s, level: size === '4k' ? 1 : 2 });
    }
  }
  for (const s of slots) {
    s.code = [0, 1].map(() => int(s.size / 4096) * 4096);
    for (const off of s.code) out.push(`code ${hex(s.gpa + off)}`);
  }
  for (const w of windows) w.hot = Array.from({ length: 5 }, () => int(w.slot.size / 4096) * 4096);
  out.push('run', 'nop');

  const level = Array(vcpus).fill(0);   // the root of the nested guest that runs, or 0; -1: may have left by itself
  let cur = 0;
  const off = (s) => int(s.size / 4096) * 4096;
  const within = (w) => (chance(0.8) ? pick(w.hot) : off(w.slot)) + 8 * int(500);
  const push = (line) => out.push(line);
  const enter = () => { level[cur] = pick(roots); push(`l2 ${level[cur]}`); };
  const access = (va) => {
    const k = random();
    if (k < 0.5) push(`r ${hex(va)}`);
    else if (k < 0.92) push(`w ${hex(va)} ${hex(int(65536))}`);
    else push(`xchg ${hex(va)} ${int(4096)}`);
  };
  const table = () => {         // the hypervisor changes its tables
    if (level[cur] && chance(0.7)) { push('l1'); level[cur] = 0; }
    const w = pick(windows);
    const va = w.va + (chance(0.7) ? pick(w.hot) : off(w.slot));
    const l = chance(0.75) ? w.level : 2 + int(2);
    const other = pick(windows.filter((x) => x.slot === w.slot));
    const edit = pick(['-W', '+W', '+W', '-A', '+A', '-D', '+N', '-N', '-P', '+P', '+P', '+WUAD', '+PWUA',
      l === w.level ? `@${hex(w.slot.home + (l === 1 ? off(w.slot) : 0))}` : '+A', l === other.level ? `~${hex(other.va)}` : '-W']);
    push(`wpte ${w.root} ${hex(va)} ${l} ${edit}`);
  };
  while (out.length < ops + 60) {
    const k = random();
    const s = pick(slots);
    if (k < 0.14) enter();
    else if (k < 0.17) { push('l1'); level[cur] = 0; }
    else if (k < 0.55) {
      // after a nested page fault the hypervisor runs: enter again now and then, so that most accesses are the nested guest's
      if (!level[cur] || chance(0.3)) enter();
      const w = pick(windows.filter((x) => x.root === level[cur]));
      if (chance(0.08)) access(0x6000000 + 8 * int(0x2000));
      else if (chance(0.06)) push(`x ${hex(w.slot.home + pick(w.slot.code))}`);
      else access(w.va + within(w));
    } else if (k < 0.62) {
      if (level[cur]) { push('l1'); level[cur] = 0; }
      access(s.gpa + off(s));
    } else if (k < 0.78) table();
    else if (k < 0.82) { s.log = !s.log; push(`log ${s.id} ${s.log ? 'on' : 'off'}`); }
    else if (k < 0.86) push(`getlog ${s.id}`);
    else if (k < 0.88 && manual) push(`clearlog ${s.id} ${64 * int(s.size / 4096 / 64)} 64`);
    else if (k < 0.90) push(`dontneed ${s.id} ${hex(Math.floor(off(s) / (2 * M)) * 2 * M)} 2M`);
    else if (k < 0.92) {
      const o = Math.floor(off(s) / (2 * M)) * 2 * M;
      push(`mprotect ${s.id} ${hex(o)} 2M r`);
      push(`mprotect ${s.id} ${hex(o)} 2M rwx`);
    } else if (k < 0.93) push('fork');
    else if (k < 0.95) push(`hw ${hex(s.gpa + off(s))} ${int(4096)}`);
    else if (k < 0.96) push(`mmupages ${pick([64, 96, 512])}`);
    else if (k < 0.97 && !s.gone) {
      // what nested tables map there is no memory any more, until it is back
      s.gone = true;
      s.gpa = s.home + 0x4000000;
      push(`move ${s.id} ${hex(s.gpa)}`);
    } else if (k < 0.985 && s.gone) {
      s.gone = false;
      s.gpa = s.home;
      push(`move ${s.id} ${hex(s.gpa)}`);
    } else if (vcpus > 1) { cur = int(vcpus); push(`vcpu ${cur}`); }
    else push('nop');
  }
  return out.join('\n') + '\n';
}

const [dir, first, count, ops = '200'] = process.argv.slice(2);
if (!count) {
  console.error('usage: node random-nested.mjs OUT_DIR FIRST_SEED COUNT [OPS]');
  process.exit(2);
}
fs.mkdirSync(dir, { recursive: true });
for (let i = 0; i < Number(count); i++) {
  const seed = Number(first) + i;
  fs.writeFileSync(path.join(dir, `nested-${String(seed).padStart(4, '0')}.scn`), scenario(seed, Number(ops)));
}
