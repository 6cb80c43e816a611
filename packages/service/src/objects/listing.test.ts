import { describe, expect, it } from 'vitest';
import { allObjects } from './listing.ts';
import { chunks, createTestStore } from './test-store.ts';

async function storeOf(keys: string[]) {
  const { store } = await createTestStore();
  for (const key of keys) await store.putObject({ bucket: 'bucket', key, body: chunks('') });
  const list = async (input: { prefix?: string; delimiter?: string; after?: string; limit?: number }) => {
    const page = await store.listObjects({ bucket: 'bucket', ...input });
    return { keys: page.objects.map((object) => object.key), prefixes: page.commonPrefixes, next: page.next };
  };
  return { store, list };
}

describe('listing', () => {
  it('rolls keys up into common prefixes', async () => {
    const { list } = await storeOf(['a', 'd/1', 'd/2', 'd/e/3', 'f']);
    expect(await list({ delimiter: '/' })).toEqual({ keys: ['a', 'f'], prefixes: ['d/'], next: null });
    expect(await list({ delimiter: '/', prefix: 'd/' })).toEqual({
      keys: ['d/1', 'd/2'],
      prefixes: ['d/e/'],
      next: null,
    });
    expect(await list({ delimiter: '/', prefix: 'd' })).toEqual({ keys: [], prefixes: ['d/'], next: null });
    expect(await list({ prefix: 'd/e' })).toEqual({ keys: ['d/e/3'], prefixes: [], next: null });
    expect(await list({ prefix: 'zz' })).toEqual({ keys: [], prefixes: [], next: null });
  });

  it('takes any text as a delimiter', async () => {
    const { list } = await storeOf(['a::b::c', 'a::d', 'a:e']);
    expect(await list({ delimiter: '::' })).toEqual({ keys: ['a:e'], prefixes: ['a::'], next: null });
    expect(await list({ delimiter: '::', prefix: 'a::' })).toEqual({
      keys: ['a::d'],
      prefixes: ['a::b::'],
      next: null,
    });
  });

  it('lists the marker object of a folder as a key inside it', async () => {
    const { list } = await storeOf(['d/', 'd/1']);
    expect(await list({ delimiter: '/', prefix: 'd/' })).toEqual({
      keys: ['d/', 'd/1'],
      prefixes: [],
      next: null,
    });
    expect(await list({ delimiter: '/', prefix: 'd/', after: 'd/' })).toEqual({
      keys: ['d/1'],
      prefixes: [],
      next: null,
    });
  });

  it('pages through keys and prefixes without gap or repetition, whatever the page size', async () => {
    const keys = ['a', 'b/1', 'b/2', 'b0', 'c/1', 'd/x/1', 'd/x/2', 'd/y', 'é', '日/1', '日/2', '😀'];
    const { list } = await storeOf(keys);
    const whole = await list({ delimiter: '/' });
    expect(whole.prefixes).toEqual(['b/', 'c/', 'd/', '日/']);
    for (let limit = 1; limit <= keys.length; limit++) {
      const seen = { keys: [] as string[], prefixes: [] as string[] };
      let after = '';
      for (let pages = 0; pages <= keys.length; pages++) {
        const page = await list({ delimiter: '/', after, limit });
        expect(page.keys.length + page.prefixes.length).toBeLessThanOrEqual(limit);
        seen.keys.push(...page.keys);
        seen.prefixes.push(...page.prefixes);
        if (page.next === null) break;
        after = page.next;
      }
      expect(seen, `limit ${limit}`).toEqual({ keys: whole.keys, prefixes: whole.prefixes });
    }
  });

  it('starts after a key that need not exist', async () => {
    const { list } = await storeOf(['a', 'b', 'c']);
    expect((await list({ after: 'a' })).keys).toEqual(['b', 'c']);
    expect((await list({ after: 'aa' })).keys).toEqual(['b', 'c']);
    expect((await list({ after: 'z' })).keys).toEqual([]);
    expect((await list({ prefix: 'c', after: 'a' })).keys).toEqual(['c']);
  });

  it('promises no further page when the last one is exactly full', async () => {
    const { list } = await storeOf(['a', 'b']);
    expect(await list({ limit: 2 })).toEqual({ keys: ['a', 'b'], prefixes: [], next: null });
    expect(await list({ limit: 0 })).toEqual({ keys: [], prefixes: [], next: null });
  });

  it('goes through more objects than a page holds', async () => {
    const { store, list } = await storeOf(Array.from({ length: 5 }, (_, i) => `p/${i}`));
    const paged = {
      listObjects: (input: Parameters<typeof store.listObjects>[0]) =>
        store.listObjects({ ...input, limit: 2 }),
    };
    const keys: string[] = [];
    for await (const object of allObjects(paged, 'bucket', 'p/')) keys.push(object.key);
    expect(keys).toEqual((await list({})).keys);
  });
});
