import { describe, expect, it, test } from 'vitest';
import type { FailureEvidence, RankOutput } from './failure.ts';
import { findFailure, GLOO_EXIT_HINT, hostOfRank } from './failure.ts';
import type { LaunchRecord } from './state.ts';

const TORCHRUN: LaunchRecord = {
  launcher: 'torchrun',
  role: 'run',
  command: 'torchrun train.py',
  processesPerHost: 2,
  rankHosts: ['algo-1', 'algo-2'],
  mpiMajor: null,
  companions: [],
  peers: [],
  follows: null,
};

const error = (exception: string, line = 5): string =>
  `Traceback (most recent call last):\n  File "/opt/ml/code/train.py", line ${line}, in <module>\n    step()\n${exception}\n`;

const LOST = error('RuntimeError: [pair.cc:534] Connection closed by peer [10.77.0.12]:1');

function evidence(change: Partial<FailureEvidence>): FailureEvidence {
  return {
    host: 'algo-2',
    launch: TORCHRUN,
    end: { exitCode: 1, signal: null, endedAt: 9000 },
    culprit: null,
    launcherErrors: '',
    ranks: [],
    codeDirectory: '/opt/ml/code',
    oomKills: 0,
    ...change,
  };
}

const output = (rank: number, text: string, writtenAt = 1000): RankOutput => ({ rank, text, writtenAt });

const table = (rank: number, localRank: number, code: number): string =>
  `\n====\ntrain.py FAILED\n----\nFailures:\n  <NO_OTHER_FAILURES>\n----\nRoot Cause (first observed failure):\n[0]:\n  rank      : ${rank} (local_rank: ${localRank})\n  exitcode  : ${code} (pid: 82)\n====\n`;

describe('the first cause on a host', () => {
  it('is nothing when the script ended well', () => {
    expect(findFailure(evidence({ end: { exitCode: 0, signal: null, endedAt: 1 } }))).toBeNull();
  });

  it('is the rank whose own error it was, although another rank’s consequence came first', () => {
    const failure = findFailure(
      evidence({
        launcherErrors: table(2, 0, 1),
        ranks: [output(2, LOST, 900), output(3, error('ValueError: bad batch'), 1000)],
      }),
    );
    expect(failure).toMatchObject({
      host: 'algo-2',
      rank: 3,
      localRank: 1,
      exception: 'ValueError: bad batch',
      location: 'train.py:5',
      isConsequence: false,
      at: 1000,
    });
  });

  it('counts the ranks that ended with the same trace', () => {
    const text = error('ValueError: bad config');
    const failure = findFailure(
      evidence({ launcherErrors: table(3, 1, 1), ranks: [output(2, text), output(3, text)] }),
    );
    expect(failure).toMatchObject({ rank: 3, exitCode: 1, sameTraceRanks: [2, 3] });
  });

  it('is a consequence when every rank lost its peers', () => {
    const failure = findFailure(
      evidence({ launcherErrors: table(2, 0, 1), ranks: [output(2, LOST), output(3, LOST)] }),
    );
    expect(failure).toMatchObject({ rank: 2, isConsequence: true });
  });

  it('is the rank that a signal killed, before ranks that only lost it', () => {
    const failure = findFailure(
      evidence({ launcherErrors: table(3, 1, -9), ranks: [output(2, LOST, 1), output(3, 'epoch 1\n')] }),
    );
    expect(failure).toMatchObject({
      rank: 3,
      exitCode: null,
      signal: 'SIGKILL',
      exception: null,
      outOfMemory: false,
    });
  });

  it('is out of memory when the kernel killed something meanwhile', () => {
    expect(findFailure(evidence({ launcherErrors: table(3, 1, -9), oomKills: 1 }))).toMatchObject({
      outOfMemory: true,
    });
    expect(findFailure(evidence({ launcherErrors: table(3, 1, -9), oomKills: null }))).toMatchObject({
      outOfMemory: false,
    });
  });

  it('knows global ranks when torchrun was killed before its table', () => {
    const failure = findFailure(
      evidence({
        launcherErrors: 'E api.py:984] failed (exitcode: 3) local_rank: 1 (pid: 9) of binary: x\n',
      }),
    );
    expect(failure).toMatchObject({ rank: 3, localRank: 1, exitCode: 3 });
  });

  it('is the launcher’s own error when there were no ranks yet', () => {
    const failure = findFailure(
      evidence({
        launcherErrors: 'torchrun: error: unrecognized arguments: --x\n',
        end: { exitCode: 2, signal: null, endedAt: 7 },
      }),
    );
    expect(failure).toMatchObject({
      rank: null,
      localRank: null,
      exitCode: 2,
      at: 7,
      trace: ['torchrun: error: unrecognized arguments: --x'],
    });
  });

  it('explains the abort that Gloo causes at the very end', () => {
    const failure = findFailure(
      evidence({
        launcherErrors: table(2, 0, -6),
        ranks: [output(2, 'terminate called without an active exception\n')],
      }),
    );
    expect(failure).toMatchObject({ rank: 2, signal: 'SIGABRT' });
    expect(failure!.trace.at(-1)).toBe(GLOO_EXIT_HINT);
  });
});

test('under mpirun ranks are told by their tags, and the host is where the rank ran', () => {
  const launch: LaunchRecord = { ...TORCHRUN, launcher: 'mpirun', mpiMajor: 5 };
  const tagged = error('ValueError: bad batch')
    .trimEnd()
    .split('\n')
    .map((line) => `[1,3]<stderr>: ${line}`)
    .join('\n');
  const words =
    'prterun detected that one or more processes exited\n  Process name: [prterun-algo-1-1@1,3]\n  Exit code:    1\n';
  expect(
    findFailure(evidence({ host: 'algo-1', launch, launcherErrors: `${tagged}\n${words}` })),
  ).toMatchObject({
    host: 'algo-2',
    rank: 3,
    localRank: 1,
    exitCode: 1,
    exception: 'ValueError: bad batch',
    location: 'train.py:5',
  });
});

test('a plain script has no rank, and its own exit code counts', () => {
  const launch: LaunchRecord = { ...TORCHRUN, launcher: 'single', rankHosts: [] };
  const failure = findFailure(
    evidence({
      launch,
      launcherErrors: error('KeyError: 1'),
      end: { exitCode: null, signal: 'SIGSEGV', endedAt: 5 },
    }),
  );
  expect(failure).toMatchObject({ host: 'algo-2', rank: null, signal: 'SIGSEGV', exception: 'KeyError: 1' });
});

test('ranks fill hosts in order', () => {
  expect([0, 1, 2, 3, 4].map((rank) => hostOfRank(TORCHRUN, rank))).toEqual([
    'algo-1',
    'algo-1',
    'algo-2',
    'algo-2',
    null,
  ]);
});

test('a server that dies is the cause, whatever it or others say', () => {
  const failure = findFailure(
    evidence({
      end: { exitCode: null, signal: 'SIGKILL', endedAt: 9000 },
      culprit: 'parameter server on algo-2',
      launcherErrors: 'some warning\n',
    }),
  );
  expect(failure).toMatchObject({
    host: 'algo-2',
    rank: null,
    signal: 'SIGKILL',
    exception: 'The parameter server on algo-2 ended while the script needed it',
    isConsequence: false,
  });
});
