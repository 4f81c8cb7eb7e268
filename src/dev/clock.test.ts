import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { VirtualClock } from './clock.ts';

class Recorder {
  readonly fired: [number, number][] = [];
  private readonly clock: VirtualClock;
  constructor(clock: VirtualClock) {
    this.clock = clock;
  }
  onTimer(timer: number): void {
    this.fired.push([timer, this.clock.now]);
  }
}

describe('the virtual clock', () => {
  it('stands still until it is moved, and never goes back', () => {
    const clock = new VirtualClock();
    expect(clock.now).toBe(0);
    clock.advanceTo(10);
    clock.advanceTo(5);
    expect(clock.now).toBe(10);
  });

  it('fires due timers in the order of their deadlines, each at its own time', () => {
    const clock = new VirtualClock();
    const recorder = new Recorder(clock);
    const [a, b, c] = [clock.addTimer(recorder), clock.addTimer(recorder), clock.addTimer(recorder)];
    clock.schedule(a, 30);
    clock.schedule(b, 10);
    clock.schedule(c, 99);
    expect(clock.nextDeadline).toBe(10);
    clock.advanceTo(50);
    expect(recorder.fired).toEqual([
      [b, 10],
      [a, 30],
    ]);
    expect([clock.now, clock.nextDeadline]).toEqual([50, 99]);
  });

  it('fires a deadline that has passed at the next step, without going back', () => {
    const clock = new VirtualClock();
    const recorder = new Recorder(clock);
    const timer = clock.addTimer(recorder);
    clock.advanceTo(100);
    clock.schedule(timer, 40);
    clock.advanceTo(100);
    expect(recorder.fired).toEqual([[timer, 100]]);
  });

  it('forgets a timer that is cancelled, and moves one that is scheduled again', () => {
    const clock = new VirtualClock();
    const recorder = new Recorder(clock);
    const [a, b] = [clock.addTimer(recorder), clock.addTimer(recorder)];
    clock.schedule(a, 10);
    clock.schedule(b, 20);
    clock.cancel(a);
    clock.schedule(b, 40);
    expect(clock.nextDeadline).toBe(40);
    clock.advanceTo(30);
    expect(recorder.fired).toEqual([]);
  });

  it('lets a timer schedule itself within one step', () => {
    const clock = new VirtualClock();
    const times: number[] = [];
    const client = {
      onTimer(timer: number): void {
        times.push(clock.now);
        clock.schedule(timer, clock.now + 10);
      },
    };
    clock.schedule(clock.addTimer(client), 10);
    clock.advanceTo(35);
    expect(times).toEqual([10, 20, 30]);
  });

  it('fires the same whatever the steps', () => {
    const run = (deadlines: number[], steps: number[]): [number, number][] => {
      const clock = new VirtualClock();
      const recorder = new Recorder(clock);
      for (const at of deadlines) clock.schedule(clock.addTimer(recorder), at);
      for (const step of steps) clock.advanceTo(clock.now + step);
      clock.advanceTo(1000);
      return recorder.fired;
    };
    fc.assert(
      fc.property(
        fc.array(fc.nat(900), { maxLength: 20 }),
        fc.array(fc.nat(50), { maxLength: 20 }),
        (deadlines, steps) => {
          expect(run(deadlines, steps)).toEqual(run(deadlines, []));
        },
      ),
    );
  });
});
