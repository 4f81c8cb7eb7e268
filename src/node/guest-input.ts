/**
 * What is typed goes to the guest: on a terminal each key, but for the escape key, Ctrl-A: then x ends the run, and Ctrl-A sends itself.
 */
import type { Machine } from '../machine.ts';
import { EscapeKey } from './escape-key.ts';

/** A pipe has to wait when so much of it is here; who types isn't as fast. */
const MOST_UNTAKEN = 65536;

/** Keys and piped input to the guest. Returns what undoes it. */
export function connectInput(machine: Machine): () => void {
  const { stdin } = process;
  const escape = new EscapeKey();
  const isTerminal = stdin.isTTY;
  if (isTerminal) stdin.setRawMode(true);
  const onData = (chunk: Buffer): void => {
    const keys = isTerminal ? escape.filter(chunk) : chunk;
    if (keys.length > 0) machine.console.write(keys);
    if (!isTerminal && machine.console.untaken > MOST_UNTAKEN) {
      stdin.pause();
      machine.console.onTaken = goOn;
    }
    if (isTerminal && escape.wantsToLeave) machine.stop();
  };
  const goOn = (): void => {
    machine.console.onTaken = null;
    stdin.resume();
  };
  const onInterrupt = (): void => machine.stop();
  stdin.on('data', onData);
  process.on('SIGTERM', onInterrupt);
  if (!isTerminal) process.on('SIGINT', onInterrupt);
  return () => {
    stdin.off('data', onData);
    machine.console.onTaken = null;
    if (isTerminal) stdin.setRawMode(false);
    stdin.pause();
    process.off('SIGTERM', onInterrupt);
    process.off('SIGINT', onInterrupt);
  };
}
