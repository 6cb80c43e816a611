// Trains the digits example on two instances from TypeScript. Run: node examples/typescript/train.ts
import { PyTorch } from '@trainyard/sdk';

const here = import.meta.dirname;

const estimator = new PyTorch({
  entryPoint: `${here}/../digits-ddp/train.py`,
  instanceCount: 2,
  processesPerHost: 2,
  distribution: { torch_distributed: { enabled: true } },
  hyperparameters: { epochs: 20 },
  metricDefinitions: [{ Name: 'loss', Regex: String.raw`\bloss=([0-9.]+)` }],
});

const job = await estimator.fit({ train: `${here}/../digits-ddp/data` });
console.log(`${job.name} left its model at ${await job.modelData()}`);
