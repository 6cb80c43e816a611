/** Why a pattern cannot be used; the text names the pattern. */
export class FilterPatternError extends Error {}

/**
 * Compiles CloudWatch's filter pattern for plain text: terms and quoted phrases, case sensitive, found anywhere
 * in the message. All plain terms must occur; of terms with `?` one suffices, and they count only when there is
 * no plain term; terms with `-` must not occur.
 * (docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html)
 *
 * @returns a test of one message; the empty pattern matches everything
 * @throws FilterPatternError for JSON `{…}`, columns `[…]` and regular expressions `%…%`, which are not served
 */
export function compileFilterPattern(pattern: string): (message: string) => boolean {
  const trimmed = pattern.trim();
  if (/^[{[]/.test(trimmed) || trimmed.startsWith('%')) {
    throw new FilterPatternError(
      `Invalid filter pattern: '${pattern}' is a JSON, column or regular expression pattern; only terms and "quoted phrases" are served.`,
    );
  }
  const include: string[] = [];
  const optional: string[] = [];
  const exclude: string[] = [];
  const term = /([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)\s*/y;
  while (term.lastIndex < trimmed.length) {
    const match = term.exec(trimmed);
    if (match === null) {
      throw new FilterPatternError(`Invalid filter pattern: '${pattern}' has an unbalanced quotation mark.`);
    }
    const text = match[3] ?? (match[2] ?? '').replaceAll(/\\(.)/gs, '$1');
    const list = match[1] === '?' ? optional : match[1] === '-' ? exclude : include;
    if (text !== '') list.push(text);
  }
  return (message) =>
    include.every((text) => message.includes(text)) &&
    (include.length > 0 || optional.length === 0 || optional.some((text) => message.includes(text))) &&
    !exclude.some((text) => message.includes(text));
}
