import { describe, expect, it } from 'vitest';
import { readPack } from './pack.ts';
import { RecordingError } from './recording.ts';
import { givenPack, givenText } from './testing/given.ts';

describe('a pack', () => {
  it('holds all scenarios in all modes, each with its settings', () => {
    const core = givenPack('6.1-core');
    const random = givenPack('6.1-random');
    expect([core.length, random.length]).toEqual([90, 120]);
    expect(core.slice(0, 3).map(({ name, mode }) => [name, mode])).toEqual([
      ['dirty-4k.A', 'A'],
      ['dirty-4k.B', 'B'],
      ['dirty-4k.C', 'C'],
    ]);
    for (const { settings, kernel } of [...core, ...random]) {
      expect(settings.some((line) => line.startsWith('slot '))).toBe(true);
      expect(kernel).toContain('6.1.192');
    }
  });

  it('gives the ops of a recording without reading the rest', () => {
    const packed = givenPack('6.1-core')[5];
    expect(packed?.opTexts()).toEqual(packed?.load().results.map(({ op }) => op));
  });

  const text = givenText('6.1-core');
  // biome-ignore format: a table
  it.each([
    ['nothing',               '',                                          'p: is damaged: no JSON at character 0'],
    ['something else',        '{"a":1}\n',                                 'p: is not a pack of recordings that this version reads'],
    ['a newer pack',          '{"pack":2}\n',                              'p: is not a pack of recordings that this version reads'],
    ['a line that broke off', text.slice(0, 1000),                         /^p: is damaged: no JSON at character \d+$/],
    ['half a recording',      text.slice(0, text.indexOf('{"n":5')),       'p: is cut off: 1 recordings, not 90'],
    ['half of them',          text.slice(0, text.indexOf('{"name":"lazy')), /^p: is cut off: \d+ recordings, not 90$/],
    ['a way to elsewhere',    text.replace('"name":"dirty-4k.B"', '"name":"../dirty-4k.B"'), `p: a recording's name is no file name: "../dirty-4k.B"`],
    ['nameless',              text.replace('"name":"dirty-4k.B"', '"name":"\\u0000"'),      'p: a recording\'s name is no file name: "\\u0000"'],
    ['one name twice',        text.replace('"name":"dirty-4k.B"', '"name":"dirty-4k.A"'),    'p: has two recordings named dirty-4k.A'],
  ])('is refused if it is %s', (_what, damaged, message) => {
    expect(() => readPack(damaged, 'p')).toThrow(RecordingError);
    expect(() => readPack(damaged, 'p')).toThrow(message);
  });

  it('names the recording and the op where one in it is malformed', () => {
    const at = text.indexOf('{"n":0');
    const bad = `${text.slice(0, at)}${text.slice(at).replace('"op":"nop"', '"op":12345')}`;
    expect(() => readPack(bad, 'p')[0]?.load()).toThrow(
      new RecordingError('p: dirty-4k.A: results[0].op: must be a text, not 12345'),
    );
  });
});
