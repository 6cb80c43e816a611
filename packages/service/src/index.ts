export type { ServiceConfig } from './config.ts';
export { ConfigError, readConfig } from './config.ts';
export type { RunningService } from './service.ts';
export { DirectoryInUse, startService } from './service.ts';
