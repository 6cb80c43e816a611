import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { place } from './placement.ts';

describe('place', () => {
  it('gives all hosts of a job or none', () => {
    const result = place(8, [{ name: 'b', instanceCount: 6 }], [{ name: 'a', instanceCount: 4 }]);
    expect(result.placed).toEqual([]);
    expect(result.waiting[0]!.reason).toBe('Waiting for 6 hosts: 4 of 8 free; held by a (4)');
  });

  it('lets nobody overtake the oldest waiting job', () => {
    const result = place(
      8,
      [
        { name: 'big', instanceCount: 6 },
        { name: 'small', instanceCount: 1 },
      ],
      [{ name: 'a', instanceCount: 4 }],
    );
    expect(result.placed).toEqual([]);
    expect(result.waiting[1]!.reason).toContain('position 2 in the queue, behind big');
  });

  it('never gives out more hosts than there are, and places a prefix of the queue', () => {
    const job = fc.record({ name: fc.uuid(), instanceCount: fc.integer({ min: 1, max: 8 }) });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 16 }),
        fc.array(job),
        fc.array(job, { maxLength: 3 }),
        (limit, queue, holders) => {
          const held = holders.reduce((sum, { instanceCount }) => sum + instanceCount, 0);
          fc.pre(held <= limit);
          const { placed, waiting } = place(limit, queue, holders);
          const given = queue
            .slice(0, placed.length)
            .reduce((sum, { instanceCount }) => sum + instanceCount, 0);
          expect(placed).toEqual(queue.slice(0, placed.length).map(({ name }) => name));
          expect(held + given).toBeLessThanOrEqual(limit);
          expect(placed.length + waiting.length).toBe(queue.length);
        },
      ),
    );
  });
});
