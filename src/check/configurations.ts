/**
 * The configurations: two vCPUs, a large region and two of its pages, and what is done to them at the same time. Each starts with
 * the region mapped by one writable large leaf, in whose shadow both vCPUs have translations, unless `before` says more.
 * Where a list has several operations, each is tried.
 */
import type { Configuration } from './explore.ts';

const LARGE = ['write 0 1', 'read 1 1'] as const;

export const CONFIGURATIONS: readonly Configuration[] = [
  {
    name: 'start',
    about: 'the log starts while both vCPUs write',
    start: { before: LARGE },
    threads: [
      { name: 'vcpu0', program: [['write 0 0', 'write 0 1']] },
      { name: 'vcpu1', program: [['write 1 1']] },
      { name: 'ioctl', program: [['log start']] },
    ],
  },
  {
    name: 'logged',
    about: 'first writes to the large region while it is logged',
    start: { before: [...LARGE, 'log start'] },
    threads: [
      { name: 'vcpu0', program: [['write 0 0', 'write 0 1', 'read 0 0'], ['write 0 0']] },
      { name: 'vcpu1', program: [['write 1 0', 'write 1 1']] },
    ],
  },
  {
    name: 'get',
    about: 'the log is collected while both vCPUs write to the same page',
    start: { before: [...LARGE, 'log start', 'write 0 0'] },
    threads: [
      { name: 'vcpu0', program: [['write 0 0']] },
      { name: 'vcpu1', program: [['write 1 0']] },
      { name: 'ioctl', program: [['get']] },
    ],
  },
  {
    name: 'get twice',
    about: 'two collections in a row and a vCPU that writes again and again',
    start: { before: [...LARGE, 'log start', 'write 0 0', 'write 1 0'] },
    threads: [
      { name: 'vcpu0', program: [['write 0 0'], ['write 0 0', 'write 0 1']] },
      { name: 'ioctl', program: [['get'], ['get']] },
    ],
  },
  {
    name: 'clear',
    about: 'manual protection, the log initially all ones: get and clear of what is still mapped by a large leaf',
    start: { manual: 3, before: [...LARGE, 'log start'] },
    threads: [
      { name: 'vcpu0', program: [['write 0 0']] },
      { name: 'vcpu1', program: [['write 1 1']] },
      { name: 'ioctl', program: [['get'], ['clear']] },
    ],
  },
  {
    name: 'stop',
    about: 'the log stops, so that large leaves may come back, while both vCPUs fault',
    start: { before: [...LARGE, 'log start', 'write 0 0'] },
    threads: [
      { name: 'vcpu0', program: [['write 0 0']] },
      { name: 'vcpu1', program: [['write 1 1']] },
      { name: 'ioctl', program: [['log stop']] },
    ],
  },
  {
    name: 'unmap',
    about: 'the host takes the frames away while both vCPUs fault',
    start: { before: LARGE },
    threads: [
      { name: 'vcpu0', program: [['write 0 0']] },
      { name: 'vcpu1', program: [['read 1 1']] },
      { name: 'host', program: [['unmap']] },
    ],
  },
  {
    name: 'unmap and get',
    about: 'the host takes the frames away while the log is collected and a vCPU writes',
    start: { before: [...LARGE, 'log start', 'write 0 0'] },
    threads: [
      { name: 'vcpu0', program: [['write 0 0']] },
      { name: 'ioctl', program: [['get']] },
      { name: 'host', program: [['unmap']] },
    ],
  },
  {
    name: 'unmap and start',
    about: 'the host takes the frames away while the log starts and a vCPU writes',
    start: { before: LARGE },
    threads: [
      { name: 'vcpu0', program: [['write 0 0']] },
      { name: 'ioctl', program: [['log start']] },
      { name: 'host', program: [['unmap']] },
    ],
  },
  {
    name: 'unmap and stop',
    about: 'the host takes the frames away while the log stops and a vCPU writes',
    start: { before: [...LARGE, 'log start', 'write 0 0'] },
    threads: [
      { name: 'vcpu0', program: [['write 0 0']] },
      { name: 'ioctl', program: [['log stop']] },
      { name: 'host', program: [['unmap']] },
    ],
  },
  {
    name: 'unmap and delete',
    about: 'the host takes the frames away while the slot is deleted and a vCPU writes',
    start: { before: LARGE },
    threads: [
      { name: 'vcpu0', program: [['write 0 0']] },
      { name: 'ioctl', program: [['delete']] },
      { name: 'host', program: [['unmap']] },
    ],
  },
  {
    name: 'delete',
    about: 'the slot is deleted while both vCPUs fault',
    start: { before: LARGE },
    threads: [
      { name: 'vcpu0', program: [['write 0 0']] },
      { name: 'vcpu1', program: [['read 1 1']] },
      { name: 'ioctl', program: [['delete']] },
    ],
  },
];
