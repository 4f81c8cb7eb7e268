/** x87: eight opcodes whose meaning is in ModRM, and the saving of its state. */
import { type Row, row } from './row.ts';

export const X87: readonly Row[] = [
  ...Array.from({ length: 8 }, (_, i) => row(`escape${i}`, `${(0xd8 + i).toString(16)} /r`, 'F', 'escape')),
  row('fwait', '9b', '', 'fwait'),
  row('emms', 'np 0f 77', '', 'emms', 'mmx'),
  row('fxsave', 'np 0f ae /0 mem', 'M', 'fxsave'),
  row('fxrstor', 'np 0f ae /1 mem', 'M', 'fxrstor'),
  row('xsave', 'np 0f ae /4 mem', 'M', 'xsave', 'if:xsave'),
  row('xrstor', 'np 0f ae /5 mem', 'M', 'xrstor', 'if:xsave'),
  row('xsaveopt', 'np 0f ae /6 mem', 'M', 'xsave', 'if:xsaveopt'),
  row('ldmxcsr', 'np 0f ae /2 mem', 'Md', 'ldmxcsr', 'sse'),
  row('stmxcsr', 'np 0f ae /3 mem', 'Md', 'stmxcsr', 'sse'),
].flat();
