import { describe, expect, it, test } from 'vitest';
import type { EnvironmentContext } from './environment.ts';
import { masterOf, scriptEnvironment, VARIABLES } from './environment.ts';
import { TCP } from './fabric.ts';
import { LAUNCHER_VARIABLES } from './launchers/launcher.ts';
import { Layout } from './layout.ts';
import type { AttemptPlan } from './plan.ts';

const plan = {
  jobName: 'job',
  jobArn: 'arn',
  host: 'algo-1',
  hosts: ['algo-1'],
  instanceType: 'ml.m5.large',
  groupName: 'g',
  instanceGroups: [{ name: 'g', instanceType: 'ml.m5.large', hosts: ['algo-1'] }],
  networkInterfaceName: 'eth0',
  region: 'us-west-2',
  endpointUrl: 'http://service',
  s3EndpointUrl: 'http://s3',
  frameworkModule: null,
  environment: {},
  channels: [],
  runtime: { name: 'r', python: '/r/bin/python', binDirs: ['/r/bin'], preload: true },
} as unknown as AttemptPlan;

function context(
  change: Partial<EnvironmentContext> = {},
  environment: Record<string, string> = {},
): EnvironmentContext {
  return {
    plan: { ...plan, environment },
    layout: new Layout('/opt/ml'),
    parameters: {
      user: { 'some-key': null, text: 'raw', n: 1 },
      framework: {},
      program: null,
      submitDirectory: null,
      logLevel: 20,
      jobName: 'job',
      region: 'us-west-2',
    },
    cluster: {
      groupHosts: ['algo-1'],
      distributionGroups: [],
      distributionHosts: [],
      master: 'algo-1',
      isDistributed: false,
    },
    hardware: { cpuCount: 4, gpuCount: 0, neuronCoreCount: 0, fabric: TCP },
    torchVersion: null,
    arguments: [],
    master: { address: 'algo-1', port: 7777 },
    layer: null,
    credentials: { accessKeyId: 'ID', secretAccessKey: 'SECRET', sessionToken: 'TOKEN', expiresAt: 0 },
    collectiveSecret: 'secret of the attempt',
    coresPerRank: null,
    isolated: true,
    egressEnvironment: {},
    initSocket: '/run/trainyard/init.sock',
    home: '/root',
    systemPath: '/usr/bin',
    ...change,
  };
}

describe('the script’s environment', () => {
  it('takes the request’s Environment over defaults, never over the contract', () => {
    const found = scriptEnvironment(
      context({}, { NCCL_DEBUG: 'TRACE', SM_CURRENT_HOST: 'x', MASTER_PORT: '1', OWN: 'y' }),
    );
    expect(found).toMatchObject({
      NCCL_DEBUG: 'TRACE',
      SM_CURRENT_HOST: 'algo-1',
      MASTER_PORT: '7777',
      OWN: 'y',
    });
  });

  it('has the job’s programs first, then the runtime’s, then the request’s or the host’s', () => {
    const layer = {
      site: '/layer/site',
      bin: '/layer/bin',
      preloadable: true,
      versions: new Map<string, string>(),
    };
    expect(scriptEnvironment(context({ layer }, { PATH: '/own' })).PATH).toBe('/layer/bin:/r/bin:/own');
    expect(scriptEnvironment(context()).PATH).toBe('/r/bin:/usr/bin');
    expect(scriptEnvironment(context({ layer }, { PYTHONPATH: '/mine' })).PYTHONPATH).toBe(
      '/opt/ml/code:/layer/site:/mine',
    );
  });

  it('has no credentials of ours beside the user’s own, and none under network isolation', () => {
    const own = scriptEnvironment(context({}, { AWS_ACCESS_KEY_ID: 'MINE', AWS_SECRET_ACCESS_KEY: 'MINE' }));
    expect(own).toMatchObject({ AWS_ACCESS_KEY_ID: 'MINE', AWS_SECRET_ACCESS_KEY: 'MINE' });
    expect(own).not.toHaveProperty('AWS_SESSION_TOKEN');
    const isolated = scriptEnvironment(context({ credentials: null }));
    expect(Object.keys(isolated).filter((name) => /^AWS_.*(KEY|TOKEN)/.test(name))).toEqual([]);
  });

  it('formats hyperparameters as the toolkit does', () => {
    expect(scriptEnvironment(context())).toMatchObject({
      'SM_HP_SOME-KEY': '',
      SM_HP_TEXT: 'raw',
      SM_HP_N: '1',
    });
  });

  it('switches forking off when the runtime or the job’s packages forbid it, unless the request says otherwise', () => {
    const layer = { site: '/s', bin: '/b', preloadable: false };
    expect(scriptEnvironment(context())).not.toHaveProperty('TRAINYARD_PRELOAD');
    expect(scriptEnvironment(context({ layer })).TRAINYARD_PRELOAD).toBe('0');
    expect(scriptEnvironment(context({}, { TRAINYARD_PRELOAD: '0' })).TRAINYARD_PRELOAD).toBe('0');
  });

  it('does not switch InfiniBand off where there is some', () => {
    const fabric = { ...TCP, kind: 'infiniband' as const };
    const hardware = { cpuCount: 4, gpuCount: 0, neuronCoreCount: 0, fabric };
    expect(scriptEnvironment(context({ hardware }))).not.toHaveProperty('NCCL_IB_DISABLE');
  });
});

test('every variable is set once and says why', () => {
  const names = VARIABLES.map(({ name }) => name);
  expect(names).toHaveLength(new Set(names).size);
  for (const reason of [...VARIABLES.map(({ reason }) => reason), ...Object.values(LAUNCHER_VARIABLES)]) {
    expect(reason).toMatch(/^\S.+\.$/);
  }
});

test('jobs that share a network meet at ports of their own, the same on all of their hosts', () => {
  const shared = { isolated: false, hostAddresses: { 'algo-1': '127.0.1.1' } };
  const one = masterOf({ jobName: 'a', attempt: 1 }, { master: 'algo-1' }, shared);
  expect(one).toEqual(masterOf({ jobName: 'a', attempt: 1 }, { master: 'algo-1' }, shared));
  expect(one.address).toBe('127.0.1.1');
  expect(masterOf({ jobName: 'b', attempt: 1 }, { master: 'algo-1' }, shared).port).not.toBe(one.port);
  expect(masterOf({ jobName: 'a', attempt: 1 }, { master: 'algo-1' }, { ...shared, isolated: true })).toEqual(
    {
      address: 'algo-1',
      port: 7777,
    },
  );
});
