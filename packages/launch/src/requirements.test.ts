import { expect, test } from 'vitest';
import { installError } from './requirements.ts';

const OUTPUT = `Looking in links: ./wheels
ERROR: Could not find a version that satisfies the requirement nope==1 (from versions: none)
ERROR: No matching distribution found for nope==1
`;

test('a failed installation says pip’s errors and the command, in AWS’s form', () => {
  const error = installError({ package: false }, ['python', '-m', 'pip'], 1, OUTPUT, false);
  expect(error.failureClass).toBe('ClientError');
  expect(error.message).toBe(
    'InstallRequirementsError:\nExitCode 1\nErrorMessage "ERROR: Could not find a version that satisfies the requirement nope==1 (from versions: none)\nERROR: No matching distribution found for nope==1"\nCommand "python -m pip"',
  );
});

test('without an error line the last words are shown, and isolation is explained', () => {
  const error = installError({ package: true }, ['p'], 2, 'a\n\nTraceback\nKeyError\n', true);
  expect(error.message).toMatch(
    /^InstallModuleError:\nExitCode 2\nErrorMessage "a\nTraceback\nKeyError\nThe job has EnableNetworkIsolation/,
  );
});
