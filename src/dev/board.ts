/**
 * The board of a PC: every device built, wired and given its addresses. What the CPUs add for themselves is a `BoardCpu` each.
 *
 *   ISA IRQ:  0 PIT   4 COM1   8 RTC   9 SCI          PIC pin n and IOAPIC pin n (0 is pin 2)
 *   ports:    20 a0 4d0 PIC   40 61 PIT   60 64 92 reset   70 RTC   e0 e4 e8 2000 test   f4 exit
 *             3f8 COM1   510 fw_cfg   560 loader   600 ACPI   cf8 PCI and reset
 *   gpa:      c0000000 PCI devices   fec00000 IOAPIC   fee00000 local APIC (each CPU's own, `apic.covers`)   ff000000 test
 */
import { AcpiPm, PM1A_EVENT_PORT, PM_PORTS, SCI_IRQ } from './acpi-pm.ts';
import { ApicBus } from './apic-bus.ts';
import { MmioBus, PortBus } from './bus.ts';
import { VirtualClock } from './clock.ts';
import { FW_CFG_PORT, FW_CFG_PORTS, FwCfg } from './fw-cfg.ts';
import { IOAPIC_BYTES, IOAPIC_GPA, IoApic } from './ioapic.ts';
import { IrqLine, IsaIrqs, NO_IRQ } from './irq.ts';
import { type GuestWriter, KvmClock } from './kvm-clock.ts';
import { LocalApic } from './local-apic.ts';
import { PCI_PORT, PCI_PORTS, PCI_SLOTS, PCI_WINDOW_BYTES, PCI_WINDOW_GPA, PciHost, PIC_IRQS } from './pci/pci-host.ts';
import { PIC_ELCR_PORT, PIC_MASTER_PORT, PIC_SLAVE_PORT, Pic8259 } from './pic-8259.ts';
import { PIT_IRQ, PIT_PORT, PIT_SPEAKER_PORT, Pit8254 } from './pit-8254.ts';
import { PowerState } from './power.ts';
import {
  KEYBOARD_COMMAND_PORT,
  KEYBOARD_DATA_PORT,
  InitLine,
  KeyboardStub,
  LOADER_PORT,
  LoaderPort,
  SYSTEM_CONTROL_PORT,
  SystemControl,
} from './reset-ports.ts';
import { RTC_IRQ, RTC_PORT, RtcMc146818 } from './rtc-mc146818.ts';
import { type DeviceState, copyState, putState } from './state.ts';
import {
  DEBUG_EXIT_PORT,
  DebugExit,
  type PageFlusher,
  TEST_MEMORY_BYTES,
  TEST_MEMORY_GPA,
  TestDevice,
} from './test-devices.ts';
import { Tsc } from './tsc.ts';
import { type VirtioDevice } from './virtio/virtio-device.ts';
import { BAR_SPACE, VirtioPci } from './virtio/virtio-pci.ts';
import { Workload } from './workload.ts';
import { type ByteSink, COM1_IRQ, COM1_PORT, UART_PORTS, Uart16550 } from './uart-16550.ts';

export interface BoardOptions {
  readonly ramBytes: number;
  readonly cpus: number;
  /** Time of day at power-on, UTC, in seconds since 1970. */
  readonly epochS: number;
  /** What the guest sends on its serial port. */
  readonly console: ByteSink;
  readonly memory: GuestWriter;
  readonly flusher?: PageFlusher;
  readonly tscKhz?: number;
  /** Whether the CPUs have x2APIC; true if not given. */
  readonly x2apic?: boolean;
}

export interface BoardCpu {
  readonly apic: LocalApic;
  readonly tsc: Tsc;
  readonly kvmClock: KvmClock;
}

