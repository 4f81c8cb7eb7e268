// @ts-nocheck: it takes syntax trees of every kind apart.
/**
 * Makes generators of the engine, so that a scheduler can stop a thread at each mark of `src/mmu/race.ts` and `lock.ts`
 * and go on with another: production code stays synchronous, and what is explored is that code.
 *
 *     bundle (esbuild) --> which functions can come to a mark? --> function*, yield* --> out/interleave/NAME-HASH.mjs
 *
 * A call whose target isn't known by its name alone (a method, a callback) is made `yield* $of(call)`, which takes a
 * generator or anything else. What cannot be changed so (a getter, a constructor, a callback of a built-in) that would come
 * to a mark is refused, with its place.
 *
 * At each such call the generator leaves its place and the local variables in scope on its thread's stack: the places
 * and values that a state of the checker is made of. For this to be all that a suspended thread knows, no value may hang
 * between two calls of one expression, unless it is a local variable's; that is checked too. Loops over arrays count
 * in variables of their own.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import * as esbuild from 'esbuild';
import { parseSync } from 'oxc-parser';
import { lineOf } from './sources.mjs';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
/** Calls that stop a thread, and the number of the event that the scheduler gets. */
const MARKS = { race: 1, yields: 2, lock: 3, unlock: 4, awaitReaders: 5, awaitNotifiers: 6, choose: 7 };

const PRELUDE = `
const $generator = Object.getPrototypeOf(function* () {}).prototype;
/** The stack of the thread that runs: pairs of a place and its variables. */
let $stack = [];
/** Marks at which it doesn't stop: by kind, point, and entry or word. */
let $passes = () => false;
export function $run(stack, passes) { $stack = stack; $passes = passes; }
function $in(site, locals) { $stack.push(site, locals); }
function $out(value) { $stack.pop(); $stack.pop(); return value; }
function* $of(value) { return $generator.isPrototypeOf(value) ? yield* value : value; }
/** To its end, nobody else running. */
function $alone(value) {
  if (!$generator.isPrototypeOf(value)) return value;
  for (let step = value.next(); ; step = value.next(false)) if (step.done) return step.value;
}
function $list(value) {
  if (!Array.isArray(value) && !ArrayBuffer.isView(value)) throw new TypeError('a loop that may stop goes over an array');
  return value;
}
`;

/**
 * @typedef {import('./sources.mjs').SyntaxNode} SyntaxNode
 * @typedef {{ node: SyntaxNode, parent: SyntaxNode | null, name: string, calls: SyntaxNode[], stops: boolean, callees: Map<string, Set<any>> }} Func
 */

/**
 * Bundles `entry`, changes it, and imports it. `edits`: replacements in sources, for tests that take something away.
 * `alone`: what cannot stop runs what it calls to its end, in place of being refused.
 *
 * @param {string} entry
 * @param {{ edits?: readonly { file: string, from: string, to: string }[], alone?: boolean }} [options]
 */
export async function interleaved(entry, { edits = [], alone = false } = {}) {
  const bundle = await bundleOf(entry, edits);
  const own = readFileSync(fileURLToPath(import.meta.url), 'utf8');
  const hash = createHash('sha256')
    .update(own + String(alone))
    .update(bundle)
    .digest('hex')
    .slice(0, 16);
  const folder = join(ROOT, 'out', 'interleave');
  const path = join(folder, `${hash}.mjs`);
  if (!existsSync(path)) {
    mkdirSync(folder, { recursive: true });
    const aside = `${path}.${process.pid}`;
    writeFileSync(aside, transform(bundle, alone));
    renameSync(aside, path);
  }
  return import(pathToFileURL(path).href);
}

