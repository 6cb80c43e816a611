import type { TrainingJobEvent } from '@trainyard/sdk';
import { expect, test } from 'vitest';
import { ProgressView } from './progress-view.ts';
import { printable, type Terminal } from './terminal.ts';

function recorder(isInteractive: boolean, columns = 200): { terminal: Terminal; text: () => string } {
  let written = '';
  const write = (text: string): void => void (written += text);
  const style: Terminal['style'] = (name, text) => (isInteractive ? `<${String(name)}>${text}</>` : text);
  return { terminal: { write, isInteractive, columns: () => columns, style }, text: () => written };
}

const transition = (status: string, at: number, message = ''): TrainingJobEvent =>
  ({ type: 'transition', id: null, at, status, message }) as TrainingJobEvent;
const log = (host: string, rank: number | null, message: string): TrainingJobEvent => ({
  type: 'log',
  id: null,
  at: 0,
  host,
  rank,
  source: 'stdout',
  message,
});
const metric = (name: string, value: number): TrainingJobEvent => ({
  type: 'metric',
  id: null,
  at: 0,
  name,
  value,
  host: null,
  rank: null,
});

const job: TrainingJobEvent[] = [
  transition('Starting', 1000, 'Starting the training job'),
  transition('Starting', 1100, 'Preparing the instances for training'),
  transition('Downloading', 1400),
  transition('Training', 1500, 'Training image download completed.'),
  log('algo-1', 0, 'epoch=1 loss=2.0'),
  metric('accuracy', 0.5),
  metric('train_loss', 2),
  log('algo-2', null, 'launcher line'),
  metric('train_loss', 0.5),
  transition('Uploading', 5500),
  transition('Completed', 5800, 'Training job completed'),
];

test('without a terminal a job is plain lines, one for each phase and log line', () => {
  const { terminal, text } = recorder(false);
  const view = new ProgressView(terminal, () => 0);
  for (const event of job) view.show(event);
  view.tick();
  view.clear();
  expect(text()).toBe(
    [
      '── Starting',
      '── Downloading after 0.4 s',
      '── Training after 0.5 s',
      'algo-1 rank 0 │ epoch=1 loss=2.0',
      'algo-2        │ launcher line',
      '── Uploading after 4.5 s',
      '',
    ].join('\n'),
  );
  expect(view.summary()).toEqual([
    '4.8 s: Starting 0.4 s, Downloading 0.1 s, Training 4.0 s, Uploading 0.3 s',
    'train_loss 2 → 0.5  █▁',
  ]);
});

test('on a terminal the line below is drawn after every line and taken away before the next', () => {
  const { terminal, text } = recorder(true);
  const view = new ProgressView(terminal, () => 3500);
  for (const event of job.slice(0, 7)) view.show(event);
  view.tick();
  view.clear();
  const [, last] = text().split('epoch=1 loss=2.0\n');
  expect(last).toBe(
    '\r\x1b[K<dim>⠋ Training 2.0 s · Ctrl-C detaches</>' +
      '\r\x1b[K<dim>⠙ Training 2.0 s · train_loss ▄ 2 · Ctrl-C detaches</>' +
      '\r\x1b[K',
  );
  expect(text()).toContain('\r\x1b[K<cyan>algo-1 rank 0 │</> epoch=1 loss=2.0\n');
});

test('the line below never wraps', () => {
  const { terminal, text } = recorder(true, 20);
  const view = new ProgressView(terminal, () => 2000);
  view.show(transition('Starting', 1000));
  expect(text().split('<dim>')[1]).toBe('⠋ Starting 1.0 s ·…</>');
});

test('a phase that is out of the ordinary says why, and an event seen twice is shown once', () => {
  const { terminal, text } = recorder(false);
  const view = new ProgressView(terminal, () => 0);
  view.show(transition('Starting', 0));
  view.show(transition('Restarting', 2000, 'host algo-2 was lost'));
  view.show(transition('Restarting', 2000, 'host algo-2 was lost'));
  expect(text()).toBe('── Starting\n── Restarting after 2.0 s: host algo-2 was lost\n');
});

test('the reason for waiting is shown when it changes', () => {
  const { terminal, text } = recorder(false);
  const view = new ProgressView(terminal, () => 0);
  const status = (waitReason: string | null): TrainingJobEvent =>
    ({
      type: 'status',
      id: null,
      at: 0,
      status: 'InProgress',
      secondaryStatus: 'Pending',
      failureReason: null,
      waitReason,
    }) as TrainingJobEvent;
  view.show(status('needs 4 hosts, 2 are free; other-job holds 6'));
  view.show(status('needs 4 hosts, 2 are free; other-job holds 6'));
  view.show(status(null));
  expect(text()).toBe('note needs 4 hosts, 2 are free; other-job holds 6\n');
});

test('a reason for waiting that the phase has said is not said again', () => {
  const { terminal, text } = recorder(false);
  const view = new ProgressView(terminal, () => 0);
  const waitReason = 'Waiting for 2 hosts: 0 of 2 free; held by s1 (2)';
  view.show(transition('Starting', 0));
  view.show(transition('Pending', 1000, waitReason));
  view.show({ type: 'status', id: null, at: 0, secondaryStatus: 'Pending', waitReason } as never);
  view.show({ type: 'status', id: null, at: 0, secondaryStatus: 'Pending', waitReason: 'another' } as never);
  expect(text()).toBe(`── Starting\n── Pending after 1.0 s: ${waitReason}\nnote another\n`);
});

test.each([
  ['plain', 'plain'],
  ['\x1b[31mred\x1b[0m', '\x1b[31mred\x1b[0m'],
  ['\x1b[2J\x1b[1;1Hhome\x07', 'home'],
  ['\x1b]0;title\x07text', 'text'],
  ['10%\r50%\r100%', '100%'],
  ['done\r', 'done'],
])('of %j a terminal gets %j', (message, shown) => {
  expect(printable(message)).toBe(shown);
});
