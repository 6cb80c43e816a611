import { setTimeout as sleep } from 'node:timers/promises';
import type { AgentLog } from './agent-log.ts';
import { formatSeconds } from './clock.ts';
import type { InitClient, ProcessEnd } from './init-client.ts';
import type { Peers } from './peers.ts';
import { awaitedNotice } from './peers.ts';
import { processorTimeMs } from './processes.ts';
import type { LaunchRecord, StateStore } from './state.ts';

/** How this host's part of the training ended. */
export interface HostEnd extends ProcessEnd {
  /** A process beside the script whose end was the host's. */
  culprit?: { id: 'ps' | 'scheduler' | 'server'; title: string };
}

export interface CompanyDeps {
  host: string;
  init: Pick<InitClient, 'wait' | 'signal' | 'list'>;
  peers: Pick<Peers, 'ended'>;
  state: StateStore;
  log: AgentLog;
  launch: LaunchRecord;
  /** Aborted when the end is known. */
  signal: AbortSignal;
}

const MAIN = 'main';

/**
 * The script of a host and the servers beside it. Servers serve scripts of other hosts too, so they live until all
 * of those have ended; a server that ends before is the end of the host. A script that only serves is ended when the
 * host that it follows is done.
 */
export class Company {
  readonly #deps: CompanyDeps;

  constructor(deps: CompanyDeps) {
    this.#deps = deps;
  }

  /** Resolves with how this host ended; may be asked again after a crash. */
  async end(): Promise<HostEnd> {
    const { launch, peers, log } = this.#deps;
    if (launch.companions.length === 0) return this.#scriptEnd();
    const lost = launch.companions.map((companion) => this.#lost(companion));
    if (launch.follows !== null) void this.#follow(launch.follows);
    const script = this.#scriptEnd().then(async (end) => {
      if (end.exitCode !== 0 || this.#deps.state.current.stop) return end;
      const others = launch.peers.map((host) => peers.ended(host));
      if (others.length > 0) log.say(`The script ended; its servers go on for ${launch.peers.join(', ')}`);
      void this.#tellWhoIsAwaited(end.endedAt);
      await Promise.all(others);
      return end;
    });
    return Promise.race([script, ...lost]);
  }

  async #tellWhoIsAwaited(endedAt: number): Promise<void> {
    const { host, launch, peers, state, signal } = this.#deps;
    const notice = await awaitedNotice(peers, { own: host, others: launch.peers }, endedAt, signal);
    if (notice) await state.notice('awaits_hosts', notice);
  }

  /** A script that was ended together with the one it follows ended well. */
  async #scriptEnd(): Promise<ProcessEnd> {
    const end = await this.#deps.init.wait(MAIN);
    return this.#deps.state.current.endedWithLead ? { ...end, exitCode: 0, signal: null } : end;
  }

  /** Resolves when a companion ends other than by our hand; ending well is its way out. */
  async #lost(companion: { id: string; title: string }): Promise<HostEnd> {
    const { init, state, signal } = this.#deps;
    const end = await init.wait(companion.id);
    const isWanted = end.exitCode === 0 || state.current.stop !== null || signal.aborted;
    if (isWanted) return new Promise(() => {});
    return { ...end, culprit: companion as NonNullable<HostEnd['culprit']> };
  }

  /**
   * TensorFlow's workers may serve for ever (`Server.join`), or still train when the master is done. So the script is
   * ended only once it has been idle.
   */
  async #follow(lead: string): Promise<void> {
    const { init, peers, state, log, signal } = this.#deps;
    await peers.ended(lead);
    const began = performance.now();
    for (let idleMs = 0; idleMs < IDLE_MS; ) {
      const main = (await init.list()).find(({ id, running }) => id === MAIN && running);
      if (!main || signal.aborted || state.current.stop) return;
      const before = processorTimeMs(main.pid);
      await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
      const after = processorTimeMs(main.pid);
      const isIdle = before === null || after === null || after - before < LOOK_MS * IDLE_SHARE;
      idleMs = isIdle ? idleMs + LOOK_MS : 0;
    }
    if (signal.aborted || state.current.stop) return;
    await state.update((current) => {
      current.endedWithLead = true;
    });
    const took = formatSeconds(performance.now() - began);
    log.say(`The script of ${lead} has ended and the one here is idle; ending it (${took} later)`);
    await init.signal(MAIN, 'KILL');
  }
}

/** Idle for so long: done. A worker that waits for the next step of its master is idle too, but that one has ended. */
const IDLE_MS = 3000;
const LOOK_MS = 500;
/** gRPC's threads of a waiting TensorFlow server take less than this share of one core. */
const IDLE_SHARE = 0.1;