/** @param {string} entry @param {readonly { file: string, from: string, to: string }[]} edits */
async function bundleOf(entry, edits) {
  const used = new Set();
  const result = await esbuild.build({
    absWorkingDir: ROOT,
    entryPoints: [entry],
    bundle: true,
    format: 'esm',
    platform: 'neutral',
    target: 'node20.19',
    write: false,
    logLevel: 'warning',
    plugins: [
      {
        name: 'edits',
        setup(build) {
          build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
            let text = readFileSync(path, 'utf8');
            for (const edit of edits) {
              if (!path.replaceAll('\\', '/').endsWith(edit.file)) continue;
              if (text.split(edit.from).length !== 2) throw new Error(`${edit.file} has not once: ${edit.from}`);
              text = text.replace(edit.from, () => edit.to);
              used.add(edit);
            }
            return { contents: text, loader: 'ts' };
          });
        },
      },
    ],
  });
  for (const edit of edits) if (!used.has(edit)) throw new Error(`${edit.file} is not in the bundle of ${entry}`);
  return result.outputFiles[0].text;
}

/** @param {string} text a bundle @param {boolean} [alone] */
export function transform(text, alone = false) {
  return new Transformer(text, alone).run();
}

const isFunction = (node) =>
  node.type === 'FunctionDeclaration' || node.type === 'FunctionExpression' || node.type === 'ArrowFunctionExpression';

class Transformer {
  constructor(text, alone) {
    this.text = text;
    this.alone = alone;
    this.program = parseSync('bundle.mjs', text).program;
    /** Functions, outermost first. */
    this.functions = [];
    this.byNode = new Map();
    this.topLevel = new Map();
    /** Methods and functions in properties, by name. */
    this.methods = new Map();
    this.parents = new Map();
    this.superclasses = new Map();
    this.classesByName = new Map();
    this.parameters = new Set();
    /** Names of properties that change after their object was made. */
    this.assigned = new Set();
    this.edits = [];
    this.sites = [];
    this.errors = [];
    this.loops = 0;
    /** Calls whose results are being looked for, against going round in circles. */
    this.asking = new Set();
  }

  run() {
    this.collect(this.program, null, null);
    for (const name of this.parameters)
      if (!this.classesByName.has(name)) this.classesByName.set(name, new Set(['unknown']));
    this.spread();
    for (const func of this.functions)
      if (func.stops) this.rewrite(func);
      else if (func.why !== undefined) this.rewriteFixed(func);
    if (this.errors.length > 0) throw new Error(`code that cannot stop at a mark:\n  ${this.errors.join('\n  ')}`);
    const names = this.functions.filter((f) => f.stops && f.name !== '').map((f) => f.name);
    return `${PRELUDE}${this.apply()}\nexport const $sites = ${JSON.stringify(this.sites)};\nexport const $stopping = ${JSON.stringify(names)};\n`;
  }

  // ---- which functions there are -----------------------------------------------------------------------------------

  collect(node, parent, func) {
    this.parents.set(node, parent);
    let inside = func;
    if (node.type === 'ClassDeclaration' || node.type === 'ClassExpression') {
      const name = node.id?.name ?? parent.id?.name;
      node.className = name;
      if (node.superClass?.type === 'Identifier') this.superclasses.set(name, node.superClass.name);
    }
    if (node.type === 'PropertyDefinition') {
      this.learn(node.key.name, node.value);
      this.learn(`${this.parents.get(parent).className}.${node.key.name}`, node.value);
    }
    if (node.type === 'VariableDeclarator' && node.id.type === 'Identifier') this.learn(node.id.name, node.init);
    if (node.type === 'UpdateExpression' && node.argument.type === 'MemberExpression')
      this.assigned.add(node.argument.property.name);
    if (node.type === 'AssignmentExpression') {
      const { left, right } = node;
      // What goes from a name to the same name is known where it came from.
      const name = left.type === 'MemberExpression' ? left.property.name : left.name;
      if (left.type === 'MemberExpression' && func?.name !== 'constructor') this.assigned.add(name);
      if (!(right.type === 'Identifier' && right.name === name)) this.learn(name, right);
      if (left.type === 'MemberExpression' && left.object.type === 'ThisExpression' && func !== null)
        this.learn(`${this.classOf(func)}.${name}`, right);
    }
    if (isFunction(node)) {
      for (const param of node.params) for (const name of patternNames(param)) this.learnParameter(name);
      const method = parent.type === 'MethodDefinition' ? this.parents.get(this.parents.get(parent)).className : null;
      inside = {
        class: method,
        node,
        outer: func,
        name: this.nameOf(node, parent),
        calls: [],
        stops: false,
        variables: new Map(),
      };
      this.functions.push(inside);
      this.byNode.set(node, inside);
      if (node.type === 'FunctionDeclaration' && parent.type === 'Program') this.topLevel.set(node.id.name, inside);
      else if (node.type === 'FunctionDeclaration' && parent.type === 'ExportNamedDeclaration')
        this.topLevel.set(node.id.name, inside);
      const property = propertyOf(node, parent);
      if (property !== null) {
        const list = this.methods.get(property) ?? [];
        list.push(inside);
        this.methods.set(property, list);
      }
    }
    if (node.type === 'CallExpression' && inside !== null) inside.calls.push(node);
    for (const child of childrenOf(node)) this.collect(child, node, inside);
  }

