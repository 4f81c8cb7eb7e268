/* Calls bench() and stops; the result is in RAX. */
  .globl _start
_start:
  call bench
  hlt
