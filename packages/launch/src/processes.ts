import { readdirSync, readFileSync } from 'node:fs';

/**
 * Ends the ranks of torchrun at once, but not torchrun itself: it still has to say which rank failed first and how.
 * Ranks are told by the variable RANK that torchrun gave them, and as this host's by the folder of their logs.
 *
 * @returns false where processes cannot be looked at (no /proc)
 */
export function killRanks(rankLogDirectory: string): boolean {
  let names: string[];
  try {
    names = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  } catch {
    return false;
  }
  for (const name of names) {
    const pid = Number(name);
    if (pid === process.pid || !isRank(pid, rankLogDirectory)) continue;
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
  return true;
}

function isRank(pid: number, rankLogDirectory: string): boolean {
  try {
    const variables = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
    return (
      variables.some((item) => /^RANK=\d+$/.test(item)) &&
      variables.includes(`TRAINYARD_RANK_LOGS=${rankLogDirectory}`)
    );
  } catch {
    return false;
  }
}

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
