import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { HostPlan, RegisterRequest } from '@trainyard/api';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { PlanSource } from './plan-source.ts';

let root: string;
let calls: number;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'trainyard-plan-'));
  calls = 0;
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const request = {} as RegisterRequest;
const key = (expiresAt: number) => ({
  accessKeyId: `K${calls}`,
  secretAccessKey: 'S',
  sessionToken: 'T',
  expiresAt,
});

const channel = (lifeMs: number) => ({
  register: async (): Promise<HostPlan> => {
    calls += 1;
    const expiresAt = Date.now() + lifeMs;
    return {
      jobName: 'job',
      agentCredentials: key(expiresAt),
      scriptCredentials: null,
    } as unknown as HostPlan;
  },
});

test('the plan is kept for the next agent, its keys are not', async () => {
  await new PlanSource(root, channel(1e7), request).plan();
  expect(readFileSync(join(root, 'plan.json'), 'utf8')).toBe('{"jobName":"job"}');
  const next = new PlanSource(root, channel(1e7), request);
  expect(await next.plan()).toEqual({ jobName: 'job' });
  expect(calls).toBe(1);
  expect(await next.agentCredentials()).toMatchObject({ accessKeyId: 'K2' });
});

test('callers that come together register once; keys near their end are renewed', async () => {
  const source = new PlanSource(root, channel(1e7), request);
  await Promise.all([source.plan(), source.agentCredentials(), source.scriptCredentials()]);
  expect(calls).toBe(1);
  const short = new PlanSource(root, channel(60_000), request);
  await short.agentCredentials();
  await short.agentCredentials();
  expect(calls).toBeGreaterThan(2);
});
