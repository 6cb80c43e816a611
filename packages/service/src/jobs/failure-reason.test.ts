import type { RankFailure } from '@trainyard/api';
import { describe, expect, it } from 'vitest';
import type { ExitedReport, Host } from '../store/host-store.ts';
import { FAILURE_REASON_LENGTH, failureReason } from './failure-reason.ts';

const failure = (change: Partial<RankFailure> = {}): RankFailure => ({
  host: 'algo-1',
  rank: 0,
  localRank: 0,
  exitCode: 1,
  signal: null,
  at: 1000,
  exception: 'ValueError: bad batch',
  location: 'train.py:42',
  trace: [],
  sameTraceRanks: [],
  isConsequence: false,
  outOfMemory: false,
  ...change,
});

const host = (name: string, change: Partial<ExitedReport> = {}): Host =>
  ({
    host: name,
    exited: {
      kind: 'exited',
      seq: 0,
      at: 2000,
      endedBy: 'script',
      exitCode: 1,
      signal: null,
      failure: null,
      failureFile: null,
      command: '/usr/bin/python train.py --lr 0.1',
      model: [],
      output: [],
      ...change,
    },
  }) as Host;

describe('failureReason', () => {
  it('names host, rank, exception, place and exit code in the form of AWS', () => {
    expect(
      failureReason([
        host('algo-2', { failure: failure({ host: 'algo-2', rank: 3 }) }),
        host('algo-1', { exitCode: 0 }),
      ]),
    ).toBe(
      'AlgorithmError: ExecuteUserScriptError:\nExitCode 1\nErrorMessage "algo-2 rank 3: ValueError: bad batch (train.py:42); exit code 1"\nCommand "/usr/bin/python train.py --lr 0.1", exit code: 1',
    );
  });

  it('says how to bring a module that the images have and the runtime has not', () => {
    const exception = "ModuleNotFoundError: No module named 'smdistributed'";
    expect(failureReason([host('algo-1', { failure: failure({ exception }) })])).toContain(
      `${exception} (train.py:42); exit code 1; bring it with: trainyard setup --libraries"`,
    );
  });

  it('takes the first cause, not the rank that only saw its peer go away', () => {
    const reason = failureReason([
      host('algo-1', {
        failure: failure({
          at: 900,
          isConsequence: true,
          exception: 'RuntimeError: Connection closed by peer',
        }),
      }),
      host('algo-2', { failure: failure({ host: 'algo-2', rank: 2, at: 1000 }) }),
    ]);
    expect(reason).toContain('algo-2 rank 2: ValueError');
  });

  it('shows the same error of several ranks once', () => {
    const reason = failureReason([
      host('algo-1', { failure: failure({ rank: 0, sameTraceRanks: [0, 1] }) }),
      host('algo-2', { failure: failure({ host: 'algo-2', rank: 2, at: 1001, sameTraceRanks: [2] }) }),
    ]);
    expect(reason).toContain(
      'algo-1 rank 0: ValueError: bad batch (train.py:42); exit code 1; same error on ranks 1, 2',
    );
  });

  it('says which signal killed a rank', () => {
    const reason = failureReason([
      host('algo-1', {
        failure: failure({
          signal: 'SIGKILL',
          exitCode: null,
          exception: null,
          location: null,
          trace: ['epoch 1'],
        }),
      }),
    ]);
    expect(reason).toContain('ExitCode 137');
    expect(reason).toContain('killed by SIGKILL');
  });

  it("prefers the script's own failure file", () => {
    expect(failureReason([host('algo-1', { failureFile: 'my words', failure: failure() })])).toBe(
      'AlgorithmError: my words',
    );
  });

  it("keeps AWS's limit and the end of the form", () => {
    const reason = failureReason([host('algo-1', { failure: failure({ exception: 'E'.repeat(5000) }) })]);
    expect(Array.from(reason).length).toBeLessThanOrEqual(FAILURE_REASON_LENGTH);
    expect(reason).toMatch(/exit code: 1$/);
  });
});
