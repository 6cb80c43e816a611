import { compareKeys, afterPrefix } from './names.ts';
import type { ObjectIndex } from './object-index.ts';
import type { ListObjectsInput, ObjectInfo, ObjectPage } from './object-store.ts';

export const MAX_PAGE_SIZE = 1000;

/**
 * One page of keys in byte order. Keys that continue after the delimiter are rolled up into a common prefix; the
 * scan then jumps behind that prefix, so a folder of a million keys costs one step.
 */
export function listPage(index: ObjectIndex, input: ListObjectsInput): ObjectPage {
  const { bucket, prefix = '', delimiter = '', after = '' } = input;
  const limit = Math.min(input.limit ?? MAX_PAGE_SIZE, MAX_PAGE_SIZE);
  index.requireBucket(bucket);
  const page: ObjectPage = { objects: [], commonPrefixes: [], next: null };
  if (limit <= 0) return page;
  let last = '';
  let from = startOf(prefix, delimiter, after);
  while (from !== null) {
    let jump: string | null = null;
    // One row more than the page holds: running out of rows means that there are no more.
    for (const object of index.objectsFrom(bucket, from, limit + 1)) {
      if (!object.key.startsWith(prefix)) return page;
      if (page.objects.length + page.commonPrefixes.length === limit) {
        page.next = last;
        return page;
      }
      const common = commonPrefixOf(object.key, prefix, delimiter);
      if (common !== null) {
        page.commonPrefixes.push(common);
        last = jump = common;
        break;
      }
      page.objects.push(object);
      last = object.key;
    }
    if (jump === null) return page;
    from = afterPrefix(jump);
  }
  return page;
}

function startOf(prefix: string, delimiter: string, after: string): string | null {
  if (after === '') return prefix;
  // `after` may be a common prefix that the last page ended with: all of it has been listed.
  const isListedPrefix = commonPrefixOf(after, prefix, delimiter) === after;
  const from = isListedPrefix ? afterPrefix(after) : `${after}\0`;
  if (from === null) return null;
  return compareKeys(from, prefix) < 0 ? prefix : from;
}

function commonPrefixOf(key: string, prefix: string, delimiter: string): string | null {
  if (delimiter === '' || !key.startsWith(prefix)) return null;
  const at = key.indexOf(delimiter, prefix.length);
  return at < 0 ? null : key.slice(0, at + delimiter.length);
}

/** Every object under a prefix, page by page; objects put or removed meanwhile may or may not appear. */
export async function* allObjects(
  store: { listObjects(input: ListObjectsInput): Promise<ObjectPage> },
  bucket: string,
  prefix: string,
): AsyncGenerator<ObjectInfo> {
  let after = '';
  for (;;) {
    const page = await store.listObjects({ bucket, prefix, after });
    yield* page.objects;
    if (page.next === null) return;
    after = page.next;
  }
}
