import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ExecutorHandle } from '@trainyard/service';
import { until } from '../../support/until.ts';
import type { HostShell } from './host-shell.ts';
import { LocalHarness, type Rung } from './local-harness.ts';

/** What `packages/launch/init/DESIGN.md` promises to the agent; the same on every rung. */
export function initTests(rung: Rung): void {
  describe(`init on the rung ${rung}`, () => {
    let harness: LocalHarness;
    let skipped: string | null = null;
    let handle: ExecutorHandle;
    let shell: HostShell;

    beforeAll(async () => {
      const made = await LocalHarness.open(rung);
      if (typeof made === 'string') {
        skipped = made;
        return;
      }
      harness = made;
      handle = await harness.submit(harness.plan('init', 2));
      shell = harness.shell(handle, 'algo-1');
      await until('the agent', async () => (await harness.agentStarts(handle, 'algo-1')) === 1);
    });
    afterAll(async () => {
      if (skipped === null) await harness.close();
    });
    const test = (title: string, body: () => Promise<void>): void => {
      it(title, async (context) => {
        if (skipped !== null) return context.skip(skipped);
        await body();
      });
    };
    const spawn = (id: string, argv: string[], more: object = {}) => ({
      op: 'spawn',
      id,
      argv,
      env: { PATH: '/usr/bin:/bin' },
      cwd: '/',
      stdout: `${shell.insideRun}/state/${id}.out`,
      stderr: `${shell.insideRun}/state/${id}.err`,
      ...more,
    });
    const count = (id: string): number => shell.output(`${id}.out`).split('\n').length - 1;

    test('a spawn has exactly the environment and directory it was given, and leads its own session', async () => {
      const program = 'env | sort; pwd; ps -o pid=,pgid=,sid= -p $$; readlink /proc/$$/fd/0; ls /proc/$$/fd';
      await shell.call(spawn('exact', ['sh', '-c', program], { cwd: '/usr' }), { op: 'wait', id: 'exact' });
      const [first, second, third, cwd, ids, input, ...descriptors] = shell
        .output('exact.out')
        .trim()
        .split('\n');
      expect([first, third, cwd]).toEqual([
        'PATH=/usr/bin:/bin',
        `TRAINYARD_INIT_SOCKET=${shell.insideRun}/init.sock`,
        '/usr',
      ]);
      expect(second).toMatch(/^PWD=/);
      expect(new Set(ids?.trim().split(/\s+/)).size).toBe(1);
      expect(input).toBe('/dev/null');
      expect(descriptors).toEqual(['0', '1', '2']);
    });

    test('outputs are appended to, each to its own file', async () => {
      const argv = ['sh', '-c', 'echo to out; echo to err >&2'];
      const files = {
        stdout: `${shell.insideRun}/state/both.out`,
        stderr: `${shell.insideRun}/state/both.err`,
      };
      for (const id of ['append-1', 'append-2']) await shell.call(spawn(id, argv, files), { op: 'wait', id });
      expect([shell.output('both.out'), shell.output('both.err')]).toEqual([
        'to out\n'.repeat(2),
        'to err\n'.repeat(2),
      ]);
    });

    test('spawning an id again starts nothing and answers the first one', async () => {
      const request = spawn('once', ['sh', '-c', 'echo started; sleep 1000']);
      const [first, second] = await shell.call(request, request);
      expect(second).toEqual({ ...first, existing: true });
      await until('the first start', () => count('once') === 1);
      await shell.call({ op: 'signal', id: 'once', signal: 'KILL' });
      const [end, third] = await shell.call({ op: 'wait', id: 'once' }, request);
      expect(end).toMatchObject({ ok: true, exitCode: null, signal: 'SIGKILL' });
      expect(third).toEqual({ ...first, existing: true });
      expect(count('once')).toBe(1);
      expect(await shell.call({ op: 'forget', id: 'once' }, { op: 'forget', id: 'once' })).toMatchObject([
        { ok: true },
        { ok: false, error: expect.stringContaining("no process has the id 'once'") },
      ]);
    });

    test('ends are told as exit code or signal and stay known', async () => {
      await shell.call(spawn('three', ['sh', '-c', 'exit 3']), spawn('term', ['sh', '-c', 'kill -TERM $$']));
      const before = Date.now();
      const [three, term] = await shell.call({ op: 'wait', id: 'three' }, { op: 'wait', id: 'term' });
      expect(three).toMatchObject({ ok: true, exitCode: 3, signal: null });
      expect(term).toMatchObject({ ok: true, exitCode: null, signal: 'SIGTERM' });
      expect(Math.abs((three?.['endedAt'] as number) - before)).toBeLessThan(60_000);
      const [list] = await shell.call({ op: 'list' });
      expect(list?.['processes']).toEqual(
        expect.arrayContaining([expect.objectContaining({ id: 'three', running: false, exitCode: 3 })]),
      );
    });

    test('the end of an agent touches no spawn', async () => {
      await shell.call(spawn('survivor', ['sh', '-c', 'echo up; sleep 1000']));
      await until('the spawn', () => count('survivor') === 1);
      const starts = await harness.agentStarts(handle, 'algo-1');
      await harness.killAgent(handle, 'algo-1');
      await until('the next agent', async () => (await harness.agentStarts(handle, 'algo-1')) === starts + 1);
      const [hello, list] = await shell.call({ op: 'hello' }, { op: 'list' });
      expect(hello).toMatchObject({ ok: true, host: 'algo-1', protocol: 1 });
      expect(hello?.['agentRestarts']).toBeGreaterThan(0);
      expect(list?.['processes']).toEqual(
        expect.arrayContaining([expect.objectContaining({ id: 'survivor', running: true })]),
      );
      await shell.call({ op: 'signal', id: 'survivor', signal: 'SIGKILL' });
    });

    test('a signal to * reaches what left its session, and spares init and the agent', async () => {
      await harness.startStubborn(handle, 'algo-1');
      await shell.call(spawn('sleeper', ['sleep', '1000']));
      const starts = await harness.agentStarts(handle, 'algo-1');
      const [reply, again] = await shell.call(
        { op: 'signal', id: '*', signal: 'KILL' },
        { op: 'signal', id: '*', signal: 'KILL' },
      );
      expect(reply).toMatchObject({ ok: true, sent: true });
      expect(again).toEqual({ ok: true, sent: false, count: 0 });
      expect(await harness.agentStarts(handle, 'algo-1')).toBe(starts);
    });

    test('refusals say what is wrong and change nothing', async () => {
      const replies = await shell.call(
        spawn('missing', ['no-such-program']),
        spawn('nowhere', ['true'], { cwd: '/no/such/directory' }),
        spawn('bad id', ['true']),
        spawn('empty', []),
        { op: 'dance' },
        { op: 'signal', id: 'absent', signal: 'TERM' },
        { op: 'signal', id: '*', signal: 'DANCE' },
      );
      expect(replies.map(({ ok }) => ok)).toEqual(replies.map(() => false));
      const errors = replies.map(({ error }) => String(error));
      expect(errors[0]).toMatch(/^ENOENT: cannot start 'no-such-program'.*\(cwd \/\)/);
      expect(errors[1]).toContain('/no/such/directory');
      expect(errors[4]).toContain('environment, forget, hello, list, shutdown, signal, spawn, wait');
      expect(errors[6]).toContain("'DANCE'");
      const [list] = await shell.call({ op: 'list' });
      expect(JSON.stringify(list)).not.toContain('missing');
    });

    test('a malformed line is answered and the connection goes on', async () => {
      const [reply] = await shell.call([1, 2]);
      expect(reply).toEqual({ ok: false, error: 'a request is a JSON object' });
    });

    test('the remote shell runs a command on the other host with the caller’s descriptors', async () => {
      const rsh = `${shell.insideRun}/bin/trainyard-rsh`;
      const { output, exitCode } = await shell.run(
        `echo from-stdin | ${rsh} -x -p 22 -o BatchMode=yes user@algo-2 'cat; echo to-stderr >&2; echo '"'$TRAINYARD_INIT_SOCKET'"'; exit 7'; echo "code $?"; ${rsh} algo-2 'kill -9 $$'; echo "code $?"; ${rsh} algo-9 true`,
      );
      const lines = output.split('\n');
      expect(lines.slice(0, 2)).toEqual(['from-stdin', 'to-stderr']);
      expect(lines).toContain('code 7');
      expect(lines).toContain('code 137');
      expect(output).toContain('host algo-9 of this job cannot be reached');
      expect(output).toContain('its hosts are algo-1, algo-2');
      expect(exitCode).toBe(255);
    });

    test('a remote command has its host’s environment once the agent has set it', async () => {
      await harness
        .shell(handle, 'algo-2')
        .call({ op: 'environment', env: { PATH: '/usr/bin:/bin', SM_CURRENT_HOST: 'algo-2' } });
      const { output } = await shell.run(
        `${shell.insideRun}/bin/trainyard-rsh algo-2 'echo $SM_CURRENT_HOST $CALLER'`,
        {
          SM_CURRENT_HOST: 'algo-1',
          CALLER: 'set',
        },
      );
      expect(output).toBe('algo-2\n');
    });

    test('rank output goes to the files of its rank', async () => {
      const logs = `${shell.insideRun}/state`;
      const command = `${shell.insideRun}/bin/trainyard-rank sh -c 'echo out; echo err >&2'`;
      await shell.run(command, { RANK: '3', TRAINYARD_RANK_LOGS: logs });
      await shell.run(command, { OMPI_COMM_WORLD_RANK: '4', TRAINYARD_RANK_LOGS: logs });
      expect((await shell.run(command, { TRAINYARD_RANK_LOGS: logs })).output).toBe('out\nerr\n');
      for (const rank of [3, 4]) {
        expect([shell.output(`rank-${rank}.out`), shell.output(`rank-${rank}.err`)]).toEqual([
          'out\n',
          'err\n',
        ]);
      }
    });

    test('shutdown ends the host with status 0', async () => {
      const doomed = await harness.submit(harness.plan('shutdown', 1));
      await harness.startStubborn(doomed, 'algo-1');
      const [reply] = await harness.shell(doomed, 'algo-1').call({ op: 'shutdown' });
      expect(reply).toEqual({ ok: true });
      const observation = await until('the end of the host', async () => {
        const [host] = await harness.executor.observe(doomed);
        return host?.state === 'gone' && host;
      });
      expect(observation.detail).toBe('exit status 0');
    });
  });
}
