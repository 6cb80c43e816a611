import type { HostPlan } from '@trainyard/api';

/** The host's plan without keys, which are asked for when they are needed and never kept on disk. */
export type AttemptPlan = Omit<HostPlan, 'agentCredentials' | 'scriptCredentials'>;
