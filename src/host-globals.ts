/**
 * What Node and browsers have alike, by name: the only things of the host that the library's front uses. (Neither's types
 * are known here; see tsconfig.portable.json.)
 */
interface HostGlobals {
  readonly performance: { now(): number };
  readonly setTimeout: (done: () => void, ms: number) => unknown;
  readonly clearTimeout: (timer: unknown) => void;
  /** Node only. */
  readonly setImmediate?: (done: () => void) => void;
  readonly MessageChannel: new () => { readonly port1: HostPort; readonly port2: HostPort };
  readonly TextEncoder: new () => { encode(text: string): Uint8Array };
  readonly TextDecoder: new () => { decode(bytes: Uint8Array, options: { stream: boolean }): string };
}

interface HostPort {
  addEventListener(type: 'message', listener: () => void, options: { once: boolean }): void;
  start(): void;
  close(): void;
  postMessage(data: unknown): void;
}

export const HOST = globalThis as unknown as HostGlobals;

/** Milliseconds of a clock that never goes back. */
export function hostMs(): number {
  return HOST.performance.now();
}

/** Lets the host do what waits, and no more. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (HOST.setImmediate !== undefined) {
      HOST.setImmediate(resolve);
      return;
    }
    // In a browser: a timer would be made to wait for 4 ms.
    const { port1, port2 } = new HOST.MessageChannel();
    const done = (): void => {
      port1.close();
      resolve();
    };
    port1.addEventListener('message', done, { once: true });
    port1.start();
    port2.postMessage(0);
  });
}
