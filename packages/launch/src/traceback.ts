/** What the end of a rank's error output says. */
export interface ErrorTrace {
  /** Line of the exception, e.g. `ValueError: bad batch`. */
  exception: string | null;
  /** Innermost frame inside the user's code: `train.py:42`. */
  location: string | null;
  /** Last useful lines, at most {@link MAX_TRACE_LINES}. */
  lines: string[];
  /** Equal for the same error at the same place. */
  key: string;
}

export const MAX_TRACE_LINES = 40;

// PyTorch prefixes the traceback of a rank with `[rank3]: `.
const PREFIX = /^\[rank\d+\]:\s?/;
const ANSI = new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*[A-Za-z]`, 'g');
const TRACEBACK = /^\s*(?:\+ )?(?:Exception Group )?Traceback \(most recent call last\):/;
const FRAME = /^\s+(?:\| )?File "([^"]+)", line (\d+)/;
const EXCEPTION = /^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:: .*|:)?$/;
const NAMED_ERROR = /^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b(?:: .*)?$/;
const IGNORED = /^Exception ignored in/;
const ABORT =
  /^terminate called (?:after throwing an instance of '(?<type>[^']+)'|(?<bare>without an active exception))/;

/** @param codeDirectory absolute; frames below it are the user's */
export function readTrace(text: string, codeDirectory: string): ErrorTrace | null {
  const lines = text.split('\n').map((line) => line.replace(ANSI, '').replace(PREFIX, '').trimEnd());
  return pythonTrace(lines, codeDirectory) ?? nativeAbort(lines) ?? plainError(lines, codeDirectory);
}

/** The last traceback; one that Python prints while it throws an error away does not count. */
function pythonTrace(lines: readonly string[], codeDirectory: string): ErrorTrace | null {
  for (let start = lines.length - 1; start >= 0; start -= 1) {
    if (!TRACEBACK.test(lines[start]!) || IGNORED.test(lines[start - 1] ?? '')) continue;
    const body = lines.slice(start + 1);
    const end = body.findIndex((line) => line !== '' && !/^\s/.test(line) && EXCEPTION.test(line));
    if (end < 0) continue;
    const frames = body
      .slice(0, end)
      .map((line) => FRAME.exec(line))
      .filter((frame) => frame !== null);
    const message = messageLines(body.slice(end));
    return makeTrace(message, frames, [lines[start]!, ...body.slice(0, end), ...message], codeDirectory);
  }
  return null;
}

/** An exception's text may go on over lines; it ends at an empty line or at what clearly is another's. */
function messageLines(lines: readonly string[]): string[] {
  const end = lines.findIndex(
    (line, index) => index > 0 && (line === '' || TRACEBACK.test(line) || IGNORED.test(line)),
  );
  return lines.slice(0, end < 0 ? 12 : Math.min(end, 12));
}

/** A C++ exception that nobody caught ends the process by SIGABRT. */
function nativeAbort(lines: readonly string[]): ErrorTrace | null {
  const at = lines.findLastIndex((line) => ABORT.test(line));
  if (at < 0) return null;
  const groups = ABORT.exec(lines[at]!)!.groups!;
  const what = /^\s*what\(\):\s*(.*)$/.exec(lines[at + 1] ?? '')?.[1];
  const exception = groups.bare ? lines[at]! : `${groups.type}${what ? `: ${what}` : ''}`;
  return { exception, location: null, lines: tail(lines.slice(at, at + 12)), key: exception };
}

/** Errors without a traceback: a syntax error, a missing file, a message of argparse, the words of `sys.exit`. */
function plainError(lines: readonly string[], codeDirectory: string): ErrorTrace | null {
  const at = lines.findLastIndex((line) => NAMED_ERROR.test(line));
  if (at >= 0) {
    const from = Math.max(0, at - 4);
    const frames = lines
      .slice(from, at)
      .map((line) => FRAME.exec(line))
      .filter((frame) => frame !== null);
    return makeTrace([lines[at]!], frames, lines.slice(from, at + 1), codeDirectory);
  }
  const words = lines.filter((line) => line !== '');
  if (words.length === 0) return null;
  return { exception: null, location: null, lines: tail(words).slice(-10), key: words.at(-1)! };
}

function makeTrace(
  message: readonly string[],
  frames: readonly RegExpExecArray[],
  lines: readonly string[],
  codeDirectory: string,
): ErrorTrace {
  const own = frames
    .map((frame) => userFrame(frame[1]!, frame[2]!, codeDirectory))
    .findLast((place) => place !== null);
  const exception = cut(message[0]!.replace(/:$/, ''));
  return {
    exception,
    location: own ?? null,
    lines: tail(lines),
    key: [exception, ...frames.map((frame) => `${frame[1]}:${frame[2]}`)].join('\n'),
  };
}

/** Absolute below the code directory, or relative as `python train.py` prints it. */
function userFrame(file: string, line: string, codeDirectory: string): string | null {
  if (file.includes('site-packages') || file.startsWith('<')) return null;
  if (file.startsWith(`${codeDirectory}/`)) return `${file.slice(codeDirectory.length + 1)}:${line}`;
  return file.startsWith('/') ? null : `${file}:${line}`;
}

/** Messages of tensors and shapes can be longer than anybody reads. */
const MAX_LENGTH = 1000;
const cut = (line: string): string => line.slice(0, MAX_LENGTH);

const tail = (lines: readonly string[]): string[] => lines.slice(-MAX_TRACE_LINES).map(cut);

/** Words that say that another rank went away. Each is what some library writes, not our own text. */
const CONSEQUENCES: readonly RegExp[] = [
  /Connection (?:reset|closed|refused) by peer|Connection refused|Broken pipe|Socket closed/i,
  /Timed out waiting \d+ms for (?:recv|send) operation|\[[^\]]*gloo[^\]]*\]/i,
  /\b(?:DistBackendError|DistNetworkError|DistStoreError)\b/,
  /NCCL.*(?:remote process (?:exited|has)|communicator was aborted|unhandled system error)/i,
  /\bProcessGroup(?:Gloo|NCCL|MPI|Wrapper)?\b.*(?:abort|timeout|terminated|failed)/i,
  /\b(?:RendezvousConnectionError|RendezvousClosedError|RendezvousTimeoutError)\b/,
  /\bSignalException\b|SIGTERM|^KeyboardInterrupt/,
  /errors_impl\.(?:UnavailableError|AbortedError|CancelledError)|Collective ops is aborted/,
  /MPI_ERR_PROC_FAILED|PMIX.*LOST.CONNECTION/i,
];

export const isConsequence = (trace: Pick<ErrorTrace, 'exception' | 'lines'>): boolean => {
  const words = trace.exception === null ? trace.lines.slice(-3) : [trace.exception];
  return words.some((line) => CONSEQUENCES.some((pattern) => pattern.test(line)));
};
