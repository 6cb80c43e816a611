import type { Launcher } from './launcher.ts';
import { openMpiEnvironment, scriptCommand, scriptCommandText } from './launcher.ts';

const NONE: Record<string, string> = {};

/** The script itself, once on every host; scripts on several hosts meet through MASTER_ADDR and SM_HOSTS. */
export const single: Launcher = {
  name: 'single',
  plan: (context) => ({
    launcher: 'single',
    role: 'run',
    argv: scriptCommand(context, context.python),
    cwd: context.codeDirectory,
    // The user's own word, and ours when preloading is off, stand.
    env: context.environmentNames.includes('TRAINYARD_PRELOAD') ? NONE : { TRAINYARD_PRELOAD: 'ready' },
    command: scriptCommandText(context),
    rankHosts: [],
  }),
};

/** ContainerEntrypoint and ContainerArguments, run as given. */
export const container: Launcher = {
  name: 'container',
  plan: (context) => ({
    launcher: 'container',
    role: 'run',
    argv: context.containerCommand!,
    cwd: context.codeDirectory,
    // It may call mpirun itself, as the drivers of AWS's SDK v3 do.
    env: openMpiEnvironment(context),
    command: context.containerCommand!.join(' '),
    rankHosts: [],
  }),
};
