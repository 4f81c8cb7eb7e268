/** Configurations that take a second or less. */
import type { Configuration } from '../explore.ts';

/** One vCPU and the log's ioctls, in a logged slot whose page 0 is mapped by a small leaf. */
export const SMALL: Configuration = {
  name: 'small',
  about: '',
  start: { before: ['write 0 1', 'log start', 'write 0 0'] },
  threads: [
    { name: 'vcpu0', program: [['write 0 0'], ['write 0 0']] },
    { name: 'ioctl', program: [['get']] },
  ],
};

/** A vCPU and a host that takes the frames away. */
export const UNMAP: Configuration = {
  name: 'small unmap',
  about: '',
  start: { before: ['read 1 1'] },
  threads: [
    { name: 'vcpu0', program: [['write 0 0'], ['read 0 0']] },
    { name: 'host', program: [['unmap']] },
  ],
};

/** Two first writes to one page of a large region that is logged. */
export const SAME_PAGE: Configuration = {
  name: 'same page',
  about: '',
  start: { before: ['write 0 1', 'log start'] },
  threads: [
    { name: 'vcpu0', program: [['write 0 0']] },
    { name: 'vcpu1', program: [['write 1 0']] },
  ],
};

/** As `UNMAP`, in a logged slot, where writes come by the fast fault. */
export const UNMAP_LOGGED: Configuration = {
  name: 'small unmap, logged',
  about: '',
  start: { before: ['write 0 1', 'log start', 'write 0 0', 'get'] },
  threads: UNMAP.threads,
};

/** A vCPU that writes while the log starts or stops, or all of it is cleared, or the slot goes. */
function oneWriter(name: string, operations: readonly ('log start' | 'log stop' | 'get' | 'clear' | 'delete')[]) {
  const isLogged = operations[0] !== 'log start' && operations[0] !== 'delete';
  return {
    name,
    about: '',
    start: {
      manual: operations.includes('clear') ? 3 : undefined,
      before: ['write 0 1', ...(isLogged ? (['log start', 'write 0 0'] as const) : [])],
    },
    threads: [
      { name: 'vcpu0', program: [['write 0 0', 'write 0 1']] },
      { name: 'ioctl', program: operations.map((operation) => [operation]) },
    ],
  } satisfies Configuration;
}

export const START_ONE = oneWriter('small start', ['log start']);
export const STOP_ONE = oneWriter('small stop', ['log stop']);
export const CLEAR_ONE = oneWriter('small clear', ['get', 'clear']);
export const DELETE_ONE = oneWriter('small delete', ['delete']);
