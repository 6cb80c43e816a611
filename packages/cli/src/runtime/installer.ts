import { dirname, join } from 'node:path';
import { runTool, type ToolResult } from './run-tool.ts';
import { uvEnvironment } from './pip-settings.ts';

export interface InstallOptions {
  /** Take PyTorch's CPU build, from its own index. */
  cpuOnly?: boolean;
  /** Replace what is installed in the same version: a wheel that was built anew. */
  reinstall?: boolean;
}

/** Makes virtual environments and fills them: by uv where there is one, by venv and pip where not or where uv fails. */
export interface Installer {
  /** @param base an interpreter, or a version such as `3.11` that uv finds or brings */
  createEnvironment(folder: string, base: string): Promise<ToolResult>;
  /** Does nothing for what is installed already. */
  install(python: string, requirements: readonly string[], options?: InstallOptions): Promise<ToolResult>;
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

    async install(python, requirements, { cpuOnly = false, reinstall = false } = {}) {
      // What the requirements depend on stays as it is: a wheel built anew must not bring another torch.
      const again = reinstall ? ['--reinstall', '--no-deps'] : [];
      const uvInstall = ['pip', 'install', '--compile-bytecode', '--python', python, ...again];
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
        ...(reinstall ? ['--force-reinstall', '--no-deps'] : []),
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
