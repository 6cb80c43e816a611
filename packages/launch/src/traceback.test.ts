import { describe, expect, it, test } from 'vitest';
import { isConsequence, MAX_TRACE_LINES, readTrace } from './traceback.ts';

const CODE = '/opt/ml/code';
const trace = (text: string) => readTrace(text, CODE);

const PLAIN = `epoch 1
Traceback (most recent call last):
  File "/opt/ml/code/train.py", line 12, in <module>
    main()
  File "/opt/ml/code/lib/step.py", line 42, in main
    model(batch)
  File "/opt/conda/lib/python3.11/site-packages/torch/nn/modules/module.py", line 1751, in _call_impl
    return forward_call(*args, **kwargs)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ValueError: bad batch
`;

describe('reading the end of a rank’s error output', () => {
  it('finds the exception and the innermost line of the user’s code', () => {
    const found = trace(PLAIN);
    expect(found).toMatchObject({ exception: 'ValueError: bad batch', location: 'lib/step.py:42' });
    expect(found!.lines[0]).toBe('Traceback (most recent call last):');
    expect(found!.lines.at(-1)).toBe('ValueError: bad batch');
  });

  it('sees through the prefix that PyTorch gives a rank and through colours', () => {
    const prefixed = PLAIN.split('\n')
      .map((line) => `[rank3]: ${line}`)
      .join('\n');
    expect(trace(prefixed)?.key).toBe(trace(PLAIN)?.key);
    expect(trace(PLAIN.replace('ValueError', '\u001b[1;35mValueError\u001b[0m'))?.exception).toBe(
      'ValueError: bad batch',
    );
  });

  it('takes the exception that ended the process, not one that was handled or thrown away', () => {
    const text = `${PLAIN.replace('bad batch', 'handled')}retrying
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    raise KeyError("x")
KeyError: 'x'
Exception ignored in: <function Pool.__del__ at 0x7f>
Traceback (most recent call last):
  File "/usr/lib/python3.11/multiprocessing/pool.py", line 271, in __del__
ResourceWarning: unclosed pool
`;
    expect(trace(text)).toMatchObject({ exception: "KeyError: 'x'", location: 'train.py:3' });
  });

  it('takes the last of a chain', () => {
    const text = `${PLAIN}
During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/ml/code/train.py", line 20, in <module>
    raise RuntimeError("training failed") from error
RuntimeError: training failed
more about it
`;
    expect(trace(text)).toMatchObject({
      exception: 'RuntimeError: training failed',
      location: 'train.py:20',
    });
    expect(trace(text)?.lines.at(-1)).toBe('more about it');
  });

  it('knows exceptions of packages and those without a message', () => {
    const with_ = (name: string) => trace(PLAIN.replace('ValueError: bad batch', name))?.exception;
    expect(with_('torch.distributed.DistBackendError: NCCL error')).toBe(
      'torch.distributed.DistBackendError: NCCL error',
    );
    expect(with_('KeyboardInterrupt')).toBe('KeyboardInterrupt');
    expect(with_('AssertionError')).toBe('AssertionError');
  });

  it('finds a syntax error, which has no traceback', () => {
    const text =
      '  File "/opt/ml/code/train.py", line 7\n    def (\n        ^\nSyntaxError: invalid syntax\n';
    expect(trace(text)).toMatchObject({ exception: 'SyntaxError: invalid syntax', location: 'train.py:7' });
  });

  it('finds a C++ exception that nobody caught', () => {
    const text =
      "terminate called after throwing an instance of 'std::runtime_error'\n  what():  cannot allocate\n";
    expect(trace(text)).toMatchObject({ exception: 'std::runtime_error: cannot allocate', location: null });
    expect(trace('terminate called without an active exception\n')?.exception).toBe(
      'terminate called without an active exception',
    );
  });

  it('keeps the last words when there is no exception', () => {
    const found = trace('train.py: error: unrecognized arguments: --epoch\n');
    expect(found).toMatchObject({
      exception: null,
      lines: ['train.py: error: unrecognized arguments: --epoch'],
    });
    expect(trace('\n \n')).toBeNull();
  });

  it(`keeps at most ${MAX_TRACE_LINES} lines, the last ones`, () => {
    const frames = Array.from({ length: 100 }, (_, n) => `  File "train.py", line ${n}, in f\n    f()`).join(
      '\n',
    );
    const found = trace(`Traceback (most recent call last):\n${frames}\nRecursionError: too deep\n`);
    expect(found?.lines).toHaveLength(MAX_TRACE_LINES);
    expect(found).toMatchObject({ exception: 'RecursionError: too deep', location: 'train.py:99' });
  });
});

test('the same error at the same place has the same key, at another line it has another', () => {
  expect(trace(PLAIN)?.key).toBe(trace(`other output\n${PLAIN}`)?.key);
  expect(trace(PLAIN)?.key).not.toBe(trace(PLAIN.replace('line 42', 'line 43'))?.key);
});

test.each([
  [
    'RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.77.0.12]:3511',
    true,
  ],
  ['ConnectionResetError: [Errno 104] Connection reset by peer', true],
  ['torch.distributed.DistBackendError: [1] is setting up NCCL communicator', true],
  ['torch.distributed.elastic.multiprocessing.api.SignalException: Process 7 got signal: 15', true],
  ['BrokenPipeError: [Errno 32] Broken pipe', true],
  ['ValueError: bad batch', false],
  ['RuntimeError: mat1 and mat2 shapes cannot be multiplied', false],
  ['torch.OutOfMemoryError: CUDA out of memory.', false],
])('%s is a consequence of another rank’s death: %s', (exception, expected) => {
  expect(isConsequence({ exception, lines: [] })).toBe(expected);
});
