import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { HostFailure } from './host-failure.ts';
import type { ListeningPort } from './launchers/launcher.ts';

/** @throws HostFailure naming the port, what it is for and, where the system tells, the process that holds it */
export async function requireFreePorts(ports: readonly ListeningPort[], host: string): Promise<void> {
  for (const { port, use } of ports) {
    if (await isFree(port)) continue;
    const holder = portHolder(port);
    throw new HostFailure(
      'ClientError',
      `Port ${port} of ${host}, on which ${use} listens, is taken${holder ? ` by ${holder}` : ''}. ` +
        'End that process, or run the job where hosts have a network of their own (trainyard doctor says why not here).',
    );
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) =>
      error.code === 'EADDRINUSE' ? resolve(false) : reject(error),
    );
    server.listen({ port, host: '0.0.0.0', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

const LISTEN = '0A';

/** `python3 (pid 12)`; null where processes cannot be looked at or the holder is another user's. */
export function portHolder(port: number, proc = '/proc'): string | null {
  const inodes = new Set(['tcp', 'tcp6'].flatMap((table) => listeners(read(`${proc}/net/${table}`), port)));
  if (inodes.size === 0) return null;
  for (const pid of list(proc).filter((name) => /^\d+$/.test(name))) {
    for (const descriptor of list(`${proc}/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(link(`${proc}/${pid}/fd/${descriptor}`))?.[1];
      if (inode !== undefined && inodes.has(inode)) {
        return `${read(`${proc}/${pid}/comm`).trim() || 'a process'} (pid ${pid})`;
      }
    }
  }
  return null;
}

/** Inodes of the sockets that listen on a port, from a table such as `/proc/net/tcp`. */
function listeners(table: string, port: number): string[] {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  return table
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[1]?.endsWith(`:${hex}`) && fields[3] === LISTEN)
    .map((fields) => fields[9]!);
}

const attempt = <T>(work: () => T, otherwise: T): T => {
  try {
    return work();
  } catch {
    return otherwise;
  }
};
const read = (path: string): string => attempt(() => readFileSync(path, 'utf8'), '');
const list = (path: string): string[] => attempt(() => readdirSync(path), []);
const link = (path: string): string => attempt(() => readlinkSync(path), '');