export class Board {
  readonly clock = new VirtualClock();
  readonly power = new PowerState();
  readonly ports = new PortBus();
  readonly mmio = new MmioBus();
  readonly apicBus = new ApicBus();
  readonly cpus: BoardCpu[] = [];
  readonly pic: Pic8259;
  /** From the PIC to the boot processor's LINT0. */
  readonly intr: IrqLine;
  readonly ioapic: IoApic;
  readonly irqs: IsaIrqs;
  readonly uart: Uart16550;
  readonly pit: Pit8254;
  readonly rtc: RtcMc146818;
  readonly acpiPm: AcpiPm;
  readonly pciHost: PciHost;
  /** What the machine's devices have to do. */
  readonly workload = new Workload();
  readonly fwCfg: FwCfg;
  readonly testDevice: TestDevice;
  readonly keyboard: KeyboardStub;
  readonly systemControl: SystemControl;
  readonly virtio: VirtioPci[] = [];
  /** What a reset puts back, by device. */
  private readonly powerOn: Record<string, DeviceState>;

  constructor(options: BoardOptions) {
    const { clock, power, apicBus } = this;
    for (let id = 0; id < options.cpus; id++) {
      const tsc = new Tsc(clock, options.tscKhz);
      const apic = new LocalApic({ id, clock, tsc, bus: apicBus, boot: id === 0, x2apic: options.x2apic });
      this.cpus.push({ apic, tsc, kvmClock: new KvmClock(clock, tsc, options.memory, options.epochS) });
    }
    const boot = this.cpus[0]?.apic;
    this.intr = new IrqLine(boot ?? NO_IRQ, 0);
    this.pic = new Pic8259(this.intr);
    boot?.connectPic(this.pic);
    // Its ID follows those of the CPUs; the MADT says the same.
    this.ioapic = new IoApic(apicBus, options.cpus & 15);
    this.irqs = new IsaIrqs(this.pic, this.ioapic);
    this.uart = new Uart16550(clock, this.irqs.line(COM1_IRQ), options.console);
    this.pit = new Pit8254(clock, this.irqs.line(PIT_IRQ));
    this.rtc = new RtcMc146818(clock, this.irqs.line(RTC_IRQ), options.epochS);
    this.acpiPm = new AcpiPm(clock, this.irqs.line(SCI_IRQ), power);
    const init = new InitLine(apicBus);
    this.keyboard = new KeyboardStub(init);
    this.systemControl = new SystemControl(init);
    for (const irq of PIC_IRQS) this.pic.elcr[irq >> 3] |= 1 << (irq & 7);
    this.pciHost = new PciHost(power, init, this.ioapic, this.pic);
    this.fwCfg = new FwCfg(options.ramBytes, options.cpus);
    this.testDevice = new TestDevice(this.irqs, options.flusher ?? null);
    this.claimAddresses();
    this.powerOn = this.copyState();
  }

  /** Puts a virtio device into the next free slot of the PCI bus; before the guest runs. Throws a RangeError if there is none. */
  addVirtio(device: VirtioDevice): VirtioPci {
    const slot = this.pciHost.functions.indexOf(null);
    if (slot < 0) throw new RangeError(`more than ${PCI_SLOTS - 1} PCI devices`);
    const pci = new VirtioPci(device, this.pciHost, slot, PCI_WINDOW_GPA + slot * BAR_SPACE, this.apicBus);
    this.pciHost.functions[slot] = pci;
    this.virtio.push(pci);
    return pci;
  }

  /** WRMSR of IA32_TSC: what was told in terms of the counter is told anew. */
  writeTsc(cpu: number, lo: number, hi: number): void {
    this.cpus[cpu].tsc.write(lo, hi);
    this.tscMoved(cpu);
  }

  /** WRMSR of IA32_TSC_ADJUST. */
  writeTscAdjust(cpu: number, lo: number, hi: number): void {
    this.cpus[cpu].tsc.writeAdjust(lo, hi);
    this.tscMoved(cpu);
  }

  /** RESET: the counter begins at 0. */
  resetTsc(cpu: number): void {
    const { tsc } = this.cpus[cpu];
    tsc.write(0, 0);
    tsc.adjustLo = 0;
    tsc.adjustHi = 0;
  }

  private tscMoved(cpu: number): void {
    const { apic, kvmClock } = this.cpus[cpu];
    apic.timer.rearm();
    kvmClock.update();
  }

