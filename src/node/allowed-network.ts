/** The network port of a machine: TCP connections to the addresses that its owner named, and to no others. */
import { type Socket, connect, isIPv4 } from 'node:net';
import type { ConnectionEvents, HostConnection, NetworkPort } from '../dev/net/network-port.ts';
import { CliError } from './cli-error.ts';

export class AllowedNetwork implements NetworkPort {
  onActivity: () => void = () => {};
  private readonly allowed: ReadonlySet<string>;
  private readonly sockets = new Set<Socket>();

  /** Each `a.b.c.d:port`. */
  constructor(allowed: readonly string[]) {
    this.allowed = new Set(allowed);
  }

  connect(address: string, port: number, events: ConnectionEvents): HostConnection | null {
    if (!this.allowed.has(`${address}:${port}`)) return null;
    const socket = connect({ host: address, port, allowHalfOpen: true });
    this.sockets.add(socket);
    const tell = (what: () => void): void => {
      what();
      this.onActivity();
    };
    socket.on('connect', () => tell(() => events.connected()));
    socket.on('data', (bytes) => tell(() => events.data(bytes)));
    socket.on('drain', () => tell(() => events.drained()));
    socket.on('end', () => tell(() => events.ended()));
    socket.on('error', () => tell(() => events.failed()));
    socket.on('close', () => this.sockets.delete(socket));
    return {
      write: (bytes) => void socket.write(bytes),
      backlog: () => socket.writableLength,
      end: () => void socket.end(),
      destroy: () => {
        socket.removeAllListeners();
        // A late error has nobody to tell.
        socket.on('error', () => {});
        socket.destroy();
        this.sockets.delete(socket);
      },
      pause: () => void socket.pause(),
      resume: () => void socket.resume(),
    };
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy();
    this.sockets.clear();
  }
}

/** `allow=127.0.0.1:8080,10.1.2.3:80` of --net; without it nothing is allowed. */
export function parseNetwork(text: string | true): AllowedNetwork {
  if (text === true) return new AllowedNetwork([]);
  if (!text.startsWith('allow=')) throw new CliError(`--net takes allow=ADDRESS:PORT,..., not '${text}'`);
  const allowed = text.slice('allow='.length).split(',');
  for (const one of allowed) {
    const [address = '', port = '', ...more] = one.split(':');
    if (!isIPv4(address) || !/^[1-9]\d{0,4}$/.test(port) || Number(port) > 65535 || more.length > 0)
      throw new CliError(`--net ${text}: '${one}' is not an IPv4 address and a port, as 127.0.0.1:8080`);
  }
  return new AllowedNetwork(allowed);
}
