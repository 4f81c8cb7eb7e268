/**
 * The ACPI tables of our board, between 0xe0000 and 1 MiB:
 *
 *   RSDP -> XSDT -> FADT -> FACS, DSDT     \_S5, \_PIC, CPUs, PCI root, COM1, RTC
 *               \-> MADT                   local APICs, IOAPIC, IRQ 0 at pin 2, the SCI as a level, NMI at LINT1
 *
 * The machine is in ACPI mode from the start and has no i8042 and no VGA; the FADT says so.
 */
import { PM1A_CONTROL_PORT, PM1A_EVENT_PORT, PM_TIMER_PORT, SCI_IRQ, SLEEP_TYPE_S5 } from '../../dev/acpi-pm.ts';
import { IOAPIC_GPA } from '../../dev/ioapic.ts';
import { LOCAL_APIC_GPA } from '../../dev/local-apic.ts';
import {
  irqOfSlot,
  PCI_PORT,
  PCI_SLOTS,
  PCI_WINDOW_BYTES,
  PCI_WINDOW_GPA,
  pinOfSlot,
  RESET_PORT,
  RESET_VALUE,
} from '../../dev/pci/pci-host.ts';
import { RTC_CENTURY, RTC_IRQ, RTC_PORT } from '../../dev/rtc-mc146818.ts';
import { COM1_IRQ, COM1_PORT, UART_PORTS } from '../../dev/uart-16550.ts';
import {
  type Aml,
  ARGUMENT_0,
  device,
  eisaId,
  ifTrue,
  integer,
  method,
  name,
  nameString,
  packageOf,
  pciRoot,
  portAndIrq,
  returns,
  scope,
  store,
  string,
} from './aml.ts';
import { type MemoryWrite, setU64, utf8 } from './boot-image.ts';
import { FIRMWARE_GPA } from './e820.ts';

const HEADER_BYTES = 36;
const RSDP_BYTES = 36;
const FADT_BYTES = 268;
const FACS_BYTES = 64;
const OEM_ID = 'PENUMB';
const OEM_TABLE_ID = 'PENUMBRA';

// FADT flags and boot flags.
const WBINVD_WORKS = 1 << 0;
const C1_WORKS = 1 << 2;
const NO_SLEEP_BUTTON = 1 << 5;
const RTC_WAKES_NOT = 1 << 6;
const TIMER_IS_32_BITS = 1 << 8;
const RESET_REGISTER_WORKS = 1 << 10;
const BOOT_LEGACY_DEVICES = 1 << 0;
const BOOT_NO_VGA = 1 << 2;
const BOOT_NO_ASPM = 1 << 4;

const SPACE_IO = 1;

export interface AcpiTables {
  readonly rsdpGpa: number;
  /** One write, in the reserved area. */
  readonly write: MemoryWrite;
  /** Each table's bytes by its signature; DSDT included, FACS and RSDP not. */
  readonly tables: ReadonlyMap<string, Uint8Array>;
}

/** The tables for so many CPUs, whose APIC IDs are 0, 1, ...; the IOAPIC's is the next one. */
export function buildAcpiTables(cpus: number): AcpiTables {
  const facsGpa = FIRMWARE_GPA + 64; // aligned to 64
  let next = facsGpa + FACS_BYTES;
  const place = (bytes: Uint8Array): number => {
    const gpa = next;
    next = Math.ceil((next + bytes.length) / 16) * 16;
    return gpa;
  };
  const dsdt = buildDsdt(cpus);
  const dsdtGpa = place(dsdt);
  const fadt = buildFadt(dsdtGpa, facsGpa);
  const madt = buildMadt(cpus);
  const pointers = [place(fadt), place(madt)];
  const xsdt = buildXsdt(pointers);
  const xsdtGpa = place(xsdt);

  const all = new Uint8Array(next - FIRMWARE_GPA);
  all.set(buildRsdp(xsdtGpa), 0);
  all.set(buildFacs(), facsGpa - FIRMWARE_GPA);
  for (const [bytes, gpa] of [
    [dsdt, dsdtGpa],
    [fadt, pointers[0]],
    [madt, pointers[1]],
    [xsdt, xsdtGpa],
  ] as const) {
    all.set(bytes, gpa - FIRMWARE_GPA);
  }
  const tables = new Map([
    ['XSDT', xsdt],
    ['FACP', fadt],
    ['APIC', madt],
    ['DSDT', dsdt],
  ]);
  return { rsdpGpa: FIRMWARE_GPA, write: { gpa: FIRMWARE_GPA, bytes: all }, tables };
}

