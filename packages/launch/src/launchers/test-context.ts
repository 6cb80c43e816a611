import type { LaunchContext } from './launcher.ts';

/** Two hosts with two ranks each; for tests. */
export function launchContext(change: Partial<LaunchContext> = {}): LaunchContext {
  return {
    host: 'algo-1',
    instanceType: 'ml.m5.large',
    cluster: {
      groupHosts: ['algo-1', 'algo-2'],
      distributionGroups: ['homogeneousCluster'],
      distributionHosts: ['algo-1', 'algo-2'],
      master: 'algo-1',
      isDistributed: true,
    },
    parameters: {
      user: {},
      framework: {},
      program: 'train.py',
      submitDirectory: null,
      logLevel: 20,
      jobName: 'j',
      region: 'r',
    },
    entry: { kind: 'program', program: 'train.py' },
    arguments: ['--text', 'a b'],
    processesPerHost: 2,
    networkInterface: 'eth0',
    fabric: { kind: 'tcp', hasRdma: false },
    master: { address: 'algo-1', port: 7777 },
    reach: (host) => host,
    ipOf: (host) => `10.77.0.1${host.at(-1)}`,
    portOf: (_host, port) => port,
    isolated: true,
    codeDirectory: '/opt/ml/code',
    rankLogDirectory: '/logs',
    stopGraceMs: 120_000,
    python: 'tpy',
    interpreter: 'python3',
    remoteShell: 'trsh',
    mpi: { major: 5, hasMpi4py: true },
    hasLegacyKeras: false,
    compilesForNeuron: false,
    torchMajor: 2,
    containerCommand: null,
    environmentNames: ['PATH', 'SM_HOSTS'],
    ...change,
  };
}
