/** A debugging session without GDB and without a socket: packets in, packets out, the machine run on the spot. */
import { Debugger } from '../../vm/machine/debugger.ts';
import type { Pc } from '../../vm/machine/pc.ts';
import { makePc, TINY } from '../../vm/machine/testing/guests.ts';
import { Stub } from '../stub.ts';

export class Session {
  readonly pc: Pc;
  readonly console: { readonly text: string };
  readonly stub: Stub;
  /** What was done to the machine besides running it. */
  readonly done: string[] = [];
  /** Instructions after which somebody interrupts. */
  interruptAfter = Infinity;
  private raw = '';

  constructor(kernel: Uint8Array = TINY, options: Parameters<typeof makePc>[1] = {}) {
    const { pc, console } = makePc(kernel, { megabytes: 32, ...options });
    this.pc = pc;
    this.console = console;
    this.stub = new Stub({
      debugger: new Debugger(this.pc),
      send: (bytes) => (this.raw += Buffer.from(bytes).toString('latin1')),
      start: () => this.run(),
      pause: () => this.done.push('pause'),
      kill: () => this.done.push('kill'),
      detach: () => this.done.push('detach'),
    });
    this.stub.stopped(null);
    this.send('QStartNoAckMode');
    this.raw = '';
  }

  /** The answer to a packet: its text, without what frames it. */
  send(text: string): string {
    return this.sendRaw(`$${text}#${checksum(text)}`).replace(/^\$([^]*)#..$/, '$1');
  }

  sendRaw(bytes: string): string {
    this.raw = '';
    this.stub.receive(Buffer.from(bytes, 'latin1'));
    return this.raw;
  }

  /** Of a register of 64 bits, by its place in GDB's order: 7 is RSP, 16 RIP. */
  register(number: number): bigint {
    return Buffer.from(this.send(`p${number.toString(16)}`), 'hex').readBigUInt64LE();
  }

  private run(): void {
    const { pc } = this;
    const last = pc.instructions + this.interruptAfter;
    while (pc.end === null && pc.stopped === null && !pc.isIdle && pc.instructions < last)
      pc.run(Math.min(10_000, last - pc.instructions));
    if (pc.end === null) this.stub.stopped(pc.stopped);
    else this.stub.ended(pc.end);
  }
}

export function checksum(text: string): string {
  const sum = Buffer.from(text, 'latin1').reduce((all, byte) => all + byte, 0);
  return (sum & 255).toString(16).padStart(2, '0');
}
