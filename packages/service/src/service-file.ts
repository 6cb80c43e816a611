import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';

/** `DATA/service.json`: how clients on this machine find the service. */
export interface ServiceFile {
  url: string;
  pid: number;
  startedAt: number;
  version: string;
  isEmbedded: boolean;
}

export function readServiceFile(path: string): ServiceFile | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ServiceFile;
  } catch {
    return null;
  }
}

/** Written whole or not at all: clients poll it. */
export function writeServiceFile(path: string, file: ServiceFile): void {
  writeFileSync(`${path}.new`, `${JSON.stringify(file)}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

export function removeServiceFile(path: string): void {
  rmSync(path, { force: true });
}
