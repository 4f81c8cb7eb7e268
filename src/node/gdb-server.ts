/**
 * `--gdb PORT[,wait]`: a machine that waits on the loopback interface for GDB (`target remote :PORT`), for one at a time. Who connects
 * finds it stopped; who goes, or dies, leaves it running.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { Stub } from '../gdb/stub.ts';
import { hasCrashed, type Machine, type PcEnd } from '../machine.ts';
import { Debugger } from '../vm/machine/debugger.ts';
import { CliError } from './cli-error.ts';

const LOOPBACK = '127.0.0.1';
/** For a debugger to hang up, after the guest has ended. */
const PATIENCE_MS = 2000;

export interface GdbFlag {
  readonly port: number;
  /** The guest doesn't begin before somebody is there. */
  readonly waits: boolean;
}

export function parseGdbFlag(text: string): GdbFlag {
  const [, port, wait] = /^(\d{1,5})(,wait)?$/.exec(text) ?? [];
  if (port === undefined || Number(port) > 65535)
    throw new CliError(`--gdb takes a port, PORT or PORT,wait (0: a free one), not '${text}'`);
  return { port: Number(port), waits: wait !== undefined };
}

export class GdbServer {
  readonly port: number;
  private readonly server: Server;
  private readonly machine: Machine;
  private readonly debugger: Debugger;
  private socket: Socket | null = null;
  private stub: Stub | null = null;
  private end: PcEnd | null = null;
  private onFree: () => void = () => {};

  /** Fails with a CliError if the port can't be had. */
  static listen(machine: Machine, port: number): Promise<GdbServer> {
    const server = createServer({ noDelay: true });
    return new Promise((resolve, reject) => {
      server.once('error', (error) => reject(new CliError(`--gdb ${port}: ${error.message}`)));
      server.listen(port, LOOPBACK, () => {
        const address = server.address();
        resolve(new GdbServer(machine, server, typeof address === 'object' && address !== null ? address.port : port));
      });
    });
  }

  private constructor(machine: Machine, server: Server, port: number) {
    this.machine = machine;
    this.server = server;
    this.port = port;
    this.debugger = new Debugger(machine.pc);
    machine.onPause = () => this.stub?.stopped(machine.pc.stopped);
    server.on('connection', (socket) => this.connect(socket));
  }

  /** The guest has ended: whoever debugs is told, and may look at one that has crashed before this resolves. */
  async finish(end: PcEnd): Promise<void> {
    this.end = end;
    this.server.close();
    if (this.stub === null) return;
    const isFree = new Promise<void>((resolve) => (this.onFree = resolve));
    this.stub.ended(end);
    if (!hasCrashed(end) && this.socket !== null) hangUp(this.socket);
    await isFree;
  }

  private connect(socket: Socket): void {
    if (this.socket !== null || this.end !== null) {
      socket.destroy();
      return;
    }
    const { machine } = this;
    const stub = new Stub({
      debugger: this.debugger,
      send: (bytes) => void socket.write(bytes),
      start: () => machine.start(),
      pause: () => machine.pause(),
      kill: () => {
        machine.stop();
        socket.end();
      },
      detach: () => {
        this.disconnect(socket);
        socket.end();
      },
    });
    this.socket = socket;
    this.stub = stub;
    socket.on('data', (bytes) => {
      stub.receive(bytes);
      // Who doesn't read the answers isn't asked for more questions.
      if (socket.writableNeedDrain) socket.pause();
    });
    socket.on('drain', () => socket.resume());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.disconnect(socket));
    if (machine.isRunning) machine.pause();
    else stub.stopped(null);
  }

  private disconnect(socket: Socket): void {
    if (this.socket !== socket) return;
    this.stub?.release();
    this.stub = null;
    this.socket = null;
    if (this.end === null) {
      this.debugger.resume(null, () => true);
      this.machine.start();
    }
    this.onFree();
  }
}

/** Also one who neither reads nor hangs up. */
function hangUp(socket: Socket): void {
  socket.end();
  const timer = setTimeout(() => socket.destroy(), PATIENCE_MS);
  socket.once('close', () => clearTimeout(timer));
}
