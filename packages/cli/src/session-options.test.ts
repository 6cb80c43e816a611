import { afterEach, expect, test, vi } from 'vitest';
import { commandLine } from './session-options.ts';

afterEach(() => vi.unstubAllEnvs());

test('a command shown to the user can be pasted: same place, same program, quoted where needed', () => {
  vi.stubEnv('TRAINYARD_COMMAND', 'bin/trainyard');
  const flags = { data: '/tmp/my data', region: 'eu-west-1' };
  expect(commandLine(['jobs', 'logs', 'a-job', '--follow'], flags)).toBe(
    "bin/trainyard jobs logs a-job --follow --data '/tmp/my data' --region eu-west-1",
  );
});
