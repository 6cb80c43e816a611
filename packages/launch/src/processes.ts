import { readdirSync, readFileSync } from 'node:fs';

/** The variable by which each launcher tells a process its rank. */
export type RankVariable = 'RANK' | 'OMPI_COMM_WORLD_RANK';

/**
 * Signals the ranks of this host themselves, not their launcher and not what they started. A rank is told by the
 * variable that its launcher gave it and its parent has not, and as this host's by the socket of its init.
 *
 * @returns how many were signalled; null where processes cannot be looked at (no /proc)
 */
export function signalRanks(
  variable: RankVariable,
  initSocket: string,
  signal: 'SIGTERM' | 'SIGKILL',
): number | null {
  let names: string[];
  try {
    names = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  } catch {
    return null;
  }
  const holds = (pid: string): boolean => {
    const items = readProcess(pid, 'environ').split('\0');
    return (
      items.some((item) => item.startsWith(`${variable}=`)) &&
      items.includes(`TRAINYARD_INIT_SOCKET=${initSocket}`)
    );
  };
  const inside = new Set(names.filter(holds));
  const ranks = [...inside].filter((pid) => !inside.has(parentOf(pid)));
  for (const pid of ranks) {
    try {
      process.kill(Number(pid), signal);
    } catch {
      // Ended meanwhile.
    }
  }
  return ranks.length;
}

/** Empty when it is gone or not ours to see. */
function readProcess(pid: string, file: 'environ' | 'stat'): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

/** Fourth field of `stat`; the second is a name that may hold anything but ends with the last bracket. */
const parentOf = (pid: string): string => /^.*\) \S (\d+)/s.exec(readProcess(pid, 'stat'))?.[1] ?? '';

/**
 * Kills by the out-of-memory killer so far: of this process's cgroup where that can be read, else of the whole
 * machine. Null when neither can be read.
 */
export function countOomKills(): number | null {
  for (const [path, pattern] of OOM_SOURCES) {
    try {
      const match = pattern.exec(readFileSync(path, 'utf8'));
      if (match) return Number(match[1]);
    } catch {
      // Another place may have it.
    }
  }
  return null;
}

const OOM_SOURCES: readonly [path: string, pattern: RegExp][] = [
  ['/sys/fs/cgroup/memory.events', /^oom_kill (\d+)$/m],
  ['/sys/fs/cgroup/memory/memory.oom_control', /^oom_kill (\d+)$/m],
  ['/proc/vmstat', /^oom_kill (\d+)$/m],
];

/** `_SC_CLK_TCK`, 100 on every Linux that Node runs on. */
const TICK_MS = 10;

/**
 * Processor time that a process and everything that descends from it have used so far, in milliseconds; of children
 * that have ended only what their parents have waited for. Null where that cannot be read.
 */
export function processorTimeMs(pid: number): number | null {
  let names: string[];
  try {
    names = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  } catch {
    return null;
  }
  const family = new Map(names.map((name) => [name, parentOf(name)]));
  const belongs = (name: string | undefined): boolean =>
    name !== undefined && name !== '' && (name === String(pid) || belongs(family.get(name)));
  const own = names.filter(belongs);
  if (own.length === 0) return null;
  return own.reduce((sum, name) => {
    const fields = readProcess(name, 'stat')
      .replace(/^.*\) /s, '')
      .split(' ');
    // utime, stime, cutime, cstime: fields 14 to 17, here without pid and name.
    return sum + [11, 12, 13, 14].reduce((part, index) => part + Number(fields[index] ?? 0), 0) * TICK_MS;
  }, 0);
}
