import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { describe, expect, it } from 'vitest';
import type { ConnectionEvents } from '../dev/net/network-port.ts';
import { AllowedNetwork, parseNetwork } from './allowed-network.ts';

function listener(): { events: ConnectionEvents; heard: string[]; until: (what: string) => Promise<void> } {
  const heard: string[] = [];
  let wake = (): void => {};
  const say = (what: string) => (): void => {
    heard.push(what);
    wake();
  };
  const data = (bytes: Uint8Array): void => say(`data ${Buffer.from(bytes).toString()}`)();
  const events = {
    connected: say('connected'),
    data,
    drained: say('drained'),
    ended: say('ended'),
    failed: say('failed'),
  };
  const until = async (what: string): Promise<void> => {
    while (!heard.includes(what))
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
  };
  return { events, heard, until };
}

describe('the network of the host', () => {
  it('connects to what is allowed, and to nothing else', async () => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('data', (bytes) => socket.write(`echo ${bytes.toString()}`));
      socket.on('end', () => socket.end());
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const network = new AllowedNetwork([`127.0.0.1:${port}`]);
    let activities = 0;
    network.onActivity = () => void activities++;
    const { events, heard, until } = listener();
    expect(network.connect('127.0.0.1', port === 1 ? 2 : 1, events)).toBeNull();
    expect(network.connect('127.0.0.2', port, events)).toBeNull();
    const connection = network.connect('127.0.0.1', port, events)!;
    await until('connected');
    connection.write(Buffer.from('hi'));
    await until('data echo hi');
    connection.end();
    await until('ended');
    expect(heard).toEqual(['connected', 'data echo hi', 'ended']);
    expect(activities).toBe(3);
    network.close();
    server.close();
    await once(server, 'close');
  });

  it('says that nobody listens', async () => {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    const { events, heard, until } = listener();
    new AllowedNetwork([`127.0.0.1:${port}`]).connect('127.0.0.1', port, events);
    await until('failed');
    expect(heard).toEqual(['failed']);
  });

  it.each([
    'deny=1.2.3.4:5',
    'allow=',
    'allow=localhost:80',
    'allow=1.2.3.4',
    'allow=1.2.3.4:0',
    'allow=1.2.3.4:99999',
  ])('does not understand --net %s', (text) => {
    expect(() => parseNetwork(text)).toThrow(/^--net /);
  });
});
