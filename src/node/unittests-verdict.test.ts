import { describe, expect, it } from 'vitest';
import type { GuestRun } from '../../scripts/guest-run.mjs';
import { EXPECTED, judge } from '../../scripts/unittests-verdict.mjs';

const ran = (status: number | null, console: string, rest: Partial<GuestRun> = {}): GuestRun => {
  return { status, end: 'ended', console: console.replaceAll('|', '\r\n'), complaint: '', seconds: 1, ...rest };
};

describe('the verdict on a unit test', () => {
  // biome-ignore format: a table
  it.each<[string, GuestRun, string, string]>([
    ['all passed',            ran(1, 'PASS: a|PASS: b|SUMMARY: 2 tests|'),       'pass', ''],
    ['too few passed',        ran(1, 'PASS: a|'),                                'fail', 'PASS 1 times, expected 2'],
    ['one failed',            ran(3, 'PASS: a|PASS: b|FAIL: c|'),                'fail', 'FAIL: c'],
    ['one failed, value 0',   ran(1, 'PASS: a|PASS: b|test x: FAIL: error|'),    'fail', 'test x: FAIL: error'],
    ['an expected failure',   ran(1, 'PASS: a|PASS: b|XFAIL: c|'),               'pass', ''],
    ['skips itself',          ran(77, 'SUMMARY: 0 tests|'),                      'skip', 'skips itself'],
    ['finds no SVM',          ran(77, 'SVM not available|'),                     'skip', 'skips itself: SVM not available'],
    ['is refused its CPU',    { ...ran(2, ''), complaint: 'CPU feature "vmx" is not built' }, 'needs', 'needs vmx'],
    ['skips itself, value 0', ran(1, 'SKIP: no such CPU|'),                      'skip', 'skips itself: no such CPU'],
    ['skips some',            ran(1, 'PASS: a|SKIP: b|'),                        'fail', 'PASS 1 times, expected 2'],
    ['ends early',            ran(0, 'PASS: a|PASS: b|'),                        'fail', 'PASS: b'],
    ['an exception',          ran(127, 'PASS: a|Unhandled exception 6 #UD|at 0|'), 'fail', 'Unhandled exception 6 #UD'],
    ['refused',               ran(2, '', { complaint: 'penumbra: no\n' }),       'fail', 'penumbra: no'],
    ['silent',                ran(2, ''),                                        'fail', 'said nothing'],
    ['no end',                ran(null, 'PASS: a|', { end: 'too long' }),        'fail', 'no end after 1 s'],
  ])('%s', (_, run, verdict, why) => {
    expect(judge(run, { pass: 2 })).toMatchObject({ verdict, why });
  });

  it('counts the cases of access', () => {
    const text = '17 tests, 0 failures|PASS: 4-level|20 tests, 0 failures|PASS: 5-level|';
    expect(judge(ran(1, text), { pass: 1 })).toMatchObject({ verdict: 'pass', cases: 37, why: '37 cases' });
  });

  it('knows what sieve finds', () => {
    const good = `mapped:78498 out of 1000000|${'virtual:5761455 out of 100000000|'.repeat(3)}`;
    expect(judge(ran(1, good), EXPECTED['sieve']).verdict).toBe('pass');
    expect(judge(ran(1, good.replace('78498', '78499')), EXPECTED['sieve']).verdict).toBe('fail');
  });
});
