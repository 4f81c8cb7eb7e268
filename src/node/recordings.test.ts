import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { scenario as randomScenario } from '../../recorder/random-scenario.mjs';
import { parseMachine, settingsOf } from '../conform/machine.ts';
import type { Recording } from '../conform/recording.ts';
import { givenPack, givenRecordings } from '../conform/testing/given.ts';
import { writeRecording } from '../conform/write.ts';
import { CliError } from './cli-error.ts';
import { findRecordings } from './recordings.ts';

const PACKS = fileURLToPath(new URL('../../recordings/', import.meta.url));
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'penumbra-recordings-'));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** A new folder with a file for each text. */
function folderWith(name: string, files: Record<string, string>): string {
  const path = join(folder, name);
  mkdirSync(path);
  for (const [file, text] of Object.entries(files)) writeFileSync(join(path, file), text);
  return path;
}

function given(set: '6.1-core' | '6.1-random', name: string): Recording {
  const [recording] = givenRecordings(set, name);
  if (recording === undefined) throw new Error(`no ${name}`);
  return recording;
}

describe('recordings', () => {
  it('without an argument are those that come with the project, in a stable order', () => {
    const sources = findRecordings();
    expect(sources).toHaveLength(722);
    expect([...new Set(sources.map(({ set }) => set))]).toEqual([
      '6.1-core',
      '6.1-errors',
      '6.1-host',
      '6.1-la57',
      '6.1-nested',
      '6.1-random',
      '6.1-today',
      '6.12-core',
      '6.12-ept',
      '6.12-la57',
      '6.12-nested',
      '6.12-random',
      '6.12-today',
    ]);
    expect(sources[0]).toMatchObject({ name: 'dirty-4k.A', mode: 'A' });
    expect(sources.at(-1)).toMatchObject({ name: 'slot-zap.C', mode: 'C' });
    expect(sources[0]?.kernel).toMatch(/^6\.1\..* Debian 6\.1\.192/);
  });

  it('can be one file', () => {
    const path = join(
      folderWith('file', { 'perms.C.json': writeRecording(given('6.1-core', 'perms.C')) }),
      'perms.C.json',
    );
    const [source, ...rest] = findRecordings(path);
    expect(rest).toEqual([]);
    expect(source).toMatchObject({ name: 'perms.C', mode: 'C' });
    expect(source?.load()).toEqual(given('6.1-core', 'perms.C'));
  });

  it('can be a folder, whose other files do not matter', () => {
    const text = writeRecording(given('6.1-core', 'perms.C'));
    const path = folderWith('folder', {
      'b.A.json': text,
      'a.C.json': text,
      'a.A.json': text,
      'a.scn': '',
      'notes.txt': '',
    });
    mkdirSync(join(path, 'raw'));
    expect(findRecordings(path).map(({ name }) => name)).toEqual(['a.A', 'a.C', 'b.A']);
  });

  it('can be a pack, or a folder with packs', () => {
    expect(findRecordings(join(PACKS, '6.1-core.ndjson.br'))).toHaveLength(90);
    expect(findRecordings(PACKS).length).toBeGreaterThanOrEqual(210);
  });

  it.each<[string, (path: string) => void, string, RegExp]>([
    ['nothing', () => {}, 'none', /none: no such file or folder$/],
    ['an empty folder', (path) => mkdirSync(path), 'empty', /^no recordings \(.*\) in .*empty$/],
    ['a file that is no pack', (path) => writeFileSync(path, 'text'), 'x.ndjson.br', /x\.ndjson\.br: is not a brotli/],
  ])('at %s are an error of the user', (_what, make, name, message) => {
    const path = join(folder, name);
    make(path);
    expect(() => findRecordings(path)).toThrow(CliError);
    expect(() => findRecordings(path)).toThrow(message);
  });

  it('that are malformed are found, and refused when they are read', () => {
    const path = folderWith('malformed', { 'x.A.json': '{"scenario":"x"}' });
    const [source] = findRecordings(path);
    expect(source?.name).toBe('x.A');
    expect(() => source?.load()).toThrow(CliError);
    expect(() => source?.load()).toThrow(/x\.A\.json: .*must be/);
    expect(() => source?.mode).toThrow(CliError);
  });
});

describe('the machine of a recording', () => {
  const machineIn = (path: string) => {
    const [source] = findRecordings(path);
    if (source === undefined) throw new Error('unreachable');
    return source.machine(source.load());
  };

  it('stands in its pack', () => {
    const [source] = findRecordings(join(PACKS, '6.1-core.ndjson.br')).filter(({ name }) => name === 'few-pages.A');
    expect(source?.machine(source.load())).toMatchObject({
      origin: 'pack',
      machine: { mmuPages: 64, unpopulated: [1] },
    });
  });

  it('stands in the scenario beside it', () => {
    const recording = given('6.1-core', 'two-vcpus.A');
    const ops = recording.results.map(({ op }) => op);
    const path = folderWith('beside', {
      'mine.A.json': writeRecording({ ...recording, scenario: 'mine' }),
      'mine.scn': ['vcpus 3', 'manual 1', 'run', ...ops].join('\n'),
    });
    expect(machineIn(path)).toMatchObject({ origin: 'scenario', machine: { vcpus: 3, manual: 1 } });
  });

  it('follows from the seed of a random scenario', () => {
    for (const name of ['random-0005.A', 'random-0017.C']) {
      const recording = given('6.1-random', name);
      const path = folderWith(name, { [`${name}.json`]: writeRecording(recording) });
      const text = randomScenario(Number(name.slice(7, 11)), 200);
      expect(machineIn(path)).toEqual({ origin: 'seed', machine: parseMachine(settingsOf(text)) });
    }
  });

  it('is found for a core scenario that was recorded again', () => {
    const path = folderWith('core', { 'manual3-2m.A.json': writeRecording(given('6.1-core', 'manual3-2m.A')) });
    expect(machineIn(path)).toMatchObject({ origin: 'pack', machine: { manual: 3 } });
  });

  it('is guessed where no scenario has these ops, whatever its name', () => {
    const recording = given('6.1-core', 'manual3-2m.A');
    const changed = { ...recording, results: recording.results.slice(0, -1) };
    const path = folderWith('guess', {
      'manual3-2m.A.json': writeRecording(changed),
      'manual3-2m.scn': 'manual 1\nrun\nnop\n',
    });
    expect(machineIn(path)).toMatchObject({ origin: 'guess', machine: { manual: 1 } });
  });

  it('of one that broke off is that of the scenario which goes on', () => {
    const recording = given('6.1-random', 'random-0005.A');
    const changed = { ...recording, complete: false, results: recording.results.slice(0, 20) };
    const path = folderWith('broken', { 'random-0005.A.json': writeRecording(changed) });
    expect(machineIn(path).origin).toBe('seed');
  });
});

describe('a random scenario', () => {
  it('of each given recording is the one of its seed', () => {
    for (const packed of givenPack('6.1-random').filter(({ mode }) => mode === 'A')) {
      const text = randomScenario(Number(packed.scenario.slice(7)), 200);
      expect(settingsOf(text)).toEqual(packed.settings);
    }
  });
});
