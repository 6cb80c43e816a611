import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ExecutorHandle } from '@trainyard/service';
import { ForkServers } from '@trainyard/service';
import { until } from '../support/until.ts';
import { ALIKE, FRESH, type Scenario } from './fork-server/scenarios.ts';
import { INIT_DIR, LocalHarness, ROOT } from './local-executor/local-harness.ts';

const RUNTIME = join(process.env['TRAINYARD_RUNTIMES'] ?? join(ROOT, '.trainyard/runtimes'), 'pytorch');
const PYTHON = join(RUNTIME, 'bin/python');
const RUNG = process.getuid?.() === 0 ? 'namespaces' : 'user-namespaces';

interface Run {
  status: number;
  out: string;
  err: string;
  files: Record<string, string>;
}

/** The ranks' own lines: PRRTE now and then warns of a race with its own child that changes nothing. */
const ranksOf = (output: string): string[] =>
  output
    .trim()
    .split('\n')
    .filter((line) => !line.includes('plm:ssh: Warning: setpgid'))
    .sort();

describe('an interpreter from the fork server', () => {
  let harness: LocalHarness;
  let servers: ForkServers;
  let handle: ExecutorHandle;
  let skipped: string | null = null;
  let results: Record<string, { fresh: Run; forked: Run }> = {};

  beforeAll(async () => {
    if (!existsSync(PYTHON)) {
      skipped = `there is no runtime at ${RUNTIME}; run script/bootstrap`;
      return;
    }
    const made = await LocalHarness.open(RUNG);
    if (typeof made === 'string') {
      skipped = made;
      return;
    }
    harness = made;
    servers = new ForkServers({ runDir: join(harness.dataDir, 'run'), initDir: INIT_DIR });
    const forkServerSocket = await servers.ensure({ name: 'pytorch', python: PYTHON });
    handle = await harness.submit({ ...harness.plan('forks', 2), forkServerSocket, visiblePaths: [RUNTIME] });
    results = await runBoth({ ...ALIKE, ...FRESH_SCENARIOS, ...REPORTS });
  }, 600_000);
  afterAll(async () => {
    await servers?.stop();
    await harness?.close();
  });
  const test = (title: string, body: (skip: (reason: string) => never) => Promise<void>): void => {
    it(title, async (context) => {
      if (skipped !== null) context.skip(skipped);
      await body((reason) => context.skip(reason));
    });
  };
  const inHost = { TRAINYARD_PYTHON: PYTHON, TRAINYARD_PRELOAD: 'explain' };

  async function runBoth(scenarios: Record<string, Scenario>): Promise<typeof results> {
    const shell = harness.shell(handle, 'algo-1');
    copyFileSync(join(ROOT, 'tests/e2e/fork-server/run-both.py'), join(shell.runDir, 'state/run-both.py'));
    writeFileSync(join(shell.runDir, 'state/scenarios.json'), JSON.stringify(scenarios));
    const state = join(shell.insideRun, 'state');
    const end = await shell.run(
      `/usr/bin/python3 ${state}/run-both.py ${state}/scenarios.json ${state}/results.json ${shell.insideRun}/bin/trainyard-python`,
      { TRAINYARD_PYTHON: PYTHON },
    );
    if (end.exitCode !== 0) throw new Error(`run-both.py failed: ${end.output}`);
    return JSON.parse(readFileSync(join(shell.runDir, 'state/results.json'), 'utf8')) as typeof results;
  }
  const resultOf = (title: string): { fresh: Run; forked: Run } => {
    const result = results[title];
    if (result === undefined) throw new Error(`no result of ${title}`);
    return result;
  };

  for (const title of Object.keys(ALIKE)) {
    test(`is like a fresh one: ${title}`, async () => {
      const { fresh, forked } = resultOf(title);
      expect(withoutAddresses(forked)).toEqual(withoutAddresses(fresh));
    });
  }

  for (const [title, { reason }] of Object.entries(FRESH)) {
    test(`is not used for ${title}`, async () => {
      const { fresh, forked } = resultOf(title);
      const [note, ...rest] = forked.err.split(/(?<=\n)/);
      const told = note?.startsWith('trainyard-python: fresh interpreter: ') ? note : '';
      expect(told).toMatch(reason);
      expect({ ...forked, err: told === '' ? forked.err : rest.join('') }).toEqual(fresh);
    });
  }

  for (const title of Object.keys(REPORTS)) {
    test(`finds everything as a fresh one does, ${title}`, async () => {
      const [fresh, forked] = [resultOf(title).fresh, resultOf(title).forked].map(({ out, err, status }) => {
        expect({ err, status, end: out.split('\n')[1] }).toEqual({ err: '', status: 0, end: 'at exit' });
        return JSON.parse(out.split('\n')[0] ?? '') as { report: object; seeds: Record<string, unknown> };
      });
      expect(forked?.report).toEqual(fresh?.report);
    });
  }

  test('every fork draws its own random numbers', async () => {
    const draws = Object.keys(REPORTS).flatMap((title) =>
      [resultOf(title).fresh, resultOf(title).forked].map(
        ({ out }) => JSON.parse(out.split('\n')[0] ?? '').seeds,
      ),
    ) as Record<string, unknown>[];
    for (const source of Object.keys(draws[0] ?? {})) {
      expect(new Set(draws.map((seeds) => seeds[source])).size).toBe(draws.length);
    }
  });

  test('its output that nobody reads any more ends it as it ends a fresh one', async () => {
    const shell = harness.shell(handle, 'algo-1');
    const program = "import sys\nprint('x' * 100000)\nsys.stdout.flush()";
    const ends: string[] = [];
    for (const python of ['$TRAINYARD_PYTHON', `${shell.insideRun}/bin/trainyard-python`]) {
      const { output } = await shell.run(
        `{ ${python} -c "${program}"; echo "status $?" >&2; } | true`,
        inHost,
      );
      ends.push(output);
    }
    expect(ends[1]).toContain('BrokenPipeError');
    expect(ends[1]).toBe(ends[0]);
  });

  test('it dies with the process that asked for it', async () => {
    const shell = harness.shell(handle, 'algo-2');
    const id = await shell.start(
      `exec ${shell.insideRun}/bin/trainyard-python -c 'import os, time; child = os.fork(); child and print("pids", os.getpid(), child, flush=True); time.sleep(1000)'`,
      inHost,
    );
    const pids = await until('the forked interpreter', () => /pids (\d+) (\d+)/.exec(shell.output(id)));
    // The command line of a process that has ended is empty.
    const living = async () =>
      (await shell.run(`cat /proc/${pids[1]}/cmdline /proc/${pids[2]}/cmdline 2>/dev/null`)).output;
    expect(await living()).not.toBe('');
    await shell.call({ op: 'signal', id, signal: 'KILL' });
    await until('the end of the forked interpreter and its child', async () => (await living()) === '');
  });

  test('it runs in the host of the asking process, with no privilege more', async () => {
    const shell = harness.shell(handle, 'algo-2');
    const program = [
      'import os, re, socket',
      'print(socket.gethostname(), re.findall(r"Cap(?:Prm|Eff|Bnd):\\s+(\\w+)|NoNewPrivs:\\s+(\\d)", open("/proc/self/status").read()), os.path.exists("DATA"))',
    ].join('\n');
    const seen = [];
    for (const python of [PYTHON, `${shell.insideRun}/bin/trainyard-python`]) {
      seen.push(
        (await shell.run(`${python} -c '${program.replace('DATA', harness.dataDir)}'`, inHost)).output,
      );
    }
    expect(seen[1]).toMatch(/^algo-2 .* False\n$/);
    expect(seen[1]).toBe(seen[0]);
  });

  test('torchrun starts two ranks in each of two hosts, all of them forked, and they compute together', async () => {
    const started = await Promise.all(
      ['algo-1', 'algo-2'].map(async (host, index) => {
        const shell = harness.shell(handle, host);
        writeFileSync(join(shell.runDir, 'state/train.py'), DDP_PROGRAM);
        const python = `${shell.insideRun}/bin/trainyard-python`;
        const options = `--nnodes 2 --node-rank ${index} --nproc-per-node 2 --master-addr algo-1 --master-port 29500`;
        const env = {
          ...inHost,
          PYTHON_EXEC: python,
          TRAINYARD_RANK_LOGS: `${shell.insideRun}/state`,
          PYTHONUNBUFFERED: '1',
        };
        const command = `exec ${python} -m torch.distributed.run ${options} ${shell.insideRun}/state/train.py`;
        return { shell, id: await shell.start(command, env), ranks: [2 * index, 2 * index + 1] };
      }),
    );
    const weights = new Set<string>();
    for (const { shell, id, ranks } of started) {
      const { exitCode, output } = await shell.finish(id);
      expect({ exitCode, output }).toMatchObject({
        exitCode: 0,
        output: expect.not.stringContaining('fresh interpreter'),
      });
      for (const rank of ranks) {
        const [, host, size, weight] = /^(\S+) of (\d+): (.*)$/m.exec(shell.output(`rank-${rank}.out`)) ?? [];
        expect([host, size]).toEqual([rank < 2 ? 'algo-1' : 'algo-2', '4']);
        expect(shell.output(`rank-${rank}.err`)).not.toContain('fresh interpreter');
        weights.add(weight ?? '');
      }
    }
    expect(weights.size).toBe(1);
  });

  test('mpirun starts ranks on both hosts through the remote shell', async (skip) => {
    const shell = harness.shell(handle, 'algo-1');
    const found = await shell.run(`test -x ${RUNTIME}/bin/mpirun && ${PYTHON} -c 'import mpi4py'`);
    if (found.exitCode !== 0) skip('the runtime has no Open MPI with mpi4py');
    const program =
      'from mpi4py import MPI; import socket; c = MPI.COMM_WORLD; print(c.rank, c.size, socket.gethostname(), c.allreduce(c.rank), flush=True)';
    const { output, exitCode } = await shell.run(
      `mpirun --allow-run-as-root --host algo-1:2,algo-2:2 -x PATH python -c '${program}'`,
      {
        PATH: `${RUNTIME}/bin:/usr/bin:/bin`,
        PRTE_MCA_plm_ssh_agent: `${shell.insideRun}/bin/trainyard-rsh`,
        OMPI_MCA_btl_tcp_if_include: 'eth0',
        PRTE_ALLOW_RUN_AS_ROOT: '1',
        PRTE_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
      },
    );
    expect({ exitCode, lines: ranksOf(output) }).toEqual({
      exitCode: 0,
      lines: ['0 4 algo-1 6', '1 4 algo-1 6', '2 4 algo-2 6', '3 4 algo-2 6'],
    });
  });

  test('a request from someone who passes the connection on is refused', async () => {
    const shell = harness.shell(handle, 'algo-1');
    mkdirSync(join(shell.runDir, 'state'), { recursive: true });
    copyFileSync(join(INIT_DIR, 'frames.py'), join(shell.runDir, 'state/frames.py'));
    writeFileSync(join(shell.runDir, 'state/handover.py'), HANDOVER);
    const { output } = await shell.run(`/usr/bin/python3 ${shell.insideRun}/state/handover.py`, inHost);
    expect(output).toBe("b'cold the caller is not the process that connected\\n'\n");
  });

  test('after a change of packages a new server takes over, and running hosts find it', async () => {
    const shell = harness.shell(handle, 'algo-1');
    const before = await servers.ensure({ name: 'pytorch', python: PYTHON });
    const status = await until('the first server', () =>
      servers.status().find(({ state }) => state === 'ready'),
    );
    await servers.stop();
    const after = await servers.ensure({ name: 'pytorch', python: PYTHON });
    expect(after).toBe(before);
    const { output } = await shell.run(
      `${shell.insideRun}/bin/trainyard-python -c 'print("served")'`,
      inHost,
    );
    expect(output).toBe('served\n');
    const next = await until('the next server', () =>
      servers.status().find(({ state }) => state === 'ready'),
    );
    expect(next.pid).not.toBe(status.pid);
  });

  test('a service that was killed finds its server again', async () => {
    const status = servers.status()[0];
    const adopting = new ForkServers({ runDir: join(harness.dataDir, 'run'), initDir: INIT_DIR });
    await adopting.ensure({ name: 'pytorch', python: PYTHON });
    const adopted = await until('the adopted server', () =>
      adopting.status().find(({ state }) => state === 'ready'),
    );
    expect(adopted.pid).toBe(status?.pid);
    await adopting.stop();
    await until('the end of the server', () => servers.status()[0]?.state === 'ended');
  });

  test('without a server ranks start all the same', async () => {
    const shell = harness.shell(handle, 'algo-1');
    const { output } = await shell.run(`${shell.insideRun}/bin/trainyard-python -c 'print("fresh")'`, {
      TRAINYARD_PYTHON: PYTHON,
    });
    expect(output).toBe('fresh\n');
  });
});

