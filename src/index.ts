/** The library's front door. The machine comes with its own issue; KVM's shape is here and under `penumbra/kvm`. */
export * from './vm/kvm.ts';
