/** The instruction table's forms, and the interpreter compiled from them. */
import { spread } from './forms.ts';
import { interpreterModule } from './interpreter.ts';
import type { Layout } from './state.ts';
import { INSTRUCTION_TABLE } from './table/table.ts';

export const FORMS = spread(INSTRUCTION_TABLE);

/** Modules by what they depend on: of a layout generated code knows the address of the state. */
const compiled = new Map<string, WebAssembly.Module>();

/** A CPU at the same place as an earlier one needs no other module. */
export function interpreterFor(layout: Layout, counts: boolean): WebAssembly.Module {
  const key = `${layout.state} ${counts}`;
  let module = compiled.get(key);
  if (module === undefined) {
    module = new WebAssembly.Module(interpreterModule(FORMS, layout, counts));
    compiled.set(key, module);
  }
  return module;
}