  nameOf(node, parent) {
    if (node.id) return node.id.name;
    if (parent?.type === 'MethodDefinition' || parent?.type === 'Property') return parent.key.name ?? '';
    if (parent?.type === 'VariableDeclarator') return parent.id.name ?? '';
    return '';
  }

  // ---- which of them can come to a mark ----------------------------------------------------------------------------

  /** Until nothing changes: functions that call one that stops, and variables that may hold one. */
  spread() {
    for (;;) {
      let changed = false;
      for (const func of this.functions) {
        for (const call of func.calls) if (this.passOn(func, call)) changed = true;
        if (func.stops || isMark(func) || func.why !== undefined) continue;
        const why = func.calls.find((call) => this.mayStop(func, call) !== null);
        if (why !== undefined) {
          func.why = why;
          func.stops = !this.isFixed(func);
          changed = true;
        }
      }
      if (!changed) return;
    }
  }

  /** What a call may run: 'mark', 'direct' (a generator for sure), 'dynamic', or null: nothing that stops. */
  mayStop(func, call) {
    const { callee } = call;
    if (callee.type === 'Identifier') {
      const local = this.lookup(func, callee);
      if (local !== null) return local.some((f) => f.stops) ? 'dynamic' : null;
      const target = this.topLevel.get(callee.name);
      if (target === undefined) return null;
      if (isMark(target)) return 'mark';
      return target.stops ? 'direct' : null;
    }
    if (callee.type === 'MemberExpression' && !callee.computed)
      return this.methodsOf(func, callee).some((f) => f.stops) ? 'dynamic' : null;
    return this.valuesOf(func, callee).some((f) => f.stops) ? 'dynamic' : null;
  }

  /** Functions that a local name may stand for; null: it isn't local. */
  lookup(func, identifier) {
    for (let f = func; f !== null; f = f.outer) {
      const at = f.node.params.findIndex((p) => paramName(p) === identifier.name);
      if (at >= 0) return f.variables.get(at) ?? [];
      const declarator = this.localDeclarator(f, identifier.name);
      if (declarator !== null) return declarator.init ? this.valuesOf(f, declarator.init) : [];
    }
    return null;
  }

  localDeclarator(func, name) {
    func.declarators ??= new Map(declaratorsOf(func.node.body).map((d) => [d.id.name, d]));
    return func.declarators.get(name) ?? null;
  }

  /** Functions that an expression may give. */
  valuesOf(func, node) {
    if (isFunction(node)) return [this.byNode.get(node)];
    if (node.type === 'Identifier') {
      const local = this.lookup(func, node);
      if (local !== null) return local;
      const target = this.topLevel.get(node.name);
      return target === undefined ? [] : [target];
    }
    if (node.type === 'ConditionalExpression')
      return [...this.valuesOf(func, node.consequent), ...this.valuesOf(func, node.alternate)];
    if (node.type === 'LogicalExpression')
      return [...this.valuesOf(func, node.left), ...this.valuesOf(func, node.right)];
    if (node.type === 'ParenthesizedExpression') return this.valuesOf(func, node.expression);
    if (node.type === 'CallExpression') return this.returnsOf(func, node);
    return [];
  }

