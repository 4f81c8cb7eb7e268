/**
 * What happens while a call is under way: at a race point, where the kernel holds no lock. A test file puts `race` in place
 * of the empty one:
 *
 *     vi.mock('../race.ts', async (original) => ({ ...(await original<object>()), race: (await import('./testing/at-race.ts')).race }));
 */
let point = 0;
let call: () => void = () => {};

export function race(passed: number): void {
  if (passed !== point) return;
  point = 0;
  call();
}

/** At the next passage of that point, and only then. 0: never. */
export function atNext(racePoint: number, then: () => void = () => {}): void {
  point = racePoint;
  call = then;
}
