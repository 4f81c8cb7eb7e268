import { describe, expect, it } from 'vitest';
import { parseConfig, splitWords, unitTestOf, variantsOf } from '../../scripts/unittests-config.mjs';

const testOf = (text: string) => parseConfig(text).map((section) => unitTestOf(section, 1000));

describe('the configuration of kvm-unit-tests', () => {
  it('names a test in each section, with its file and what it is told', () => {
    const config =
      '# a comment\n\n[one]\nfile = a.flat\nsmp = 2\narch = i386\n\n[two]\nfile=b.flat\ntest_args = "x y"\n';
    expect(testOf(config)).toEqual([
      { name: 'one', file: 'a.flat', cpus: 2, arch: 'i386', unsupported: [] },
      { name: 'two', file: 'b.flat', cpus: 1, arch: '', append: 'x y', unsupported: [] },
    ]);
  });

  // biome-ignore format: a table
  it.each([
    ['-cpu max,host-phys-bits',               { cpu: 'max' }],
    ['-cpu host,migratable=no',               { cpu: 'max' }],
    ['-cpu qemu64,+pcid,-invpcid,vendor=Xyz', { cpu: 'qemu64,+pcid,-invpcid,vendor=Xyz' }],
    ['-enable-kvm -m 2048 -cpu max',          { cpu: 'max', memory: '2048M' }],
    ['-cpu max -overcommit cpu-pm=on -m 4g',  { cpu: 'max', memory: '4G' }],
    ["-smp 3 -append 'a  b'",                 { cpus: 3, append: 'a  b' }],
    ['-machine pit=off -cpu max',             { cpu: 'max' }],
    ['-machine vmport=on -cpu max',           { cpu: 'max', unsupported: ['-machine vmport=on'] }],
    ['-M q35 -device edu',                    { unsupported: ['-M q35', '-device edu'] }],
    ['-S',                                    { unsupported: ['-S'] }],
  ])('reads QEMU’s %s', (words, expected) => {
    const plain = { name: 'n', file: 'f.flat', cpus: 1, arch: '', unsupported: [] };
    for (const key of ['qemu_params', 'extra_params'])
      expect(testOf(`[n]\nfile = f.flat\n${key} = ${words}\n`)).toEqual([{ ...plain, ...expected }]);
  });

  it('may ask for a guest with fewer address bits than the host', () => {
    const check = 'check = /sys/module/kvm_intel/parameters/allow_smaller_maxphyaddr=Y';
    expect(testOf(`[n]\n${check}\n`)[0]?.unsupported).toEqual(['allow_smaller_maxphyaddr']);
  });

  it('has two tests once more with five levels', () => {
    const [la57, smap] = testOf('[la57]\nfile = la57.flat\nqemu_params = -cpu max\n[smap]\nfile = smap.flat\n');
    expect(variantsOf(la57)).toEqual([{ ...la57, name: 'la57-5-levels', cpu: 'max,+la57' }]);
    expect(variantsOf(smap)).toEqual([]);
  });

  it('may ask for the date', () => {
    expect(testOf('[n]\ntest_args = "5 `date +%s`"')[0]?.append).toBe('5 1000');
  });

  it('is refused if a line is nothing, by its number', () => {
    expect(() => parseConfig('[n]\nfile = a\nwhat\n')).toThrow('line 3: "what" is neither');
    expect(() => parseConfig('file = a\n')).toThrow('line 1');
  });

  it('has words as a shell splits them', () => {
    expect(splitWords(` a "b c"  'd "e'  f`)).toEqual(['a', 'b c', 'd "e', 'f']);
  });
});
