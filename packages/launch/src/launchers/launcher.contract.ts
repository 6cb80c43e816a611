import { expect, test } from 'vitest';
import type { Launch, LaunchContext, Launcher } from './launcher.ts';
import { LAUNCHER_VARIABLES } from './launcher.ts';
import { launchContext } from './test-context.ts';

/** What every launcher promises the agent, on one host and on three. */
export function launcherContract(
  title: string,
  launcher: Launcher,
  change: Partial<LaunchContext> = {},
): void {
  const plans = (hosts: readonly string[], more: Partial<LaunchContext> = {}): Launch[] =>
    hosts.map((host) => launcher.plan(contextOf(host, hosts, { ...change, ...more })));

  for (const hosts of [['algo-1'], ['algo-1', 'algo-2', 'algo-3']]) {
    const where = `${title} on ${hosts.length === 1 ? '1 host' : `${hosts.length} hosts`}`;

    test(`${where}: the same context gives the same launch`, () => {
      expect(plans(hosts)).toEqual(plans(hosts));
    });

    test(`${where}: the first host runs something, and the others run or wait for it`, () => {
      const [first, ...others] = plans(hosts);
      expect(first!.role).toBe('run');
      for (const launch of others)
        expect(launch.argv.join(' ')).toContain(launch.role === 'wait' ? 'algo-1' : '');
      for (const launch of plans(hosts)) expect(launch.cwd).toBe('/opt/ml/code');
    });

    test(`${where}: arguments reach the script whole, without a shell`, () => {
      const argumentsOf = (launch: Launch): string[] => launch.argv.slice(-2);
      for (const launch of plans(hosts, { arguments: ['--text', 'a b; $(c) "d"'] })) {
        if (launch.role === 'run' && launcher.name !== 'container')
          expect(argumentsOf(launch)).toEqual(['--text', 'a b; $(c) "d"']);
      }
    });

    test(`${where}: every variable has its reason`, () => {
      for (const launch of plans(hosts)) {
        const names = [launch.env, ...(launch.companions ?? []).map(({ env }) => env)].flatMap(Object.keys);
        for (const name of names) expect(LAUNCHER_VARIABLES).toHaveProperty(name);
      }
    });

    test(`${where}: servers serve the other hosts, and what follows follows the first`, () => {
      for (const [index, launch] of plans(hosts).entries()) {
        const others = hosts.filter((host) => host !== hosts[index]);
        if (launch.companions?.length) expect(launch.peers).toEqual(others);
        if (launch.follows) expect([launch.follows, index > 0]).toEqual(['algo-1', true]);
        const ids = (launch.companions ?? []).map(({ id }) => id);
        expect(new Set(ids).size).toBe(ids.length);
      }
    });

    test(`${where}: ranks are counted on hosts of the distribution only`, () => {
      for (const { rankHosts } of plans(hosts)) for (const host of rankHosts) expect(hosts).toContain(host);
    });

    test(`${where}: hosts that share a network listen on ports of their own`, () => {
      const shared = {
        isolated: false,
        portOf: (host: string, port: number) => port + 100 * hosts.indexOf(host),
      };
      const ports = plans(hosts, shared).flatMap((launch) => (launch.ports ?? []).map(({ port }) => port));
      expect(new Set(ports).size).toBe(ports.length);
    });
  }
}

function contextOf(host: string, hosts: readonly string[], change: Partial<LaunchContext>): LaunchContext {
  const base = launchContext(change);
  return {
    ...base,
    host,
    cluster: { ...base.cluster, groupHosts: [...hosts], distributionHosts: [...hosts] },
  };
}