function withoutAddresses(run: Run): Run {
  return { ...run, out: run.out.replace(/0x[0-9a-f]+/g, '0x…'), err: run.err.replace(/0x[0-9a-f]+/g, '0x…') };
}

const REPORT = readFileSync(join(ROOT, 'tests/e2e/fork-server/report.py'), 'utf8');
const report = (env: Record<string, string>, args = ['report.py', 'a']): Scenario => ({
  args,
  env,
  files: { 'report.py': REPORT },
});
const REPORTS: Record<string, Scenario> = {
  'with one thread': report({ OMP_NUM_THREADS: '1' }),
  'with all threads': report({}),
  'unbuffered, in another time zone': report({ OMP_NUM_THREADS: '2', TZ: 'Asia/Tokyo' }, ['-u', 'report.py']),
};
const FRESH_SCENARIOS: Record<string, Scenario> = Object.fromEntries(
  Object.entries(FRESH).map(([title, { scenario }]) => [title, scenario]),
);

const DDP_PROGRAM = `
import os, socket, torch, torch.distributed as dist
dist.init_process_group('gloo')
torch.manual_seed(dist.get_rank())
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for _ in range(3):
    optimizer.zero_grad(); model(torch.randn(8, 4)).square().mean().backward(); optimizer.step()
print('%s of %d: %s' % (socket.gethostname(), dist.get_world_size(), model.module.weight.tolist()), flush=True)
dist.destroy_process_group()
`;

/** Connects, sends a request, lets a child answer the server's question, as an attacker would who waits for its number to be given to another process. */
const HANDOVER = `
import array, os, socket, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import frames
sock = socket.socket(socket.AF_UNIX)
sock.connect('/run/trainyard/fork.sock')
fields = [b'1', os.environb[b'TRAINYARD_PYTHON'], b'', b'command', b'/', b'', b'', b'2', b'1', b'-c', b'print("ran")', b'LANG=C.UTF-8']
socket.send_fds(sock, [frames.pack(fields)], [0, 1, 2])
question = sock.recv(4096)
if os.fork() == 0:
    sock.sendall(question)
    os._exit(0)
print(sock.recv(4096))
`;
