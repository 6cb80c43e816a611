import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ForkServers } from '@trainyard/service';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { HostShell } from './local-executor/host-shell.ts';
import { INIT_DIR, LocalHarness, ROOT } from './local-executor/local-harness.ts';

// A user without privileges, also where the tests run as root: this file has a process of its own, which becomes such a user for good.
const NOBODY = 65_534;
if (process.getuid?.() === 0) {
  process.setgroups?.([]);
  process.setgid?.(NOBODY);
  process.setuid?.(NOBODY);
}

const RUNTIME = join(process.env['TRAINYARD_RUNTIMES'] ?? join(ROOT, '.trainyard/runtimes'), 'pytorch');

/** A runtime that such a user can run: the machine's interpreter with the packages of the real one. */
function borrowedRuntime(directory: string): string {
  const version = readdirSync(join(RUNTIME, 'lib')).find((name) => name.startsWith('python3.'));
  const packages = join(RUNTIME, 'lib', version ?? '', 'site-packages');
  execFileSync('/usr/bin/python3', ['-m', 'venv', '--without-pip', directory], { stdio: 'pipe' });
  const own = join(directory, 'lib', version ?? '', 'site-packages');
  if (!existsSync(own)) throw new Error(`/usr/bin/python3 is not the ${version} of the runtime`);
  for (const name of readdirSync(packages)) {
    if (!existsSync(join(own, name))) symlinkSync(join(packages, name), join(own, name));
  }
  execFileSync(join(directory, 'bin/python'), ['-c', 'import torch'], { stdio: 'pipe' });
  return join(directory, 'bin/python');
}

for (const rung of ['user-namespaces', 'processes'] as const) {
  describe(`the fork server of a plain user, rung ${rung}`, () => {
    const directory = mkdtempSync(join(tmpdir(), 'ty-runtime-'));
    let harness: LocalHarness | null = null;
    let servers: ForkServers;
    let shell: HostShell;
    let python: string;
    let skipped: string | null = null;

    beforeAll(async () => {
      try {
        python = borrowedRuntime(join(directory, 'runtime'));
      } catch (error) {
        skipped = `no runtime that uid ${process.getuid?.()} can run: ${(error as Error).message}`;
        return;
      }
      const made = await LocalHarness.open(rung);
      if (typeof made === 'string') {
        skipped = made;
        return;
      }
      harness = made;
      servers = new ForkServers({ runDir: join(made.dataDir, 'run'), initDir: INIT_DIR });
      const forkServerSocket = await servers.ensure({ name: 'borrowed', python });
      const plan = {
        ...made.plan('forks', 2),
        forkServerSocket,
        visiblePaths: [join(directory, 'runtime')],
      };
      shell = made.shell(await made.submit(plan), 'algo-2');
    });
    afterAll(async () => {
      await servers?.stop();
      await harness?.close();
      rmSync(directory, { recursive: true, force: true });
    });

    it('forks into the host of the caller, as the caller', async (context) => {
      if (skipped !== null) return context.skip(skipped);
      const program = [
        'import os, re, socket, sys',
        'status = open("/proc/self/status").read()',
        'print(socket.gethostname(), os.getuid(), os.getgid(), re.findall(r"(?:Cap\\w+|NoNewPrivs|Groups|Umask):\\s+(\\w*)", status))',
        'print(sorted((name, os.readlink("/proc/self/ns/" + name)) for name in ("user", "mnt", "net", "pid", "uts", "ipc")))',
        'import torch; print(torch.ones(2).sum().item())',
      ].join('\n');
      const seen: string[] = [];
      for (const interpreter of [python, `${shell.insideRun}/bin/trainyard-python`]) {
        const env = { TRAINYARD_PYTHON: python, TRAINYARD_PRELOAD: 'explain', PROGRAM: program };
        const { output, exitCode } = await shell.run(`exec ${interpreter} -c "$PROGRAM"`, env);
        expect({ exitCode, output }).toMatchObject({ exitCode: 0 });
        seen.push(output);
      }
      expect(seen[1]).toBe(seen[0]);
    });
  });
}
