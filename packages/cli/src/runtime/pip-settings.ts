/**
 * The parts of pip's configuration that say where packages come from, as environment variables of uv. uv does not
 * read pip's files, and on a machine behind a mirror only pip's files know the mirror.
 * @param listing output of `pip config list`: one `source.key='value'` a line
 */
export function uvEnvironment(listing: string): Record<string, string> {
  const settings = parseListing(listing);
  const words = (key: string): string => (settings.get(key) ?? '').split(/\s+/).filter(Boolean).join(' ');
  const environment: Record<string, string> = {};
  if (words('index-url')) environment['UV_DEFAULT_INDEX'] = words('index-url');
  if (words('extra-index-url')) {
    environment['UV_INDEX'] = words('extra-index-url');
    // pip takes the best version of all indexes, uv by default the first index that knows the name.
    environment['UV_INDEX_STRATEGY'] = 'unsafe-best-match';
  }
  // uv separates these by commas, pip by blanks.
  if (words('find-links')) environment['UV_FIND_LINKS'] = words('find-links').replaceAll(' ', ',');
  if (settings.has('cert')) environment['SSL_CERT_FILE'] = settings.get('cert') ?? '';
  return environment;
}

/** Environment variables win over the section `install`, which wins over `global`. */
function parseListing(listing: string): Map<string, string> {
  const settings = new Map<string, string>();
  const lines = listing
    .split('\n')
    .map((line) => /^(global|install|:env:)\.([\w-]+)=(['"])(.*)\3$/.exec(line));
  for (const section of ['global', 'install', ':env:']) {
    for (const match of lines) {
      if (match?.[1] === section && match[2] !== undefined && match[4] !== undefined) {
        settings.set(match[2], match[4].replaceAll('\\n', '\n').replaceAll('\\\\', '\\'));
      }
    }
  }
  return settings;
}
