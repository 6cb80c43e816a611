import { describe, expect, it } from 'vitest';
import { isAlive, processIdentity, processesWithVariable, sendSignal } from './process-identity.ts';

const isLinux = process.platform === 'linux';
/** Above the largest pid that Linux gives. */
const NOBODYS_PID = 4_194_305;

describe('a process', () => {
  it('is alive as long as pid and start time are its own', async () => {
    const me = await processIdentity(process.pid);
    expect(await isAlive(me)).toBe(true);
    expect(await isAlive({ pid: NOBODYS_PID, startTime: null })).toBe(false);
  });

  it.runIf(isLinux)('is another one when the start time differs', async () => {
    const { pid, startTime } = await processIdentity(process.pid);
    expect(startTime).toBeGreaterThan(0);
    expect(await isAlive({ pid, startTime: (startTime ?? 0) + 1 })).toBe(false);
  });

  it('is never one of the special pids', async () => {
    expect([await isAlive({ pid: 0, startTime: null }), await isAlive({ pid: -1, startTime: null })]).toEqual(
      [false, false],
    );
  });

  it('that is gone cannot be signalled, which is no error', () => {
    expect(sendSignal(NOBODYS_PID, 'SIGTERM')).toBe(false);
  });

  it.runIf(isLinux)('is found by a variable of its environment, not by a part of one', async () => {
    const path = process.env['PATH'] ?? '';
    expect(await processesWithVariable('PATH', path)).toContain(process.pid);
    expect(await processesWithVariable('ATH', path)).not.toContain(process.pid);
  });
});
