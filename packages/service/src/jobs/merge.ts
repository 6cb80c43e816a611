import type { ArtifactFile } from '@trainyard/api';

export interface HostArtifacts {
  host: string;
  model: readonly ArtifactFile[];
  output: readonly ArtifactFile[];
}

export interface UploadPlan {
  lead: boolean;
  parts: { model: string[]; output: string[] };
  model: { own: string[] };
  output: { own: string[] };
  notes: string[];
}

/**
 * Who contributes which file. All hosts' `/opt/ml/model` (and `/opt/ml/output/data`) are one tree; where two
 * hosts have the same path the lowest host wins and the collision is said once. The lowest host leads: it
 * writes the archive from its own files and the parts that the others hand over.
 *
 * @param hosts in rank order
 */
export function mergePlan(
  hosts: readonly HostArtifacts[],
  compression: 'GZIP' | 'NONE',
): Map<string, UploadPlan> {
  const plans = new Map<string, UploadPlan>(
    hosts.map(({ host }, index) => [
      host,
      {
        lead: index === 0,
        parts: { model: [], output: [] },
        model: { own: [] },
        output: { own: [] },
        notes: [],
      },
    ]),
  );
  const lead = plans.get(hosts[0]!.host)!;
  for (const kind of ['model', 'output'] as const) {
    const owner = new Map<string, string>();
    const lost = new Map<string, string[]>();
    for (const { host, [kind]: files } of hosts) {
      for (const { path } of files) {
        const winner = owner.get(path);
        if (winner === undefined) {
          owner.set(path, host);
          plans.get(host)![kind].own.push(path);
        } else {
          lost.set(path, [...(lost.get(path) ?? []), host]);
        }
      }
    }
    for (const [path, losers] of lost) {
      lead.notes.push(
        `${kind === 'model' ? 'Model' : 'Output'} file ${path} exists on ${[owner.get(path)!, ...losers].join(', ')}; the one of ${owner.get(path)!} is kept.`,
      );
    }
    if (compression === 'GZIP') {
      lead.parts[kind] = hosts
        .slice(1)
        .filter(({ host }) => plans.get(host)![kind].own.length > 0)
        .map(({ host }) => host);
    }
  }
  return plans;
}
