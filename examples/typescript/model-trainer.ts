// The digits example by the ModelTrainer of SageMaker's third SDK. Run: node examples/typescript/model-trainer.ts
import { ModelTrainer, Torchrun } from '@trainyard/sdk';

const here = import.meta.dirname;

const trainer = new ModelTrainer({
  sourceCode: { sourceDir: `${here}/../digits-ddp`, entryScript: 'train.py' },
  compute: { instanceCount: 2 },
  distributed: new Torchrun({ processCountPerNode: 2 }),
  hyperparameters: { epochs: 20 },
  inputDataConfig: [{ channelName: 'train', dataSource: `${here}/../digits-ddp/data` }],
});

const job = await trainer.train();
console.log(`${job.name} left its model at ${await job.modelData()}`);
