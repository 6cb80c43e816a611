import { dirname, join } from 'node:path';
import { runTool, type ToolResult } from './run-tool.ts';
import { uvEnvironment } from './pip-settings.ts';

/** Makes virtual environments and fills them: by uv where there is one, by venv and pip where not or where uv fails. */
export interface Installer {
  createEnvironment(folder: string, basePython: string): Promise<ToolResult>;
  /** Does nothing for what is installed already. */
  install(
    python: string,
    requirements: readonly string[],
    options?: { cpuOnly?: boolean },
  ): Promise<ToolResult>;
}

/** @param uv path of uv, or null to use venv and pip alone */
export async function createInstaller(uv: string | null, basePython: string): Promise<Installer> {
  const environment =
    uv === null ? {} : uvEnvironment(await pipSettings([join(dirname(uv), 'python'), basePython]));
  return {
    async createEnvironment(folder, base) {
      const byUv =
        uv === null
          ? null
          : await runTool(uv, ['venv', '--seed', '--allow-existing', '--python', base, folder], environment);
      return byUv?.ok ? byUv : together(byUv, await runTool(base, ['-m', 'venv', folder]));
    },

    async install(python, requirements, { cpuOnly = false } = {}) {
      const uvInstall = ['pip', 'install', '--compile-bytecode', '--python', python];
      const failures: (ToolResult | null)[] = [];
      if (uv !== null && cpuOnly) {
        // PyTorch's own index has the CPU build. Where it cannot be reached, waiting for retries helps nobody.
        const retries = { UV_HTTP_RETRIES: '1' };
        const args = [...uvInstall, '--torch-backend', 'cpu', ...requirements];
        const result = await runTool(uv, args, { ...environment, ...retries });
        if (result.ok) return result;
        failures.push(result);
      }
      if (uv !== null) {
        const result = await runTool(uv, [...uvInstall, ...requirements], environment);
        if (result.ok) return result;
        failures.push(result);
      }
      const result = await runTool(python, [
        '-m',
        'pip',
        'install',
        '--disable-pip-version-check',
        ...requirements,
      ]);
      return failures.reduceRight<ToolResult>((last, earlier) => together(earlier, last), result);
    },
  };
}

/** Of the first interpreter that has pip: the one beside uv when script/bootstrap brought both. */
async function pipSettings(pythons: readonly string[]): Promise<string> {
  for (const python of pythons) {
    const { ok, output } = await runTool(python, ['-m', 'pip', 'config', 'list']);
    if (ok) return output;
  }
  return '';
}

export function pythonOf(folder: string): string {
  return join(folder, 'bin', 'python');
}

function together(first: ToolResult | null, last: ToolResult): ToolResult {
  return first === null || last.ok ? last : { ok: false, output: `${first.output}\n${last.output}` };
}
