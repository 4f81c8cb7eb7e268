import { expect, it } from 'vitest';
import { buildVm, WRITE } from '../../vm/testing/build-vm.ts';
import { zapAllFast } from '../page-zap.ts';
import { isInvalidRole } from '../role.ts';
import { sptepAt } from '../shadow-pages.ts';

it('a root that was zapped maps nothing, also while a vCPU still holds it', () => {
  const { vm, vcpu } = buildVm({ tdpMmu: true });
  vcpu.touchPage(3, WRITE);
  const root = vcpu.mmu.root.sp;
  const { words } = vm.mmu.arena;
  const at = sptepAt(root, 0) << 1;
  const [lo, hi] = [words[at], words[at + 1]];
  zapAllFast(vm.mmu);
  expect([isInvalidRole(vm.mmu.pages.role[root]), words[at], vm.verify()]).toEqual([true, 0, []]);
  [words[at], words[at + 1]] = [lo, hi];
  expect(vm.verify().join()).toContain(`root ${root} was zapped and maps`);
});
