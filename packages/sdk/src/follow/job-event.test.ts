import { expect, test } from 'vitest';
import { parseJobEvent } from './job-event.ts';

test('an event has every member of its type, absent ones as null, and none that the service adds for itself', () => {
  expect(parseJobEvent('log', '3', '{"at":5,"host":"algo-1","message":"x","cursor":"9"}')).toEqual({
    type: 'log',
    id: '3',
    at: 5,
    host: 'algo-1',
    rank: null,
    source: null,
    message: 'x',
  });
});

test('the time of a transition is its start, and rank 0 is not null', () => {
  expect(
    parseJobEvent('transition', null, '{"status":"Training","message":"m","startedAt":7}'),
  ).toMatchObject({ at: 7 });
  expect(parseJobEvent('log', null, '{"at":1,"host":"algo-1","rank":0,"message":""}')).toMatchObject({
    rank: 0,
  });
});

test('a type that this version does not know is no event, whatever it is called', () => {
  for (const type of ['forecast', 'constructor', 'toString', 'end'])
    expect(parseJobEvent(type, '1', '{}')).toBeNull();
});
