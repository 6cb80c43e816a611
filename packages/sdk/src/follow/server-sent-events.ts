export interface ServerSentEvent {
  /** `message` when the sender names none. */
  type: string;
  /** The last id seen in the stream; null before the first. */
  id: string | null;
  data: string;
}

/**
 * Reads a `text/event-stream`; ends with the stream, dropping an event that was cut off. `onActivity` is called for
 * every chunk, comments included.
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 */
export async function* readServerSentEvents(
  stream: ReadableStream<Uint8Array>,
  onActivity: () => void = () => {},
): AsyncGenerator<ServerSentEvent> {
  let id: string | null = null;
  let type = '';
  let data: string[] = [];
  for await (const line of readLines(stream, onActivity)) {
    if (line === '') {
      if (data.length > 0) yield { type: type || 'message', id, data: data.join('\n') };
      type = '';
      data = [];
      continue;
    }
    const colon = line.indexOf(':');
    if (colon === 0) continue;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') type = value;
    else if (field === 'data') data.push(value);
    else if (field === 'id') id = value;
  }
}

/** Complete lines, ended by LF, CRLF or CR. */
async function* readLines(
  stream: ReadableStream<Uint8Array>,
  onActivity: () => void,
): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of stream) {
    onActivity();
    rest += decoder.decode(chunk, { stream: true });
    // A CR at the very end may be half of a CRLF.
    const end = rest.endsWith('\r') ? rest.length - 1 : rest.length;
    const lines = rest.slice(0, end).split(/\r\n|\n|\r/);
    rest = (lines.pop() ?? '') + rest.slice(end);
    yield* lines;
  }
}
