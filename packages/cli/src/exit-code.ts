/** What the shell sees; listed in the help and in docs. Scripts depend on these numbers. */
export const EXIT_CODE = {
  completed: 0,
  /** The job failed, or the command could not do its work. */
  failed: 1,
  /** The arguments are wrong, or the service refused the request. */
  refused: 2,
  /** The job was stopped, by a person or by its time limit. */
  stopped: 3,
  /** No service answered, or what it needs is not installed. */
  unavailable: 4,
  /** Ctrl-C left the job running; as shells report an interrupt. */
  detached: 130,
} as const;

export type ExitCode = (typeof EXIT_CODE)[keyof typeof EXIT_CODE];

export const EXIT_CODE_HELP = `
Exit codes: 0 completed, 1 failed, 2 wrong arguments or refused request, 3 stopped,
4 service not available, 130 detached by Ctrl-C (the job goes on).`;