  /** Functions that a call may return. */
  returnsOf(func, call) {
    if (call.callee.type !== 'Identifier' || this.asking.has(call)) return [];
    this.asking.add(call);
    const found = [];
    for (const target of this.valuesOf(func, call.callee))
      for (const statement of returnsIn(target.node.body)) found.push(...this.valuesOf(target, statement.argument));
    this.asking.delete(call);
    return found;
  }

  /** Functions among the arguments may be called by whatever is called. True if that was news. */
  passOn(func, call) {
    let changed = false;
    for (const [at, argument] of call.arguments.entries()) {
      const values = this.valuesOf(func, argument);
      if (values.length === 0) continue;
      for (const target of this.targetsOf(func, call)) {
        const known = target.variables.get(at) ?? [];
        const news = values.filter((value) => !known.includes(value));
        if (news.length > 0) {
          target.variables.set(at, [...known, ...news]);
          changed = true;
        }
      }
    }
    return changed;
  }

  /**
   * Methods that `object.name` may be: those of that name in the classes that `object` may be of. For `this` these are its
   * class and its relatives; for a name those that are ever put under it, if all are known.
   */
  methodsOf(func, callee) {
    const all = this.methods.get(callee.property.name) ?? [];
    const { object } = callee;
    let classes;
    if (object.type === 'ThisExpression' || object.type === 'Super') {
      const own = this.classOf(func);
      if (own !== null) return all.filter((method) => method.class === null || this.isRelated(method.class, own));
    } else if (object.type === 'Identifier') classes = this.classesByName.get(object.name);
    else if (object.type === 'MemberExpression' && !object.computed) {
      const { name } = object.property;
      const own =
        object.object.type === 'ThisExpression' ? this.classesByName.get(`${this.classOf(func)}.${name}`) : undefined;
      classes = own !== undefined && own.size > 0 && !own.has('unknown') ? own : this.classesByName.get(name);
    }
    if (classes === undefined || classes.size === 0 || classes.has('unknown')) return all;
    return all.filter(
      (method) => method.class === null || [...classes].some((name) => this.isRelated(name, method.class)),
    );
  }

  classOf(func) {
    for (let f = func; f !== null; f = f.outer) if (f.class !== null) return f.class;
    return null;
  }

  rootOf(name) {
    let root = name;
    while (this.superclasses.has(root)) root = this.superclasses.get(root);
    return root;
  }

  isRelated(a, b) {
    return this.rootOf(a) === this.rootOf(b);
  }

  /** What is ever put under a name, as a field, a variable or a parameter: classes, 'builtin', 'unknown'. */
  learn(name, value) {
    if (typeof name !== 'string') return;
    const classes = this.classesByName.get(name) ?? new Set();
    this.classesByName.set(name, classes);
    const kind = this.kindOf(value);
    if (kind !== null) classes.add(kind);
  }

  /** A parameter that has the name of a field or a variable elsewhere is taken for the same thing. */
  learnParameter(name) {
    this.parameters.add(name);
  }

  kindOf(value) {
    if (value === null || value === undefined || value.type === 'Literal') return null;
    if (value.type === 'NewExpression') return value.callee.type === 'Identifier' ? value.callee.name : 'unknown';
    if (value.type === 'ArrayExpression') return 'builtin';
    return 'unknown';
  }

  targetsOf(func, call) {
    const { callee } = call;
    if (callee.type === 'MemberExpression' && !callee.computed) return this.methodsOf(func, callee);
    return this.valuesOf(func, callee);
  }

  // ---- changing them -----------------------------------------------------------------------------------------------

  rewrite(func) {
    const { node } = func;
    const parent = this.parents.get(node);
    if (node.type === 'FunctionDeclaration') this.insert(node.start + 'function'.length, '*');
    else if (parent.type === 'MethodDefinition') this.insert(parent.key.start, '*');
    else if (parent.type === 'Property' && parent.method) this.insert(parent.key.start, '*');
    else if (node.type === 'FunctionExpression') this.insert(node.start + 'function'.length, '*');
    else this.rewriteArrow(node);
    for (const loop of loopsOf(node.body)) if (this.contains(func, loop.body)) this.rewriteLoop(loop);
    for (const call of func.calls) this.rewriteCall(func, call);
  }

