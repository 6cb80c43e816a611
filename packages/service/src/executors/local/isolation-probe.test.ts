import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isolationOf, probeIsolation, tailOf } from './isolation-probe.ts';

let runDir: string;
beforeEach(() => {
  runDir = mkdtempSync(join(tmpdir(), 'ty-probe-'));
});
afterEach(() => rmSync(runDir, { recursive: true }));

describe('the ladder', () => {
  it('stops at the first rung that works and says what the machine answered on those above', async () => {
    const report = await probeIsolation('auto', runDir, async (rung) =>
      rung === 'processes' ? null : 'unshare: Operation not permitted',
    );
    expect(report.level).toBe('processes');
    expect(report.probes.map(({ rung, available }) => [rung, available])).toEqual([
      ['namespaces', false],
      ['user-namespaces', false],
      ['processes', true],
    ]);
    expect(report.probes.every(({ detail }) => detail.length > 10)).toBe(true);
  });

  it('keeps to the rung that was asked for', async () => {
    const report = await probeIsolation('processes', runDir, async () => null);
    expect(report.level).toBe('processes');
    expect(report.probes[0]?.detail).toContain('TRAINYARD_ISOLATION is processes');
  });

  it('refuses a machine on which nothing starts, with what it said last', async () => {
    await expect(probeIsolation('auto', runDir, async () => 'node: not found')).rejects.toMatchObject({
      name: 'ExecutorError',
      message: expect.stringContaining('processes: node: not found'),
    });
  });

  it('leaves nothing in the run directory', async () => {
    await probeIsolation('auto', runDir, async (_rung, directory) => {
      writeFileSync(join(directory, 'file'), '');
      return null;
    });
    expect(readdirSync(runDir)).toEqual([]);
  });
});

describe('TRAINYARD_ISOLATION', () => {
  it('names a rung or auto', () => {
    expect([undefined, '', 'auto', 'processes'].map(isolationOf)).toEqual([
      'auto',
      'auto',
      'auto',
      'processes',
    ]);
  });

  it('is refused otherwise, with the values there are', () => {
    expect(() => isolationOf('docker')).toThrow(
      'TRAINYARD_ISOLATION is "docker"; give namespaces, user-namespaces, processes or auto',
    );
  });
});

describe('the tail of a log', () => {
  it('is its last bytes, and empty when there is none', async () => {
    writeFileSync(join(runDir, 'log'), `${'x'.repeat(100)}\nlast line\n`);
    expect(await tailOf(join(runDir, 'log'), 10)).toBe('last line');
    expect(await tailOf(join(runDir, 'absent'))).toBe('');
  });
});
