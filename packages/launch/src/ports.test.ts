import { createServer, type Server } from 'node:net';
import type { AddressInfo } from 'node:net';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { portHolder, requireFreePorts } from './ports.ts';

const servers: Server[] = [];
const folders: string[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

const listen = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () =>
      resolve((server.address() as AddressInfo).port),
    );
    servers.push(server);
  });

test('a taken port is named with its use and its holder', async () => {
  const port = await listen();
  const holder = process.platform === 'linux' ? ` by .+ \\(pid ${process.pid}\\)` : '';
  await expect(requireFreePorts([{ port, use: 'the store' }], 'algo-2')).rejects.toThrow(
    new RegExp(`^Port ${port} of algo-2, on which the store listens, is taken${holder}\\.`),
  );
});

test('free ports are left free', async () => {
  const port = await listen();
  await new Promise((done) => servers.pop()!.close(done));
  await requireFreePorts([{ port, use: 'x' }], 'algo-1');
  await requireFreePorts([{ port, use: 'x' }], 'algo-1');
});

test('the holder is found by its socket, in the tables of both protocols', () => {
  const proc = mkdtempSync(join(tmpdir(), 'trainyard-proc-'));
  folders.push(proc);
  mkdirSync(join(proc, 'net'));
  const row = (port: string, state: string, inode: number): string =>
    `   0: 00000000:${port} 00000000:0000 ${state} 00000000:00000000 00:00000000 00000000     0        0 ${inode} 1\n`;
  writeFileSync(join(proc, 'net/tcp'), `header\n${row('1E61', '01', 5)}`);
  writeFileSync(join(proc, 'net/tcp6'), `header\n${row('1E61', '0A', 77)}`);
  mkdirSync(join(proc, '12/fd'), { recursive: true });
  writeFileSync(join(proc, '12/comm'), 'python3\n');
  symlinkSync('socket:[77]', join(proc, '12/fd/4'));
  expect(portHolder(7777, proc)).toBe('python3 (pid 12)');
  expect(portHolder(7778, proc)).toBeNull();
});
