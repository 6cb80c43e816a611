import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { HostPlan } from '@trainyard/api';
import { expect } from 'vitest';
import { createJob, finished, type JobOptions, unpacked } from './jobs.ts';
import type { TestService } from './service.ts';
import { until } from './until.ts';

/** How each thing that a script may try on init or agent has to end. */
const CLOSED = {
  environ: 'PermissionError',
  memory: 'PermissionError',
  'writing memory': 'PermissionError',
  descriptors: 'PermissionError',
  'standard input': 'PermissionError',
  root: 'PermissionError',
  ptrace: 'PermissionError',
};
const AUDIT_WRITE = 1n << 29n;

/**
 * Runs `seek_secrets.py` under network isolation and checks that it came by nothing of its host's agent.
 *
 * @param ranks the names that its processes have: ranks, or the host where there are none
 * @param forked whether the processes have to come from the fork server
 */
export async function expectAgentClosed(
  service: TestService,
  distribution: JobOptions['distribution'],
  ranks: string[],
  forked: boolean,
): Promise<void> {
  const name = await createJob(service, {
    script: 'seek_secrets.py',
    distribution,
    instances: 1,
    processes: ranks.length,
    change: { EnableNetworkIsolation: true, Environment: forked ? {} : { TRAINYARD_PRELOAD: '0' } },
  });
  const file = join(service.dataDir, 'jobs', name, '1/hosts/algo-1/agent.json');
  await until('the host to be made', () => existsSync(file));
  const { token, jobName } = JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>;
  expect(jobName).toBe(name);
  const registered = await fetch(`${service.url}/_trainyard/agent/v1/register`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: '{}',
  });
  const { agentCredentials: keys } = (await registered.json()) as HostPlan;
  expect(keys.secretAccessKey).toMatch(/^.{40}$/);

  const job = await finished(service, name);
  const model = await unpacked(service, job.ModelArtifacts.S3ModelArtifacts!);
  try {
    for (const rank of ranks) {
      const seen = JSON.parse(readFileSync(join(model.directory, `rank-${rank}.json`), 'utf8'));
      expect(seen).toMatchObject({
        forked,
        'agent.json': 'FileNotFoundError',
        // The same means work where they may, so the refusals are not by chance.
        own: 'done',
        init: CLOSED,
        agent: CLOSED,
        spawns: [{ ok: false }, { ok: false }],
        sniffing: 'PermissionError',
        ping: 'done',
        core: 'PermissionError',
        inspector: 'closed',
      });
      for (const { error } of seen.spawns) expect(error).toMatch(/^EACCES: cannot write to \/proc\//);
      // Of the process itself, of one that it had init start, and of a remote shell.
      expect(seen.rights).toHaveLength(3);
      for (const rights of seen.rights as Record<string, string>[]) {
        for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
          expect(BigInt(`0x${rights[set]}`) & AUDIT_WRITE, set).toBe(0n);
        }
      }
      const dump = readFileSync(join(model.directory, `rank-${rank}.dump`), 'latin1');
      // The agent's state has no place in the host.
      expect(dump).not.toContain(`"jobName":"${name}"`);
      expect(dump).toContain('SM_CURRENT_HOST=algo-1');
      for (const secret of [token!, keys.secretAccessKey, keys.sessionToken]) {
        expect(dump.includes(secret)).toBe(false);
      }
    }
  } finally {
    model.dispose();
  }
}
