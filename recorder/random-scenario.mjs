// The text of a random scenario; gen-random.mjs writes it to files, and a reader of recordings finds back the
// scenario of one by its seed.

function rng(seed) {            // mulberry32
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const K = 1024, M = 1024 * 1024;
const hex = (v) => '0x' + v.toString(16);

/** The same seed always gives the same scenario. */
export function scenario(seed, ops = 200) {
  const random = rng(seed * 2654435761);
  const int = (n) => Math.floor(random() * n);
  const pick = (a) => a[int(a.length)];
  const chance = (p) => random() < p;
  const out = [`# random, seed ${seed}`];

  const paging = pick(['long', 'long', 'long', 'long', 'long', 'pae', '32', 'none']);
  const big = paging === '32' ? 4 * M : 2 * M;
  const manual = pick([0, 0, 1, 3]);
  const vcpus = chance(0.25) ? 2 : 1;
  const nx = chance(0.15);
  const wide = chance(0.45);            // a big sparse slot: many shadow pages
  const few = wide && chance(0.9);     // and a small limit on them
  const giant = paging !== '32' && chance(0.08);
  const cr = { 0: paging === 'none' ? 0x10031 : 0x80010031, 4: { long: 0x20, pae: 0x20, 32: 0x10, none: 0 }[paging] };
  out.push(`paging ${paging}`, `param eager_page_split ${chance(0.5) ? 'Y' : 'N'}`);
  if (nx) out.push('param nx_huge_pages force');
  if (manual) out.push(`manual ${manual}`);
  if (vcpus > 1) out.push(`vcpus ${vcpus}`);
  if (few) out.push(`mmupages ${pick([64, 64, 64, 72, 96])}`);

  // slots: 4 MiB apart at least, so that every one can have large pages
  const slots = [];
  const nslots = 2 + int(3);
  for (let i = 1; i <= nslots; i++) {
    const backing = pick(['2m', '2m', '4k', 'thp']);
    const odd = chance(0.2);
    const gpa = 0x1000000 + (i - 1) * 8 * M + (odd ? 0x3000 : 0);
    slots.push({ id: i, gpa, home: gpa, size: odd ? 3 * M : pick([1 * M, 2 * M, 4 * M, 4 * M]),
      backing, live: true, log: false, nopop: backing !== '2m' && chance(0.3), code: [], holes: [],
      hvaoff: chance(0.12) ? pick([0, 0x1000, 0x5000, 0x100000, 0x1ff000]) : undefined });
  }
  const poolSlot = paging !== 'none' && chance(0.25) ? slots.find((s) => s.backing === '2m' && s.size >= 2 * M) : undefined;
  const poolAt = poolSlot ? poolSlot.gpa + M : 0;
  if (poolSlot) out.push(`ptpool ${hex(poolAt)}`);
  const slotLine = (s) => `slot ${s.id} ${hex(s.gpa)} ${hex(s.size)} ${s.backing}${s.nopop ? ' nopop' : ''}${s.hvaoff === undefined ? '' : ` hvaoff=${hex(s.hvaoff)}`}`;
  for (const s of slots) out.push(slotLine(s));
  const WIDE = 0x20000000, WIDE_STEP = big, WIDE_N = paging === '32' ? 64 : 112, GIANT = 0x40000000;
  if (wide) out.push(`slot 9 ${hex(WIDE)} 256M 4k nopop`);
  if (giant) out.push(`slot 8 ${hex(GIANT)} 1G 1g`);

  // mappings: windows of VA on GPA
  const windows = [];
  const roots = paging === 'none' ? 1 : 1 + int(3);
  const mapLines = [];
  if (paging !== 'none') {
    for (let r = 0; r < roots; r++) {
      if (r) mapLines.push(`root ${r}`);
      for (const s of slots) {
        const base = Math.floor(s.gpa / big) * big;
        const len = Math.ceil((s.gpa + s.size - base) / big) * big;
        const size = pick(['4k', '2m']);
        const own = s === poolSlot;
        const flags = own ? 'WUAD' : pick(['WUAD', 'WUAD', 'WUAD', 'WU', 'WAD', 'UA', 'WUADN']);
        mapLines.push(`map ${hex(base)} ${hex(base)} ${hex(len)} ${size} ${flags}`);
        windows.push({ root: r, va: s.gpa, gpa: s.gpa, len: s.size, slot: s, level: size === '4k' ? 1 : 2 });
      }
      if (chance(0.6)) {
        const s = pick(slots);
        const base = Math.floor(s.gpa / big) * big;
        const va = 0x8000000 + r * 16 * M;
        const len = Math.ceil((s.gpa + s.size - base) / big) * big;
        const size = pick(['4k', '2m']);
        mapLines.push(`map ${hex(va)} ${hex(base)} ${hex(len)} ${size} ${pick(['WUAD', 'WU', 'UA', 'WAD'])}`);
        windows.push({ root: r, va: va + (s.gpa - base), gpa: s.gpa, len: s.size, slot: s, level: size === '4k' ? 1 : 2 });
      }
      mapLines.push(`map 0x6000000 0x6000000 0x10000 4k WUAD`);
      if (wide && r === 0) {
        if (chance(0.7)) for (let i = 0; i < WIDE_N; i++) mapLines.push(`map ${hex(WIDE + i * WIDE_STEP)} ${hex(WIDE + i * WIDE_STEP)} 0x4000 4k WUAD`);
        else mapLines.push(`map ${hex(WIDE)} ${hex(WIDE)} 256M 2m WUAD`);
      } else if (wide) mapLines.push(`map ${hex(WIDE)} ${hex(WIDE)} 256M 2m WUAD`);
      if (giant) {
        const size = pick(paging === 'long' ? ['1g', '2m', '4k'] : ['2m', '4k']);
        mapLines.push(`map ${hex(GIANT)} ${hex(GIANT)} ${size === '1g' ? '1G' : '4M'} ${size} ${pick(['WUAD', 'WUAD', 'WU'])}`);
        windows.push({ root: r, va: GIANT, gpa: GIANT, len: 4 * M, slot: { id: 8, gpa: GIANT, size: 4 * M, backing: '1g', live: true, code: [], holes: [] },
          level: size === '1g' ? 3 : size === '2m' ? 2 : 1 });
      }
    }
  } else {
    for (const s of slots) windows.push({ root: 0, va: s.gpa, gpa: s.gpa, len: s.size, slot: s, level: 0 });
    if (giant) windows.push({ root: 0, va: GIANT, gpa: GIANT, len: 4 * M, slot: { id: 8, gpa: GIANT, size: 4 * M, backing: '1g', live: true, code: [], holes: [] }, level: 0 });
  }
  out.push(...mapLines);
  for (const s of slots) {
    if (s.nopop) continue;
    for (let i = 0; i < 3; i++) {
      const off = int(s.size / 4096) * 4096;
      if (s === poolSlot && s.gpa + off >= poolAt) continue;
      s.code.push(off);
      out.push(`code ${hex(s.gpa + off)}`);
    }
  }
  out.push('run', 'nop');

  // a few hot pages for each window, so that the same ones are hit again
  const usable = (w, off) => !(w.slot === poolSlot && w.gpa + off >= poolAt && w.gpa + off < poolAt + M);
  for (const w of windows) {
    w.hot = [];
    while (w.hot.length < 6) {
      const off = int(w.len / 4096) * 4096;
      if (usable(w, off)) w.hot.push(off);
    }
  }
  let cur = 0;
  const root = new Array(vcpus).fill(0);
  const here = () => { const l = windows.filter((w) => w.root === root[cur]); return pick(l); };
  const page = (w) => {
    for (;;) {
      const off = chance(0.7) ? pick(w.hot) + (chance(0.3) ? 4096 * (1 + int(2)) : 0) : int(w.len / 4096) * 4096;
      if (off < w.len && usable(w, off)) return off;
    }
  };
  const user = () => (paging !== 'none' && chance(0.25) ? ' user' : '');
  const frame = () => { for (;;) { const w = pick(windows); const off = page(w); return w.gpa + off; } };

  const acc = (w, kind) => {
    const at = w.va + page(w);
    const u = user();
    switch (kind) {
      case 'r': case 'w': return `${kind} ${hex(at + 0x100 + 4 * int(64))}${kind === 'w' ? ` ${hex(2 * int(0x7fff))}` : ''}${u}`;
      case 'r8': return `r8 ${hex(at + 0x300 + int(256))}${u}`;
      case 'w8': return `w8 ${hex(at + 0x300 + int(256))} ${int(256)}${u}`;
      case 'r64': return `r64 ${hex(at + 0x400 + 8 * int(32))}${u}`;
      default: return `w64 ${hex(at + 0x400 + 8 * int(32))} ${hex(2 * int(0x7fffffff))}${u}`;
    }
  };
  // What spills over into the next page's start is zero or an `out 0x10, al`.
  const crossing = (w) => {
    const off = page(w), end = w.va + off + 4096;
    if (w.slot === poolSlot && w.gpa + off + 4096 === poolAt) return null;
    const spill = pick([0, 0, 0x10e6]);
    return pick([() => `r64 ${hex(end - 4)}${user()}`, () => `r ${hex(end - 2)}${user()}`,
      () => `w64 ${hex(end - 4)} ${hex(spill * 2 ** 32 + 2 * int(0x7fff))}${user()}`,
      () => `w ${hex(end - 2)} ${hex(spill * 65536 + 2 * int(0x7fff))}${user()}`])();
  };
  const wideAccess = () => `${pick(['r', 'w', 'w'])} ${hex(WIDE + int(WIDE_N) * WIDE_STEP + 4096 * int(4) + 0x100)}`.replace(/^w.*/, '$& 2');
  const span = (s) => {                 // of host memory: offset, length
    if (s.backing === '2m') return [0, 2 * M];
    const off = int(s.size / 4096) * 4096;
    return [off, Math.min(s.size - off, 4096 * (1 + int(16)))];
  };
  const lose = (s, off, len) => { s.code = s.code.filter((c) => c < off || c >= off + len); };
  const kinds = [
    [6, () => acc(here(), pick(['r8', 'w8', 'r64', 'w64']))],
    [3, () => crossing(here())],
    [wide ? 8 : 0, wideAccess],
    // many at once: more shadow pages than there may be
    [wide ? 1.5 : 0, () => {
      const first = int(WIDE_N), kind = pick(['r', 'w']);
      return Array.from({ length: 25 + int(35) }, (_, i) => `${kind} ${hex(WIDE + ((first + i) % WIDE_N) * WIDE_STEP + 0x100)}${kind === 'w' ? ' 4' : ''}`);
    }],
    // a storm of writes to upper-level guest tables
    [paging === 'none' || paging === '32' ? 0 : 1.2, () => {
      const w = here();
      if (w.level !== 1 || w.slot === poolSlot) return null;
      const at = hex(w.va + page(w));
      const l = ['-A', '+A', '-A', '+A', '-A', '+A'].slice(0, 3 + int(4)).map((e) => `wpte ${w.root} ${at} 2 ${e}`);
      return chance(0.7) ? [`r ${at}`, ...l, `r ${at}`, acc(w, 'r')] : l;
    }],
    // unlink a table and come back to it
    [paging === 'none' ? 0 : 1.5, () => {
      const w = here();
      if (w.level !== 1 || w.slot === poolSlot) return null;
      const at = hex(w.va + page(w));
      return [`r ${at}`, `wpte ${w.root} ${at} 2 ${pick(['-A', '-A', '-P', '-W'])}`, ...(chance(0.3) ? [acc(w, 'w')] : []),
        `wpte ${w.root} ${at} 2 +PWUA`, `r ${at}`];
    }],
    [paging === 'none' ? 0 : 1, () => {
      const w = here();
      const at = hex(w.va + page(w));
      return Array.from({ length: 4 + int(4) }, (_, i) => `wpte ${w.root} ${at} ${w.level} ${i & 1 ? '+A' : '-A'}`);
    }],
    // a byte that is zero anyway, of an entry: a misaligned write to a guest table
    [paging === 'long' || paging === 'pae' ? 1 : 0, () => `w8 ${hex((poolSlot ? poolAt : 0x10000) + 4096 * int(12) + 8 * int(512) + 6)} 0`],
    [paging === 'none' ? 0.3 : 1.2, () => { cr[0] = (cr[0] ^ 0x10000) >>> 0; return `cr0 ${hex(cr[0])}`; }],
    [1.2, () => {
      const bit = paging === 'pae' ? 0x200000 : pick([0x80, 0x100000, 0x100000, 0x200000]);
      const v = cr[4] ^ bit;
      if (bit === 0x200000) {           // SMAP: few things work, so not for long
        const l = [`cr4 ${hex(v)}`];
        for (let i = 0; i < 1 + int(4); i++) l.push(acc(here(), pick(['r', 'w', 'r8', 'w8'])));
        return [...l, `cr4 ${hex(cr[4])}`];
      }
      cr[4] = v;
      return `cr4 ${hex(v)}`;
    }],
    [wide ? 0.8 : 0.3, () => `mmupages ${pick([64, 64, 80, 128, 1000])}`],
    [0.8, () => {
      const s = pick(slots);
      if (!s.live || s === poolSlot) return null;
      s.gpa = s.gpa === s.home ? s.home + pick([s.size / 2, 4 * M, 0x10000]) : s.home;
      return `move ${s.id} ${hex(s.gpa)}`;
    }],
    [0.8, () => {
      const s = pick(slots);
      if (!s.live || s === poolSlot || (s.backing === '2m' && (s.size < 2 * M || s.gpa % (2 * M) || s.hvaoff !== undefined))) return null;
      const [off, len] = span(s);
      s.holes.push([off, len]);
      lose(s, off, len);
      return `munmap ${s.id} ${hex(off)} ${hex(len)}`;
    }],
    [1.2, () => {
      const s = pick(slots);
      if (!s.live || s === poolSlot) return null;
      const [off, len] = s.holes.length ? s.holes.pop() : s.backing === '2m' ? [0, s.size] : span(s);
      lose(s, off, len);
      return `populate ${s.id} ${hex(off)} ${hex(len)}`;
    }],
    [0.15, () => { const s = pick(slots); return s.live ? `ro ${s.id} ${pick(['on', 'off'])}` : null; }],
    [30, () => { const w = here(); return `r ${hex(w.va + page(w) + 0x100 + 4 * int(64))}${user()}`; }],
    [34, () => { const w = here(); return `w ${hex(w.va + page(w) + 0x100 + 4 * int(64))} ${hex(2 * int(0x7fff))}${user()}`; }],
    [3, () => { const w = here(); return `xchg ${hex(w.va + page(w) + 0x200)} ${int(1000) * 2}`; }],
    [6, () => {
      const w = here();
      if (!w.slot.live || !w.slot.code.length) return null;
      const x = `x ${hex(w.va + pick(w.slot.code))}${user()}`;
      return chance(0.3) ? [x, x] : x;
    }],
    [paging === 'none' ? 0 : 9, () => {
      const w = here();
      return `wpte ${w.root} ${hex(w.va + page(w))} ${w.level} ${pick(['-W', '+W', '-U', '+U', '-A', '-D', '-P', '+P', '+P', '+WUAD', '+PWUAD', '-WD', w.level === 1 ? `@${hex(frame())}` : '+P', paging === '32' ? '-A' : '+N', paging === '32' ? '+A' : '-N'])}`;
    }],
    [paging === 'none' ? 0 : 2, () => {
      const w = here(), v = here();
      if (w.level !== 1 || v.level !== 1 || w.slot === poolSlot) return null;
      return `wpte ${w.root} ${hex(w.va + page(w))} 2 ${chance(0.5) ? `~${hex(v.va + page(v))}` : pick(['-W', '+W', '-P', '+PWU', '-U'])}`;
    }],
    [paging === 'none' ? 0 : 5, () => { const w = here(); return `invlpg ${hex(w.va + page(w))}`; }],
    [paging === 'none' ? 0 : 4, () => { root[cur] = int(roots); return `cr3 ${root[cur]}`; }],
    [vcpus > 1 ? 6 : 0, () => { cur = 1 - cur; return `vcpu ${cur}`; }],
    [3, () => { const s = pick(slots); if (!s.live) return null; s.log = !s.log; return `log ${s.id} ${s.log ? 'on' : 'off'}`; }],
    [5, () => { const s = pick(slots); return s.live && s.log ? `getlog ${s.id}` : null; }],
    [manual ? 5 : 0, () => {
      const s = pick(slots);
      if (!s.live || !s.log) return null;
      const pages = s.size / 4096;
      const first = int(pages / 64) * 64;
      const n = Math.min(pages - first, 64 * (1 + int(8)));
      return `clearlog ${s.id} ${first} ${n}${chance(0.3) ? ` mask=${hex(int(0x7fffffff))}` : ''}`;
    }],
    [2, () => {
      const s = pick(slots);
      if (!s.live || s === poolSlot) return null;
      const step = s.backing === '2m' ? big : 4096;
      const off = s.backing === '2m' ? 0 : int(s.size / 4096) * 4096;
      const len = s.backing === '2m' ? 2 * M : Math.min(s.size - off, step * (1 + int(16)));
      if (s.backing === '2m' && s.gpa % (2 * M)) return null;
      s.code = s.code.filter((c) => c < off || c >= off + len);
      return `dontneed ${s.id} ${hex(off)} ${hex(len)}`;
    }],
    [1, () => { const s = pick(slots); if (!s.live || s === poolSlot || s.backing === '2m') return null; const off = int(s.size / 4096 / 2) * 4096; return `mprotect ${s.id} ${hex(off)} ${hex(16 * 4096)} ${pick(['r', 'rx', 'none', 'rw', 'rw', 'rw'])}`; }],
    [0.5, () => 'fork'],
    [1, () => (windows.length && paging !== 'none' ? `${pick(['r', 'w'])} ${hex(0x6000000 + 4096 * int(4))}` : null)],
    [0.7, () => {
      const s = pick(slots);
      if (s === poolSlot) return null;
      if (s.live) { s.live = false; s.log = false; s.code = []; return `del ${s.id}`; }
      s.live = true;
      s.backing = pick(['2m', '4k', 'thp']);
      s.nopop = s.backing !== '2m' && chance(0.3);
      s.gpa = s.home;
      s.holes = [];
      return slotLine(s);
    }],
    [0.4, () => { const s = pick(slots); return s.live && s !== poolSlot && s.nopop === false ? `hw ${hex(s.gpa + int(s.size / 4096) * 4096 + 0x800)} ${int(1000)}` : null; }],
    [nx ? 0.7 : 0, () => `param nx_huge_pages ${pick(['off', 'force'])}`],
    [0.5, () => `param eager_page_split ${pick(['Y', 'N'])}`],
  ];
  const total = kinds.reduce((a, [w]) => a + w, 0);
  for (let n = 1; n < ops;) {
    let x = random() * total, k = 0;
    while (k < kinds.length - 1 && (x -= kinds[k][0]) >= 0) k++;
    if (!kinds[k][0]) continue;
    for (let line of [kinds[k][1]()].flat()) {
      if (!line || n >= ops) continue;
      if (line.startsWith('w 0x6') && line.split(' ').length === 2) line += ' 1';
      out.push(line);
      n++;
    }
  }
  return out.join('\n') + '\n';
}
