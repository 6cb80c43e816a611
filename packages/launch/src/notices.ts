import { fabricReport, fabricVariables, tcpFallback } from './fabric.ts';
import { frameworkVersion, versionNotice } from './frameworks.ts';
import type { Hardware } from './hardware.ts';
import { missingAccelerator } from './hardware.ts';
import { ignoredOptions } from './launchers/choose.ts';
import type { Launch } from './launchers/launcher.ts';
import { LAUNCHER_VARIABLES } from './launchers/launcher.ts';
import type { AttemptPlan } from './plan.ts';
import type { JobReading, Prepared } from './plan-launch.ts';
import type { RuntimePackages } from './runtime-packages.ts';
import type { StateStore } from './state.ts';

/** Once per job and group: on a machine of one's own all hosts look alike. */
export async function giveNotices(
  { plan, hardware, state }: { plan: AttemptPlan; hardware: Hardware; state: StateStore },
  job: JobReading,
  { launch }: Prepared,
  { versions, torchVersion, missing }: RuntimePackages & { missing: string | null },
): Promise<void> {
  if (state.resumed) return;
  const isFirstOfGroup = plan.host === job.cluster.groupHosts[0];
  const accelerator = isFirstOfGroup ? missingAccelerator(plan.instanceType, hardware) : null;
  if (accelerator) await state.notice('missing_accelerator', accelerator);
  if (isFirstOfGroup) await tellOfFabric(plan, hardware, state, launch);
  if (plan.host !== plan.hosts[0]) return;
  const version =
    missing ?? versionNotice(plan, torchVersion ?? frameworkVersion(plan.frameworkModule, versions));
  if (version) await state.notice('framework_version', version);
  const ignored = ignoredOptions(plan, job.parameters, job.launcher);
  if (ignored) await state.notice('ignored_distribution', ignored);
}

/** What connects the hosts, what was set for it and why, and when it is less than the job may count on. */
async function tellOfFabric(
  plan: AttemptPlan,
  { fabric }: Hardware,
  state: StateStore,
  launch: Launch,
): Promise<void> {
  if (plan.hosts.length === 1) return;
  const fallback = tcpFallback(plan.instanceType, fabric);
  if (fallback) return state.notice('tcp_fallback', fallback);
  if (fabric.kind === 'tcp') return;
  const chosen = launch.rankHosts.length > 0 ? Object.entries(fabricVariables(fabric)) : [];
  const reasons = chosen.map(([name, value]) => `${name}=${value}: ${LAUNCHER_VARIABLES[name]}`);
  const report = fabricReport(fabric, plan.networkInterfaceName);
  await state.notice('fabric', [`${report}.`, ...reasons].join(' '));
}
