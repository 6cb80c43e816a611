import { createHmac } from 'node:crypto';
import { join } from 'node:path';
import type { AccessCredentials, Credentials, HostPlan, RegisterRequest } from '@trainyard/api';
import { replaceFile } from './atomic-file.ts';
import type { ControlChannel } from './control-channel.ts';
import { readJson } from './state.ts';
import type { AttemptPlan } from './plan.ts';

/** Keys that end sooner are renewed before they are used. */
const RENEW_BEFORE_MS = 5 * 60_000;

/**
 * The host's plan. It is kept on disk so that an agent that attaches again needs no service to go on; keys are not:
 * they are asked for when they are needed, by registering again.
 */
export class PlanSource {
  readonly #path: string;
  readonly #channel: Pick<ControlChannel, 'register'>;
  readonly #request: RegisterRequest;
  #registered: Promise<HostPlan> | null = null;

  constructor(stateDirectory: string, channel: Pick<ControlChannel, 'register'>, request: RegisterRequest) {
    this.#path = join(stateDirectory, 'plan.json');
    this.#channel = channel;
    this.#request = request;
  }

  /** What an earlier agent left, else what the service says. Its credentials may be absent. */
  async plan(): Promise<AttemptPlan> {
    const stored = readJson<AttemptPlan>(this.#path);
    if (stored) return stored;
    const { agentCredentials: _agent, scriptCredentials: _script, ...plan } = await this.#register();
    await replaceFile(this.#path, JSON.stringify(plan));
    return plan;
  }

  async agentCredentials(): Promise<Credentials> {
    return (await this.#fresh((plan) => plan.agentCredentials)).agentCredentials;
  }

  /** Null under network isolation. */
  async scriptCredentials(): Promise<AccessCredentials | null> {
    return (await this.#fresh((plan) => plan.scriptCredentials)).scriptCredentials;
  }

  /**
   * A secret that all hosts of the attempt derive alike and nobody else can. It goes to the script, so it must not
   * lead back to the key that it is made from.
   */
  async jobSecret(purpose: string): Promise<string> {
    const { agentCredentials, jobName, attempt } = await this.#register();
    return createHmac('sha256', agentCredentials.secretAccessKey)
      .update(`trainyard ${purpose} ${jobName} ${attempt}`)
      .digest('hex');
  }

  async #fresh(of: (plan: HostPlan) => AccessCredentials | null): Promise<HostPlan> {
    const plan = await this.#register();
    const expiresAt = of(plan)?.expiresAt ?? Number.POSITIVE_INFINITY;
    if (expiresAt - Date.now() > RENEW_BEFORE_MS) return plan;
    this.#registered = null;
    return this.#register();
  }

  /** Callers that come together share one call. */
  #register(): Promise<HostPlan> {
    this.#registered ??= this.#channel.register(this.#request).catch((error: unknown) => {
      this.#registered = null;
      throw error;
    });
    return this.#registered;
  }
}
