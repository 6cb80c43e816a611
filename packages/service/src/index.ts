export type { ServiceConfig } from './config.ts';
export { ConfigError, readConfig } from './config.ts';
export type { RunningService } from './service.ts';
export { DirectoryInUse, startService } from './service.ts';
export type {
  Executor,
  ExecutorHandle,
  GangPlan,
  HostLaunch,
  HostMount,
  HostObservation,
  IsolationReport,
} from './executors/executor.ts';
export { LocalExecutor, type LocalExecutorOptions } from './executors/local/local-executor.ts';
export {
  ForkServers,
  type ForkServersOptions,
  type ForkServerStatus,
} from './executors/local/fork-server.ts';
