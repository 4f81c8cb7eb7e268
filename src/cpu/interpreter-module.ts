/** The instruction table's forms, and the interpreter compiled from them. */
import { spread } from './forms.ts';
import { interpreterModule } from './interpreter.ts';
import type { Layout } from './state.ts';
import { INSTRUCTION_TABLE } from './table/table.ts';

export const FORMS = spread(INSTRUCTION_TABLE);

/** The module of the last layout: a second CPU at the same place needs no other. */
let compiled: { layout: Layout; module: WebAssembly.Module } | null = null;

export function interpreterFor(layout: Layout): WebAssembly.Module {
  if (compiled?.layout.state !== layout.state || compiled.layout.tlb !== layout.tlb) {
    compiled = { layout, module: new WebAssembly.Module(interpreterModule(FORMS, layout)) };
  }
  return compiled.module;
}
