import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { createS3Client } from '@trainyard/api';
import { AgentLog } from './agent-log.ts';
import { runAttempt } from './attempt.ts';
import { hostPrograms, readBootstrap } from './bootstrap.ts';
import { Checkpoints } from './checkpoints.ts';
import { receiveCommands, sendReports } from './commands.ts';
import { AttemptOver, ControlChannel } from './control-channel.ts';
import { hostOfRank } from './failure.ts';
import { probeHardware } from './hardware.ts';
import { httpFetch } from './http-fetch.ts';
import { InitClient } from './init-client.ts';
import { saysRankFailed } from './launcher-report.ts';
import { Layout } from './layout.ts';
import { LogFiles } from './log-files.ts';
import { LogShipper } from './log-shipper.ts';
import { splitTagged } from './mpi-tags.ts';
import { nodeHasher } from './node-hasher.ts';
import { Peers } from './peers.ts';
import { PlanSource } from './plan-source.ts';
import { prepare } from './prepare.ts';
import { StateStore } from './state.ts';

const VERSION = '0.1.0';

/**
 * The agent of one host: `node agent.mjs AGENT_JSON`, where `-` is the standard input. Wires the parts and runs one attempt. Exit 0 means that the
 * attempt is over and init may end the host; after any other end init starts it again and it goes on.
 */
async function main(): Promise<void> {
  const path = process.argv[2] ?? process.env.TRAINYARD_AGENT_JSON;
  if (!path) throw new Error('usage: agent.mjs AGENT_JSON (or TRAINYARD_AGENT_JSON=PATH)');
  const bootstrap = readBootstrap(path);
  const stateDirectory = bootstrap.agentStateDir;
  const state = StateStore.open(stateDirectory);
  const files = new LogFiles(join(bootstrap.stateDir, 'logs'));
  const init = new InitClient(bootstrap.initSocket);
  const layout = new Layout(bootstrap.mlRoot);

  const hardware = await probeHardware();
  const channel = new ControlChannel({ ...bootstrap, diagnose: (line) => console.error(line) });
  const plans = new PlanSource(stateDirectory, channel, {
    agentVersion: VERSION,
    resumed: state.resumed,
    cpuCount: hardware.cpuCount,
    gpuCount: hardware.gpuCount,
    neuronCoreCount: hardware.neuronCoreCount,
    frameworkVersion: null,
  });

  let rankHasFailed = (): void => {};
  const rankFailed = new Promise<void>((resolve) => {
    rankHasFailed = resolve;
  });
  const shipper = new LogShipper({
    files,
    statePath: join(stateDirectory, 'logs.json'),
    send: (batch) => channel.sendLogs(batch),
    splitLauncherLine: (line, source) => {
      const { launch } = state.current;
      if (!launch?.mpiMajor) return [{ rank: null, source, message: line, text: line }];
      const { mpiMajor } = launch;
      return splitTagged(line, source, {
        mpiMajor,
        hostOfRank: (rank) => hostOfRank(launch, rank) ?? bootstrap.host,
      });
    },
    onLauncherLine: (line) => {
      if (saysRankFailed(line)) rankHasFailed();
    },
  });
  const log = new AgentLog(files.agent);
  const over = new AbortController();
  const plan = await plans.plan();
  const background = [
    shipper.run(over.signal),
    receiveCommands(channel, state, over.signal),
    sendReports(channel, state, over.signal),
  ];
  const attempt = async (): Promise<void> => {
    const s3 = createS3Client({
      endpoint: plan.s3EndpointUrl,
      region: plan.region,
      credentials: () => plans.agentCredentials(),
      hasher: nodeHasher,
      crc32,
      fetch: httpFetch,
    });
    const checkpoints =
      plan.checkpoint &&
      new Checkpoints({
        s3Uri: plan.checkpoint.s3Uri,
        directory: layout.localise(plan.checkpoint.localPath),
        partialDirectory: `${layout.localise(plan.checkpoint.localPath)}/.partial`,
        statePath: join(stateDirectory, 'checkpoints.json'),
        s3,
        log,
      });
    const peers = new Peers(init, {
      remoteShell: hostPrograms(bootstrap).remoteShell,
      interpreter: plan.runtime.python,
    });
    await runAttempt({
      peers,
      hosts: { own: plan.host, others: plan.hosts.filter((host) => host !== plan.host) },
      state,
      init,
      log,
      shipper,
      checkpoints,
      run: {
        plan,
        initSocket: bootstrap.initSocket,
        peers,
        layout,
        files,
        init,
        log,
        state,
        shipper,
        rankFailed,
      },
      artifacts: { plan, layout, s3, channel, state, log },
      prepare: (signal) =>
        prepare({
          bootstrap,
          plan,
          plans,
          layout,
          files,
          hardware,
          s3,
          init,
          log,
          state,
          checkpoints,
          signal,
        }),
    });
  };
  try {
    await Promise.race([attempt(), ...background]);
  } catch (error) {
    if (!(error instanceof AttemptOver)) throw error;
    // Whatever still runs here belongs to nobody.
    await init.signal('*', 'KILL');
  }
  process.exit(0);
}

await main();
