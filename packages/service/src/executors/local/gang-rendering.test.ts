import { describe, expect, it } from 'vitest';
import type { GangPlan } from '../executor.ts';
import { type RenderSettings, renderGang } from './gang-rendering.ts';

const plan: GangPlan = {
  jobName: 'train-mnist',
  attempt: 2,
  hosts: ['algo-1', 'algo-2'].map((host) => ({
    host,
    token: `secret of ${host}`,
    mounts: [{ source: '/data/mnist', target: '/opt/ml/input/data/train', readOnly: true }],
  })),
  networkIsolated: false,
  forkServerSocket: '/data/ty/run/fork-1/jobs/fork.sock',
  visiblePaths: ['/opt/runtime'],
};

const settings: RenderSettings = {
  rung: 'namespaces',
  platform: 'linux',
  dataDir: '/data/ty',
  gatewaySocket: '/data/ty/run/gateway.sock',
  tcpEndpoint: 'http://127.0.0.1:9400',
  nodePath: '/usr/bin/node',
  agentPath: '/opt/agent.mjs',
  initDir: '/opt/init',
  pythonPath: '/usr/bin/python3',
  egressAllow: [],
  homeDir: '/home/me',
  proxyEnvironment: { HTTPS_PROXY: 'http://proxy.example:3128' },
  runParent: '/tmp/trainyard-1000',
};

const render = (changes: Partial<RenderSettings> = {}, planChanges: Partial<GangPlan> = {}) =>
  renderGang({ ...plan, ...planChanges }, { ...settings, ...changes });
const file = (rendering: ReturnType<typeof render>, ending: string): string => {
  const found = rendering.files.find(({ path }) => path.endsWith(ending));
  if (found === undefined)
    throw new Error(`no file ${ending} among ${rendering.files.map(({ path }) => path)}`);
  return found.text;
};
const bootstrap = (rendering: ReturnType<typeof render>) => JSON.parse(file(rendering, 'algo-2/agent.json'));
const gang = (rendering: ReturnType<typeof render>) => JSON.parse(file(rendering, 'gang.json'));

describe('with namespaces', () => {
  it('hosts have addresses of the job’s own network and the paths of an instance', () => {
    expect(bootstrap(render())).toMatchObject({
      endpointUrl: 'http://10.77.0.1:9400',
      token: 'secret of algo-2',
      jobName: 'train-mnist',
      attempt: 2,
      host: 'algo-2',
      initSocket: '/run/trainyard/init.sock',
      stateDir: '/run/trainyard/state',
      mlRoot: '/opt/ml',
      isolation: 'namespaces',
      hostAddresses: { 'algo-1': '10.77.0.11', 'algo-2': '10.77.0.12' },
      networkInterface: 'eth0',
    });
  });

  it('names resolve to addresses, also in their IPv4-mapped form', () => {
    expect(file(render(), 'etc/hosts').split('\n').slice(2)).toEqual([
      '10.77.0.11 algo-1',
      '::ffff:10.77.0.11 algo-1',
      '10.77.0.12 algo-2',
      '::ffff:10.77.0.12 algo-2',
      '',
    ]);
    expect(file(render(), 'etc/resolv.conf')).toBe('nameserver 127.0.0.1\n');
  });

  it('what hosts must not see is hidden, what they need is shown', () => {
    expect(gang(render())).toMatchObject({
      hiddenPaths: ['/data/ty', '/home/me'],
      visiblePaths: ['/opt/runtime', '/usr/bin/node', '/opt/agent.mjs'],
      forkDir: '/data/ty/run/fork-1/jobs',
      gatewaySocket: '/data/ty/run/gateway.sock',
    });
  });

  it('the way out is offered unless the job is isolated', () => {
    const { egressEnvironment } = bootstrap(render());
    expect(egressEnvironment.HTTPS_PROXY).toBe('http://10.77.0.1:9401');
    expect(egressEnvironment.no_proxy.split(',')).toEqual(
      expect.arrayContaining(['localhost', '127.0.0.1', '10.77.0.1', 'algo-1', 'algo-2']),
    );
    expect(bootstrap(render({}, { networkIsolated: true })).egressEnvironment).toEqual({});
    expect(gang(render({}, { networkIsolated: true })).networkIsolated).toBe(true);
  });

  it('tokens are in files of mode 0600 that hosts do not see, and in no command line', () => {
    const rendering = render();
    const withToken = rendering.files.filter(({ text }) => text.includes('secret of'));
    expect(withToken.map(({ path, mode }) => [path, mode])).toEqual([
      ['/data/ty/jobs/train-mnist/2/hosts/algo-1/agent.json', 0o600],
      ['/data/ty/jobs/train-mnist/2/hosts/algo-2/agent.json', 0o600],
    ]);
    expect(JSON.stringify(rendering.command)).not.toContain('secret');
  });

  it('one gang process starts an attempt', () => {
    expect(render().command).toEqual([
      '/usr/bin/python3',
      '-I',
      '-S',
      '-E',
      '/opt/init/gang.py',
      '/data/ty/jobs/train-mnist/2',
    ]);
  });
});

describe('without namespaces', () => {
  const rendering = render({ rung: 'processes' });

  it('hosts use loopback addresses, private paths and the service’s own address', () => {
    const run = `${rendering.runRoot}/algo-2`;
    expect(bootstrap(rendering)).toMatchObject({
      endpointUrl: 'http://127.0.0.1:9400',
      initSocket: `${run}/init.sock`,
      stateDir: `${run}/state`,
      mlRoot: '/data/ty/jobs/train-mnist/2/hosts/algo-2/ml',
      hostAddresses: { 'algo-1': '127.0.1.1', 'algo-2': '127.0.1.2' },
      networkInterface: 'lo',
      egressEnvironment: { HTTPS_PROXY: 'http://proxy.example:3128' },
    });
  });

  it('macOS answers on one loopback address only', () => {
    const { hostAddresses, networkInterface } = bootstrap(render({ rung: 'processes', platform: 'darwin' }));
    expect([hostAddresses, networkInterface]).toEqual([
      { 'algo-1': '127.0.0.1', 'algo-2': '127.0.0.1' },
      'lo0',
    ]);
  });

  it('mounts become places below the host’s private directory', () => {
    expect(gang(rendering).hosts[1].mounts).toEqual([
      {
        source: '/data/mnist',
        target: '/data/ty/jobs/train-mnist/2/hosts/algo-2/ml/input/data/train',
        readOnly: true,
      },
    ]);
  });

  it('sockets have short paths however long the data directory and the job’s name are', () => {
    const long = render(
      { rung: 'processes', dataDir: `/home/someone/${'directory/'.repeat(20)}` },
      { jobName: 'j'.repeat(63) },
    );
    expect(`${long.runRoot}/peers/algo-250.sock`.length).toBeLessThan(100);
    expect(long.runRoot).not.toBe(rendering.runRoot);
  });
});

describe('a plan that cannot be rendered', () => {
  it('has more hosts than the network has addresses', () => {
    const hosts = Array.from({ length: 245 }, (_, index) => ({
      host: `algo-${index + 1}`,
      token: '',
      mounts: [],
    }));
    expect(() => render({}, { hosts })).toThrow(
      'train-mnist asks for 245 hosts; one machine runs at most 244 of a job',
    );
  });

  it('mounts something outside /opt/ml', () => {
    const mounts = [{ source: '/data', target: '/opt/mlx', readOnly: true }];
    expect(() => render({}, { hosts: [{ host: 'algo-1', token: '', mounts }] })).toThrow(
      'mount target /opt/mlx is not below /opt/ml',
    );
  });
});
