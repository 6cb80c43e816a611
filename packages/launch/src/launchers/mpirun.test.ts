import { describe, expect, it, test } from 'vitest';
import { customOptions, mpirun, openMpiMajor, smddp } from './mpirun.ts';
import { single } from './single.ts';
import { launchContext as context } from './test-context.ts';
import { torchrun } from './torchrun.ts';

describe('mpirun', () => {
  it('of Open MPI 5 gets the double-dash options that it accepts', () => {
    const { argv } = mpirun.plan(context());
    expect(argv.join(' ')).toContain('--bind-to none --map-by slot');
    expect(argv).not.toContain('-bind-to');
  });

  it('of Open MPI 4.1 gets AWS’s options', () => {
    const { argv } = mpirun.plan(context({ mpi: { major: 4, hasMpi4py: true } }));
    expect(argv.join(' ')).toContain(' -bind-to none -map-by slot ');
  });

  it('starts the script through the given Python, each argument whole', () => {
    expect(mpirun.plan(context()).argv.slice(-6)).toEqual([
      'tpy',
      '-m',
      'mpi4py',
      'train.py',
      '--text',
      'a b',
    ]);
    const without = mpirun.plan(context({ mpi: { major: 5, hasMpi4py: false } }));
    expect(without.argv.slice(-4)).toEqual(['tpy', 'train.py', '--text', 'a b']);
  });

  it('names only variables that exist', () => {
    const { argv } = mpirun.plan(context());
    const exported = argv.filter((_, index) => argv[index - 1] === '-x');
    expect(exported).toEqual([
      'NCCL_MIN_NRINGS=4',
      'NCCL_SOCKET_IFNAME=eth0',
      'NCCL_DEBUG=INFO',
      'PATH',
      'SM_HOSTS',
    ]);
  });

  it('has one plain host name per process when there is one per host', () => {
    const { argv } = mpirun.plan(context({ processesPerHost: 1 }));
    expect(argv.slice(1, 5)).toEqual(['--host', 'algo-1,algo-2', '-np', '2']);
  });

  it('takes the total from sagemaker_mpi_num_processes', () => {
    const parameters = { ...context().parameters, framework: { sagemaker_mpi_num_processes: 3 } };
    expect(mpirun.plan(context({ parameters })).argv.slice(3, 5)).toEqual(['-np', '3']);
  });

  it('is waited for on the other hosts, over the remote shell', () => {
    const launch = mpirun.plan(context({ host: 'algo-2', mpi: null }));
    expect(launch.role).toBe('wait');
    expect(launch.argv.slice(4, 6)).toEqual(['trsh', 'algo-1']);
  });

  it('that is not there is said with the way to get it', () => {
    expect(() => mpirun.plan(context({ mpi: null }))).toThrow(/the runtime has none\. Install Open MPI/);
  });

  it('leaves ranks the time of a stop', () => {
    expect(mpirun.plan(context({ stopGraceMs: 2500 })).env).toMatchObject({
      OMPI_MCA_odls_base_sigkill_timeout: '3',
    });
  });
});

describe('the wrapper of pytorchddp and SMDDP', () => {
  it('gives every rank the variables that scripts read', () => {
    const { argv } = smddp.plan(context());
    const at = argv.indexOf('/bin/sh');
    for (const name of [
      'RANK',
      'WORLD_SIZE',
      'LOCAL_RANK',
      'LOCAL_WORLD_SIZE',
      'SMDATAPARALLEL_LOCAL_RANK',
    ]) {
      expect(argv[at + 2]).toMatch(new RegExp(`(^|\\s)${name}=\\$OMPI_COMM_WORLD_`));
    }
    expect(argv.slice(at + 4)).toEqual(['tpy', '-m', 'mpi4py', 'train.py', '--text', 'a b']);
  });

  it('asks for EFA only where there is such a device', () => {
    expect(smddp.plan(context()).argv).not.toContain('FI_PROVIDER=efa');
    expect(smddp.plan(context({ fabric: { kind: 'efa', hasRdma: true } })).argv).toContain('FI_PROVIDER=efa');
  });

  it('on one host gives Open MPI 5 the slots that a bare name means to 4.1', () => {
    const cluster = { ...context().cluster, distributionHosts: ['algo-1'] };
    expect(smddp.plan(context({ cluster })).argv.slice(1, 3)).toEqual(['--host', 'algo-1:2']);
    expect(smddp.plan(context({ cluster, mpi: { major: 4, hasMpi4py: true } })).argv.slice(1, 3)).toEqual([
      '--host',
      'algo-1',
    ]);
  });
});

test('custom MPI options are split at blanks, and NCCL_DEBUG is taken out in both spellings', () => {
  expect(customOptions('--NCCL_DEBUG WARN  -x A=1', 4)).toEqual({ ncclDebug: 'WARN', words: ['-x', 'A=1'] });
  expect(customOptions('--NCCL_DEBUG=TRACE -bind-to core', 5)).toEqual({
    ncclDebug: 'TRACE',
    words: ['--bind-to', 'core'],
  });
  expect(customOptions(null, 4)).toEqual({ ncclDebug: 'INFO', words: [] });
});

test.each([
  ['mpirun (Open MPI) 5.0.11\n\nReport bugs', 5],
  ['mpirun (Open MPI) 4.1.4\n', 4],
  ['HYDRA build details:', null],
])('%s', (text, major) => {
  expect(openMpiMajor(text)).toBe(major);
});

describe('torchrun', () => {
  it('on one host has no rendezvous, unless hosts share a network', () => {
    const cluster = { ...context().cluster, distributionHosts: ['algo-1'] };
    expect(torchrun.plan(context({ cluster })).command).toBe(
      'torchrun --nnodes 1 --nproc_per_node 2 train.py --text a b',
    );
    expect(torchrun.plan(context({ cluster, isolated: false })).command).toContain(
      '--master_port 7777 --node_rank 0',
    );
  });

  it('refuses shell and package entry points, saying what to change', () => {
    expect(() => torchrun.plan(context({ entry: { kind: 'command', program: 'run.sh' } }))).toThrow(
      /Python scripts only, but the entry point is the command run\.sh\. Name a \.py file/,
    );
    expect(() => torchrun.plan(context({ entry: { kind: 'package', program: 'train.py' } }))).toThrow(
      /setup\.py beside train\.py/,
    );
  });
});

describe('a plain process', () => {
  it.each([
    [
      { kind: 'program', program: 'train.py' },
      ['tpy', 'train.py', '--text', 'a b'],
      'python3 train.py --text a b',
    ],
    [
      { kind: 'package', program: 'pkg.py' },
      ['tpy', '-m', 'pkg', '--text', 'a b'],
      'python3 -m pkg --text a b',
    ],
    [
      { kind: 'command', program: 'run.sh' },
      ['/bin/sh', '-c', '"$0" "$@"', './run.sh', '--text', 'a b'],
      '/bin/sh -c "./run.sh --text a b"',
    ],
  ] as const)('starts a %o', (entry, argv, command) => {
    expect(single.plan(context({ entry }))).toMatchObject({ argv, command, role: 'run' });
  });
});
