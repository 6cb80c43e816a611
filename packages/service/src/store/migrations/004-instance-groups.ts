import type { Migration } from './index.ts';

/** A compiled job has groups of hosts, of which a homogeneous cluster is one; channels may name groups. */
export const instanceGroupsMigration: Migration = {
  id: 4,
  name: 'instance-groups',
  sql: `
UPDATE jobs SET spec = json_set(
  spec,
  '$.instanceGroups',
  json_array(json_object(
    'name', 'homogeneousCluster',
    'instanceType', json_extract(spec, '$.instanceType'),
    'instanceCount', json_extract(spec, '$.instanceCount')
  )),
  '$.channels',
  (
    SELECT json_group_array(
      CASE json_extract(channel.value, '$.source.kind')
        WHEN 's3' THEN json_set(channel.value, '$.source.instanceGroups', json('null'))
        ELSE json(channel.value)
      END
    )
    FROM json_each(jobs.spec, '$.channels') AS channel
  )
)
WHERE json_type(spec, '$.instanceGroups') IS NULL;
`,
};