  /** A function that somebody else calls, who takes no generators. */
  isFixed(func) {
    const parent = this.parents.get(func.node);
    return (parent.type === 'MethodDefinition' && parent.kind !== 'method') || this.isArgumentOfBuiltin(func);
  }

  rewriteFixed(func) {
    if (!this.alone) {
      this.refuse(func.node, `${func.name || 'a callback of something built in'} is called by who takes no generator`);
      return;
    }
    for (const call of func.calls) {
      if (this.mayStop(func, call) === null) continue;
      this.insert(call.start, '$alone(', true);
      this.insert(call.end, ')');
    }
  }

  isArgumentOfBuiltin(func) {
    const parent = this.parents.get(func.node);
    if (parent.type !== 'CallExpression' || !parent.arguments.includes(func.node)) return false;
    const outer = func.outer;
    return outer === null || this.targetsOf(outer, parent).length === 0;
  }

  /** Arrows become functions that are bound to what `this` is there. */
  rewriteArrow(node) {
    const { start, end, body } = node;
    const params = this.text
      .slice(start, body.start)
      .replace(/=>\s*\(?\s*$/, '')
      .trim();
    const list = params.startsWith('(') ? params : `(${params})`;
    if (body.type === 'BlockStatement') {
      this.replace(start, body.start, `(function* ${list} `);
      this.insert(end, ').bind(this)');
    } else {
      this.replace(start, body.start, `(function* ${list} { return `);
      // A parenthesis that was opened between the arrow and the body is closed behind it.
      this.replace(body.end, end, '');
      this.insert(end, '; }).bind(this)');
    }
  }

  rewriteCall(func, call) {
    const kind = this.mayStop(func, call);
    if (kind === null) return;
    this.checkBetween(func, call);
    const site = this.sites.length;
    this.sites.push(`${func.name} ${this.placeOf(call)}`);
    const names = this.localsAt(func, call);
    const open = `($in(${site}, () => [${names.join(', ')}]), $out(yield`;
    if (kind === 'mark') {
      const number = MARKS[call.callee.name];
      const [what = '0', at = '0'] = call.arguments.map(({ start, end }) => this.text.slice(start, end));
      this.replace(
        call.start,
        call.end,
        `($passes(${number}, ${what}, ${at}) ? false : ${open} [${number}, ${what}, ${at}])))`,
      );
      return;
    }
    this.insert(call.start, kind === 'direct' ? `${open}* ` : `${open}* $of(`, true);
    this.insert(call.end, kind === 'direct' ? '))' : ')))');
  }

  /** for (const x of list) -> counted. */
  rewriteLoop(loop) {
    const n = this.loopNumber(loop);
    const declaration = loop.left;
    if (declaration.type !== 'VariableDeclaration') {
      this.refuse(loop, 'a loop into an older variable');
      return;
    }
    const target = this.text.slice(declaration.declarations[0].id.start, declaration.declarations[0].id.end);
    this.replace(loop.start, loop.right.start, `for (let $i${n} = 0, $a${n} = $list(`);
    this.insert(loop.right.end, `); $i${n} < $a${n}.length; $i${n}++`);
    const take = `const ${target} = $a${n}[$i${n}];`;
    if (loop.body.type === 'BlockStatement') this.insert(loop.body.start + 1, take);
    else {
      this.insert(loop.body.start, `{ ${take} `, true);
      this.insert(loop.body.end, ' }');
    }
  }

  contains(func, node) {
    return func.calls.some(
      (call) => call.start >= node.start && call.end <= node.end && this.mayStop(func, call) !== null,
    );
  }

  /** Variables that a suspended call may need: those in scope that have been declared before it. */
  localsAt(func, call) {
    const names = ['this'];
    for (const param of func.node.params) names.push(...patternNames(param));
    for (let node = call; node !== func.node; node = this.parents.get(node)) {
      const parent = this.parents.get(node);
      if (parent.type === 'BlockStatement' || parent.type === 'SwitchCase') {
        for (const statement of parent.body ?? parent.consequent)
          if (statement.type === 'VariableDeclaration' && statement.end <= call.start)
            for (const d of statement.declarations) names.push(...patternNames(d.id));
          else if (statement.type === 'VariableDeclaration' && statement.start <= call.start)
            for (const d of statement.declarations) if (d.end <= call.start) names.push(...patternNames(d.id));
      } else if (parent.type === 'ForStatement' && parent.init?.type === 'VariableDeclaration') {
        for (const d of parent.init.declarations) if (d.end <= call.start) names.push(...patternNames(d.id));
      } else if (parent.type === 'ForOfStatement' && node === parent.body) {
        if (this.contains(func, parent.body)) {
          const n = this.loopNumber(parent);
          names.push(`$i${n}`, `$a${n}`);
        }
        for (const d of parent.left.declarations ?? []) names.push(...patternNames(d.id));
      } else if (parent.type === 'CatchClause' && parent.param) names.push(...patternNames(parent.param));
    }
    return [...new Set(names)];
  }

  loopNumber(loop) {
    return (loop.number ??= this.loops++);
  }

  /**
   * Between the call and its statement no value may have been taken that only the stack of the interpreter holds, but those
   * of literals, local variables and `this`.
   */
  checkBetween(func, call) {
    if (this.alone) return;
    for (let node = call; ; node = this.parents.get(node)) {
      const parent = this.parents.get(node);
      const earlier = earlierOf(parent, node);
      for (const other of earlier)
        if (!this.isStable(other))
          this.refuse(other, `a value that is kept across ${this.text.slice(call.start, call.end).slice(0, 60)}`);
      if (/Statement$|Declarator$|^SwitchCase$|^CatchClause$/.test(parent.type) || isFunction(parent)) return;
    }
  }

  /** Does its value follow from local variables and constant fields, so that nothing changes it meanwhile? */
  isStable(node) {
    switch (node.type) {
      case 'Literal':
      case 'Identifier':
      case 'ThisExpression':
        return true;
      case 'UnaryExpression':
        return this.isStable(node.argument);
      case 'BinaryExpression':
        return this.isStable(node.left) && this.isStable(node.right);
      case 'MemberExpression':
        return !node.computed && !this.assigned.has(node.property.name) && this.isStable(node.object);
      case 'ParenthesizedExpression':
        return this.isStable(node.expression);
      default:
        return isFunction(node);
    }
  }

  // ---- text --------------------------------------------------------------------------------------------------------

  insert(at, text, before = false) {
    this.edits.push({ start: at, end: at, text, before, order: this.edits.length });
  }

  replace(start, end, text) {
    this.edits.push({ start, end, text, before: false, order: this.edits.length });
  }

  refuse(node, what) {
    this.errors.push(
      `${this.placeOf(node)}: ${what}: ${this.text.slice(node.start, Math.min(node.end, node.start + 80)).replace(/\s+/g, ' ')}`,
    );
  }

  placeOf(node) {
    const before = this.text.lastIndexOf('\n// src/', node.start);
    const file = before < 0 ? '' : this.text.slice(before + 4, this.text.indexOf('\n', before + 1));
    return `${file}:${lineOf(this.text, node.start) - lineOf(this.text, before + 1)}`;
  }

  /**
   * In the order of places. At one place: what closes an inner call before what closes an outer one, what opens an
   * outer call before what opens an inner one.
   */
  apply() {
    const opening = (e) => (e.start === e.end && !e.before ? 0 : 1);
    this.edits.sort((a, b) => a.start - b.start || opening(a) - opening(b) || this.sameplace(a, b));
    let out = '';
    let at = 0;
    for (const { start, end, text } of this.edits) {
      if (start < at) throw new Error(`edits overlap at ${this.text.slice(start, start + 60)}`);
      out += this.text.slice(at, start) + text;
      at = end;
    }
    return out + this.text.slice(at);
  }

  sameplace(a, b) {
    // Calls are met from the outside in: openings keep that order, closings reverse it.
    return a.before || a.end > a.start ? a.order - b.order : b.order - a.order;
  }
}

/** The name under which an object has a function: as a method, in a literal, or put there. */
function propertyOf(node, parent) {
  if (parent.type === 'MethodDefinition' || parent.type === 'PropertyDefinition') return parent.key.name ?? null;
  if (parent.type === 'Property' && parent.value === node) return parent.key.name ?? null;
  const put =
    parent.type === 'AssignmentExpression' && parent.right === node && parent.left.type === 'MemberExpression';
  return put ? (parent.left.property.name ?? null) : null;
}

function isMark(func) {
  return func.outer === null && func.node.type === 'FunctionDeclaration' && Object.hasOwn(MARKS, func.name);
}

function childrenOf(node) {
  const children = [];
  for (const value of Object.values(node)) {
    if (Array.isArray(value)) children.push(...value.filter((v) => v && typeof v.type === 'string'));
    else if (value && typeof value.type === 'string') children.push(value);
  }
  return children.sort((a, b) => a.start - b.start);
}

function paramName(param) {
  return param.type === 'AssignmentPattern' ? param.left.name : param.name;
}

function patternNames(pattern) {
  if (pattern === null) return [];
  switch (pattern.type) {
    case 'Identifier':
      return [pattern.name];
    case 'AssignmentPattern':
      return patternNames(pattern.left);
    case 'ObjectPattern':
      return pattern.properties.flatMap((p) => patternNames(p.type === 'RestElement' ? p.argument : p.value));
    case 'ArrayPattern':
      return pattern.elements.flatMap(patternNames);
    case 'RestElement':
      return patternNames(pattern.argument);
    default:
      throw new Error(`pattern ${pattern.type}`);
  }
}

/** Without those of functions inside. */
function declaratorsOf(node) {
  const found = [];
  const visit = (n) => {
    if (isFunction(n)) return;
    if (n.type === 'VariableDeclarator' && n.id.type === 'Identifier') found.push(n);
    childrenOf(n).forEach(visit);
  };
  visit(node);
  return found;
}

function returnsIn(node) {
  const found = [];
  const visit = (n) => {
    if (isFunction(n)) return;
    if (n.type === 'ReturnStatement' && n.argument) found.push(n);
    childrenOf(n).forEach(visit);
  };
  visit(node);
  return found;
}

function loopsOf(node) {
  const found = [];
  const visit = (n) => {
    if (isFunction(n)) return;
    if (n.type === 'ForOfStatement') found.push(n);
    childrenOf(n).forEach(visit);
  };
  visit(node);
  return found;
}

/** Parts of an expression that are evaluated before `node`, and whose values are needed after it. */
function earlierOf(parent, node) {
  switch (parent.type) {
    case 'BinaryExpression':
      return node === parent.right ? [parent.left] : [];
    case 'AssignmentExpression':
      return parent.operator === '=' && parent.left.type === 'MemberExpression'
        ? [parent.left.object, ...(parent.left.computed ? [parent.left.property] : [])]
        : parent.operator === '=' || parent.operator.length === 3
          ? []
          : [parent.left];
    case 'CallExpression':
    case 'NewExpression': {
      const { callee } = parent;
      if (node === callee) return [];
      const base = callee.type === 'MemberExpression' ? [callee.object] : [];
      return [...base, ...parent.arguments.slice(0, parent.arguments.indexOf(node))];
    }
    case 'ArrayExpression':
      return parent.elements.slice(0, parent.elements.indexOf(node));
    case 'ObjectExpression':
      return parent.properties.slice(0, parent.properties.indexOf(node)).map((p) => p.value ?? p.argument);
    case 'TemplateLiteral':
      return parent.expressions.slice(0, parent.expressions.indexOf(node));
    default:
      return [];
  }
}

export { MARKS };
