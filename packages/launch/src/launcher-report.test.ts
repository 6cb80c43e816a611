import { describe, expect, it, test } from 'vitest';
import { readMpirunWords, readTorchrunTable, saysRankFailed } from './launcher-report.ts';

/** From torchrun of PyTorch 2.13, two ranks of four on this host. */
const TORCHRUN = `W1124 09:10:51.000000 77 torch/distributed/elastic/multiprocessing/api.py:1031] Sending process 81 closing signal SIGTERM
E1124 09:10:52.000000 77 torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: 1) local_rank: 1 (pid: 82) of binary: /run/trainyard/bin/trainyard-python
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2026-11-24_09:10:52
  host      : algo-2
  rank      : 2 (local_rank: 0)
  exitcode  : -15 (pid: 81)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 81
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_09:10:51
  host      : algo-2
  rank      : 3 (local_rank: 1)
  exitcode  : 1 (pid: 82)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
`;

describe('torchrun', () => {
  it('names the root cause first and the others after it', () => {
    expect(readTorchrunTable(TORCHRUN)).toEqual([
      { rank: 3, localRank: 1, exitCode: 1, signal: null, isFirst: true },
      { rank: 2, localRank: 0, exitCode: null, signal: 'SIGTERM', isFirst: false },
    ]);
  });

  it('killed before its table still named the local rank', () => {
    expect(readTorchrunTable(TORCHRUN.slice(0, TORCHRUN.indexOf('Traceback')))).toEqual([
      { rank: -1, localRank: 1, exitCode: 1, signal: null, isFirst: true },
    ]);
  });

  it('without a failure names none', () => {
    expect(readTorchrunTable('W1124 Setting OMP_NUM_THREADS\n')).toEqual([]);
  });
});

describe('mpirun', () => {
  const first = { localRank: null, isFirst: true };

  it('5 names a rank by its process name', () => {
    const text = `--------------------------------------------------------------------------
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-algo-1-12067@1,3]
   Exit code:    7
--------------------------------------------------------------------------`;
    expect(readMpirunWords(text)).toEqual([{ ...first, rank: 3, exitCode: 7, signal: null }]);
  });

  it('4.1 names a rank by its process name', () => {
    const text = `mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[12886,1],2]
  Exit code:    3`;
    expect(readMpirunWords(text)).toEqual([{ ...first, rank: 2, exitCode: 3, signal: null }]);
  });

  it('names a killed rank in words that are wrapped anywhere', () => {
    const text =
      'prterun noticed that process rank 1 with PID 12079 on node vm exited on\nsignal 9 (Killed).';
    expect(readMpirunWords(text)).toEqual([{ ...first, rank: 1, exitCode: null, signal: 'SIGKILL' }]);
  });

  it('names the rank that called MPI_ABORT', () => {
    const text =
      'MPI_ABORT was invoked on rank 2 in communicator MPI_COMM_WORLD\n  Proc: [[41,1],2]\n  Errorcode: 1\nwith errorcode 1.';
    expect(readMpirunWords(text)).toEqual([{ ...first, rank: 2, exitCode: 1, signal: null }]);
  });
});

test.each([
  ['W1124 api.py:1031] Sending process 81 closing signal SIGTERM', true],
  ['E1124 failed (exitcode: -9) local_rank: 0 (pid: 12) of binary: python', true],
  ['MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD', true],
  ['prterun noticed that process rank 1 with PID 9 on node vm exited on', true],
  ['[1,0]<stderr>: Traceback (most recent call last):', false],
  ['loss 0.3', false],
])('"%s" says that a rank failed: %s', (line, expected) => {
  expect(saysRankFailed(line)).toBe(expected);
});
