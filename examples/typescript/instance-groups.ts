// Two groups of hosts in one job: torchrun on the group that trains, the script by itself on the other.
// Run: node examples/typescript/instance-groups.ts
import { PyTorch } from '@trainyard/sdk';

const here = import.meta.dirname;

const estimator = new PyTorch({
  entryPoint: `${here}/train-or-help.py`,
  instanceGroups: [
    { instanceGroupName: 'trainers', instanceType: 'ml.p4d.24xlarge', instanceCount: 2 },
    { instanceGroupName: 'helpers', instanceType: 'ml.c5.4xlarge', instanceCount: 1 },
  ],
  processesPerHost: 2,
  distribution: { torch_distributed: { enabled: true }, instance_groups: ['trainers'] },
});

const job = await estimator.fit({ train: `${here}/../digits-ddp/data` });
console.log(`${job.name} left its model at ${await job.modelData()}`);