function buildDsdt(cpus: number): Uint8Array {
  const processors = Array.from({ length: cpus }, (_, id) =>
    device(
      `C${id.toString(16).toUpperCase().padStart(3, '0')}`,
      name('_HID', string('ACPI0007')),
      name('_UID', integer(id)),
    ),
  );
  const legacy = (path: string, id: string, resources: Aml): Aml =>
    device(path, name('_HID', eisaId(id)), name('_UID', integer(1)), name('_CRS', resources));
  const body = [
    ...name('PICM', integer(0)),
    ...method('_PIC', 1, store(ARGUMENT_0, nameString('PICM'))),
    ...name('_S5', packageOf(integer(SLEEP_TYPE_S5), integer(SLEEP_TYPE_S5), integer(0), integer(0))),
    ...scope(
      '_SB',
      ...processors,
      device(
        'PCI0',
        name('_HID', eisaId('PNP0A03')),
        name('_UID', integer(0)),
        name('_CRS', pciRoot(PCI_PORT, PCI_WINDOW_GPA, PCI_WINDOW_BYTES)),
        // Whichever controllers the system says that it uses.
        method('_PRT', 0, ifTrue(nameString('PICM'), returns(intxRoutes(pinOfSlot))), returns(intxRoutes(irqOfSlot))),
      ),
      legacy('COM1', 'PNP0501', portAndIrq(COM1_PORT, UART_PORTS, COM1_IRQ)),
      legacy('RTC0', 'PNP0B00', portAndIrq(RTC_PORT, 2, RTC_IRQ)),
    ),
  ];
  return table('DSDT', 2, Uint8Array.from(body));
}

/** INTA of each slot: a global interrupt, without a link device. */
function intxRoutes(interruptOf: (slot: number) => number): Aml {
  const routes = Array.from({ length: PCI_SLOTS - 1 }, (_, i) => {
    const slot = i + 1;
    return packageOf(integer(slot * 65536 + 0xffff), integer(0), integer(0), integer(interruptOf(slot)));
  });
  return packageOf(...routes);
}

function buildFadt(dsdtGpa: number, facsGpa: number): Uint8Array {
  const body = new Uint8Array(FADT_BYTES - HEADER_BYTES);
  const view = new DataView(body.buffer);
  // Offsets as the specification has them, from the start of the table.
  const at = (offset: number): number => offset - HEADER_BYTES;
  view.setUint32(at(36), facsGpa, true);
  view.setUint32(at(40), dsdtGpa, true);
  view.setUint16(at(46), SCI_IRQ, true);
  view.setUint32(at(56), PM1A_EVENT_PORT, true);
  view.setUint32(at(64), PM1A_CONTROL_PORT, true);
  view.setUint32(at(76), PM_TIMER_PORT, true);
  view.setUint8(at(88), 4);
  view.setUint8(at(89), 2);
  view.setUint8(at(91), 4);
  // C2 and C3 don't exist: latencies beyond what is taken seriously.
  view.setUint16(at(96), 0xfff, true);
  view.setUint16(at(98), 0xfff, true);
  view.setUint8(at(108), RTC_CENTURY);
  view.setUint16(at(109), BOOT_LEGACY_DEVICES | BOOT_NO_VGA | BOOT_NO_ASPM, true);
  const flags = WBINVD_WORKS | C1_WORKS | NO_SLEEP_BUTTON | RTC_WAKES_NOT | TIMER_IS_32_BITS | RESET_REGISTER_WORKS;
  view.setUint32(at(112), flags, true);
  setIoAddress(view, at(116), RESET_PORT, 1);
  view.setUint8(at(128), RESET_VALUE);
  view.setUint8(at(131), 1); // 5.1
  setU64(view, at(140), dsdtGpa);
  setIoAddress(view, at(148), PM1A_EVENT_PORT, 4);
  setIoAddress(view, at(172), PM1A_CONTROL_PORT, 2);
  setIoAddress(view, at(208), PM_TIMER_PORT, 4);
  return table('FACP', 5, body);
}

