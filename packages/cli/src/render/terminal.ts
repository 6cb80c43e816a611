import { styleText } from 'node:util';

export type Style = Parameters<typeof styleText>[0];

/** Where a view writes, and what may be written there. */
export interface Terminal {
  readonly write: (text: string) => void;
  /** Cursor movements are understood: a line may be rewritten. */
  readonly isInteractive: boolean;
  readonly columns: () => number;
  readonly style: (style: Style, text: string) => string;
}

/** Colours only on a terminal, and not under NO_COLOR or TERM=dumb. */
export function terminalOn(stream: NodeJS.WriteStream): Terminal {
  const isInteractive = stream.isTTY === true && process.env['TERM'] !== 'dumb';
  const hasColours = isInteractive && stream.hasColors?.() === true && !process.env['NO_COLOR'];
  return {
    write: (text) => void stream.write(text),
    isInteractive,
    // A terminal that does not know its width says 0.
    columns: () => stream.columns || 80,
    style: (style, text) => (hasColours ? styleText(style, text, { validateStream: false }) : text),
  };
}

const CONTROLS =
  // oxlint-disable-next-line no-control-regex -- control characters are what this is about
  /\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;]*m|\x1b\[[0-9;?]*[A-Za-z]|\x1b[^[]|[\x00-\x08\x0b-\x1f\x7f]/g;

/**
 * What a script wrote, fit for a terminal: colours stay, everything that moves the cursor, clears or renames goes,
 * because several ranks and our own line share the screen. Of a progress bar that rewrites itself the last state
 * stays.
 */
export function printable(message: string): string {
  const shown = message.slice(message.replace(/\r+$/, '').lastIndexOf('\r') + 1);
  return shown.replace(CONTROLS, (sequence) =>
    sequence.startsWith('\x1b[') && sequence.endsWith('m') ? sequence : '',
  );
}