  /**
   * All devices as at power-on, as firmware's self-test leaves them too. What goes on: the time, that of day, CMOS memory, the time
   * stamp counters, port 0x92's reset bit, and what the host has typed.
   */
  reset(): void {
    const { clock, uart, rtc, acpiPm } = this;
    for (const pci of this.virtio) pci.powerOn();
    clock.cancelAll();
    const goesOn: readonly object[] = [
      clock,
      rtc,
      uart,
      acpiPm,
      this.systemControl,
      ...this.cpus.map(({ tsc }) => tsc),
    ];
    for (const [name, part] of this.parts()) {
      const state = this.powerOn[name];
      if (state !== undefined && !goesOn.includes(part)) putState(part, state);
    }
    rtc.reset();
    uart.reset();
    acpiPm.reset();
  }

  /** The state of everything on the board, by device. */
  copyState(): Record<string, DeviceState> {
    return Object.fromEntries(this.parts().map(([name, part]) => [name, copyState(part)]));
  }

  /** Puts back what `copyState` of a board with the same options gave. */
  putState(state: Record<string, DeviceState>): void {
    for (const [name, part] of this.parts()) putState(part, state[name]);
  }

  private parts(): [string, object][] {
    const { clock, power, pic, ioapic, uart, pit, rtc, acpiPm, pciHost, fwCfg, testDevice } = this;
    const parts: [string, object][] = Object.entries({ clock, power, pic, ioapic, uart, pit, rtc, acpiPm, pciHost });
    parts.push(['intr', this.intr], ['fwCfg', fwCfg], ['testDevice', testDevice]);
    parts.push(['keyboard', this.keyboard], ['systemControl', this.systemControl]);
    for (const [i, { apic, tsc, kvmClock }] of this.cpus.entries()) {
      parts.push([`apic${i}`, apic], [`apicTimer${i}`, apic.timer], [`tsc${i}`, tsc], [`kvmClock${i}`, kvmClock]);
    }
    for (const [i, pci] of this.virtio.entries()) {
      parts.push([`virtio${i}`, pci], [`virtioMsix${i}`, pci.msix], [`virtioDevice${i}`, pci.device]);
      for (const [q, queue] of pci.device.queues.entries()) parts.push([`virtioQueue${i}.${q}`, queue]);
    }
    for (const [irq, line] of this.irqs.lines.entries()) parts.push([`irq${irq}`, line]);
    return parts;
  }

  private claimAddresses(): void {
    const { ports, power } = this;
    ports.claim(PIC_MASTER_PORT, 2, this.pic);
    ports.claim(PIC_SLAVE_PORT, 2, this.pic);
    ports.claim(PIC_ELCR_PORT, 2, this.pic);
    ports.claim(PIT_PORT, 4, this.pit);
    ports.claim(PIT_SPEAKER_PORT, 1, this.pit);
    ports.claim(KEYBOARD_DATA_PORT, 1, this.keyboard);
    ports.claim(KEYBOARD_COMMAND_PORT, 1, this.keyboard);
    ports.claim(SYSTEM_CONTROL_PORT, 1, this.systemControl);
    ports.claim(LOADER_PORT, 1, new LoaderPort(power));
    ports.claim(RTC_PORT, 2, this.rtc);
    ports.claim(COM1_PORT, UART_PORTS, this.uart);
    ports.claim(FW_CFG_PORT, FW_CFG_PORTS, this.fwCfg, 2);
    ports.claim(PM1A_EVENT_PORT, PM_PORTS, this.acpiPm, 4);
    ports.claim(PCI_PORT, PCI_PORTS, this.pciHost, 4);
    ports.claim(DEBUG_EXIT_PORT, 4, new DebugExit(power), 4);
    this.testDevice.claimPorts(ports);
    this.mmio.claim(PCI_WINDOW_GPA, PCI_WINDOW_BYTES, this.pciHost);
    this.mmio.claim(IOAPIC_GPA, IOAPIC_BYTES, this.ioapic);
    this.mmio.claim(TEST_MEMORY_GPA, TEST_MEMORY_BYTES, this.testDevice);
  }
}
