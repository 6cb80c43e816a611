import { expect, test } from 'vitest';
import { adviceForMissingModule } from './missing-module.ts';

test.each([
  ["ModuleNotFoundError: No module named 'smdistributed'", 'bring it with: trainyard setup --libraries'],
  [
    "ModuleNotFoundError: No module named 'torch.sagemaker'; 'torch' is …",
    'bring it with: trainyard setup --libraries',
  ],
  [
    "ModuleNotFoundError: No module named 'transformers.models'",
    'bring it with: trainyard setup --with huggingface',
  ],
  ["ModuleNotFoundError: No module named 'smdistributed_of_mine'", null],
  ["ModuleNotFoundError: No module named 'helpers'", null],
  ['ValueError: bad batch', null],
])('%s: %s', (exception, advice) => {
  expect(adviceForMissingModule(exception)).toBe(advice);
});
