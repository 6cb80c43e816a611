import { describe, expect, it } from 'vitest';
import { mergePlan } from './merge.ts';

const file = (path: string) => ({ path, sizeBytes: 1 });

describe('mergePlan', () => {
  it('lets the lowest host win a collision and says it once', () => {
    const plans = mergePlan(
      [
        { host: 'algo-1', model: [file('a'), file('shared')], output: [] },
        { host: 'algo-2', model: [file('b'), file('shared')], output: [] },
        { host: 'algo-3', model: [file('shared')], output: [] },
      ],
      'GZIP',
    );
    expect(plans.get('algo-1')).toMatchObject({
      lead: true,
      parts: { model: ['algo-2'], output: [] },
      model: { own: ['a', 'shared'] },
    });
    expect(plans.get('algo-2')).toMatchObject({ lead: false, model: { own: ['b'] } });
    expect(plans.get('algo-3')!.model.own).toEqual([]);
    expect(plans.get('algo-1')!.notes).toEqual([
      'Model file shared exists on algo-1, algo-2, algo-3; the one of algo-1 is kept.',
    ]);
  });

  it('needs no parts when every host uploads its own files', () => {
    const plans = mergePlan(
      [
        { host: 'algo-1', model: [], output: [] },
        { host: 'algo-2', model: [file('b')], output: [] },
      ],
      'NONE',
    );
    expect(plans.get('algo-1')!.parts.model).toEqual([]);
    expect(plans.get('algo-2')!.model.own).toEqual(['b']);
  });
});
