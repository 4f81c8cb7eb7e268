/**
 * The way out of the user-mode network: connections that the host makes for the guest, if its owner allowed the address. Events come when
 * the guest doesn't run.
 */
export interface NetworkPort {
  /** Begins to connect to an IPv4 address, `a.b.c.d`; null: that isn't allowed. */
  connect(address: string, port: number, events: ConnectionEvents): HostConnection | null;
  /** Set by the machine: something has happened, and the guest may have work. */
  onActivity: () => void;
  /** The machine has ended: so do all connections. */
  close(): void;
}

export interface HostConnection {
  write(bytes: Uint8Array): void;
  /** Bytes that were written and are still on their way. */
  backlog(): number;
  /** Nothing more will be written. */
  end(): void;
  /** No more events. */
  destroy(): void;
  pause(): void;
  resume(): void;
}

export interface ConnectionEvents {
  connected(): void;
  data(bytes: Uint8Array): void;
  /** The backlog is gone. */
  drained(): void;
  /** The other side will send nothing more. */
  ended(): void;
  /** It can't be had, or is broken. */
  failed(): void;
}
