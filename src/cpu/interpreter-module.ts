/** The instruction table's forms, and the interpreter compiled from them. */
import { spread } from './forms.ts';
import { interpreterModule } from './interpreter.ts';
import type { Layout } from './state.ts';
import { INSTRUCTION_TABLE } from './table/table.ts';

export const FORMS = spread(INSTRUCTION_TABLE);

/** Modules by the address of the state, the one part of a layout that generated code knows. */
const compiled = new Map<number, WebAssembly.Module>();

/** A CPU at the same place as an earlier one needs no other module. */
export function interpreterFor(layout: Layout): WebAssembly.Module {
  let module = compiled.get(layout.state);
  if (module === undefined) {
    module = new WebAssembly.Module(interpreterModule(FORMS, layout));
    compiled.set(layout.state, module);
  }
  return module;
}
