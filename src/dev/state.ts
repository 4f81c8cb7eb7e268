/**
 * A device's state is its fields that are numbers, booleans or typed arrays; fields that hold other objects are its wires,
 * laid once by the constructor. So one pair of functions copies and puts back any device.
 */
export type StateValue = number | boolean | Int32Array | Uint8Array | Uint16Array | Uint32Array | Float64Array;
export type DeviceState = Record<string, StateValue>;

function isTypedArray(value: unknown): value is Exclude<StateValue, number | boolean> {
  return ArrayBuffer.isView(value) && !(value instanceof DataView);
}

/** A copy of what the device remembers. */
export function copyState(device: object): DeviceState {
  const state: DeviceState = {};
  for (const [name, value] of Object.entries(device)) {
    if (typeof value === 'number' || typeof value === 'boolean') state[name] = value;
    else if (isTypedArray(value)) state[name] = value.slice();
  }
  return state;
}

/** Puts a copy back into a device of the same class. Typed arrays of the same length keep their identity. */
export function putState(device: object, state: DeviceState): void {
  const fields = device as Record<string, unknown>;
  for (const [name, value] of Object.entries(state)) {
    const field = fields[name];
    if (isTypedArray(field) && isTypedArray(value) && field.length === value.length) field.set(value);
    else fields[name] = isTypedArray(value) ? value.slice() : value;
  }
}