/** A generic address: a register of `bytes` bytes in port space. */
function setIoAddress(view: DataView, at: number, port: number, bytes: number): void {
  view.setUint8(at, SPACE_IO);
  view.setUint8(at + 1, bytes * 8);
  view.setUint8(at + 3, bytes === 4 ? 3 : bytes); // access size: 1 byte, 2 word, 3 dword
  setU64(view, at + 4, port);
}

function buildMadt(cpus: number): Uint8Array {
  const u32 = (value: number): number[] => [value & 255, (value >>> 8) & 255, (value >>> 16) & 255, value >>> 24];
  const body = [...u32(LOCAL_APIC_GPA), ...u32(1)]; // there are 8259s, too
  for (let id = 0; id < cpus; id++) body.push(0, 8, id, id, ...u32(1));
  body.push(1, 12, cpus & 15, 0, ...u32(IOAPIC_GPA), ...u32(0));
  const override = (irq: number, pin: number, flags: number): number => body.push(2, 10, 0, irq, ...u32(pin), flags, 0);
  override(0, 2, 0);
  override(SCI_IRQ, SCI_IRQ, 0x0d); // active high, level
  body.push(4, 6, 0xff, 0, 0, 1); // on all CPUs, LINT1 is NMI
  return table('APIC', 4, Uint8Array.from(body));
}

function buildXsdt(pointers: readonly number[]): Uint8Array {
  const body = new Uint8Array(pointers.length * 8);
  const view = new DataView(body.buffer);
  for (const [i, gpa] of pointers.entries()) setU64(view, i * 8, gpa);
  return table('XSDT', 1, body);
}

function buildFacs(): Uint8Array {
  const bytes = new Uint8Array(FACS_BYTES);
  bytes.set(utf8('FACS'));
  bytes[4] = FACS_BYTES;
  bytes[32] = 2; // version
  return bytes;
}

function buildRsdp(xsdtGpa: number): Uint8Array {
  const bytes = new Uint8Array(RSDP_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(utf8('RSD PTR '));
  bytes.set(utf8(OEM_ID), 9);
  bytes[15] = 2; // revision
  view.setUint32(20, RSDP_BYTES, true);
  setU64(view, 24, xsdtGpa);
  bytes[8] = checksum(bytes.subarray(0, 20));
  bytes[32] = checksum(bytes);
  return bytes;
}

/** A table with its header and checksum. */
function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + body.length);
  const view = new DataView(bytes.buffer);
  bytes.set(utf8(signature));
  view.setUint32(4, bytes.length, true);
  bytes[8] = revision;
  bytes.set(utf8(OEM_ID), 10);
  bytes.set(utf8(OEM_TABLE_ID), 16);
  view.setUint32(24, 1, true);
  bytes.set(utf8('PNMB'), 28);
  view.setUint32(32, 1, true);
  bytes.set(body, HEADER_BYTES);
  bytes[9] = checksum(bytes);
  return bytes;
}

/** What makes the sum of all bytes 0. */
function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) sum += byte;
  return -sum & 0xff;
}
