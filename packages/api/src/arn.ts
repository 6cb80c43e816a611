/** Region patterns of botocore's partitions.json, in its order. A region that matches none belongs to `aws`. */
const PARTITIONS: readonly { partition: string; dnsSuffix: string; region: RegExp }[] = [
  { partition: 'aws', dnsSuffix: 'amazonaws.com', region: /^(us|eu|ap|sa|ca|me|af|il|mx)-\w+-\d+$/ },
  { partition: 'aws-cn', dnsSuffix: 'amazonaws.com.cn', region: /^cn-\w+-\d+$/ },
  { partition: 'aws-eusc', dnsSuffix: 'amazonaws.eu', region: /^eusc-(de)-\w+-\d+$/ },
  { partition: 'aws-iso', dnsSuffix: 'c2s.ic.gov', region: /^us-iso-\w+-\d+$/ },
  { partition: 'aws-iso-b', dnsSuffix: 'sc2s.sgov.gov', region: /^us-isob-\w+-\d+$/ },
  { partition: 'aws-iso-e', dnsSuffix: 'cloud.adc-e.uk', region: /^eu-isoe-\w+-\d+$/ },
  { partition: 'aws-iso-f', dnsSuffix: 'csp.hci.ic.gov', region: /^us-isof-\w+-\d+$/ },
  { partition: 'aws-us-gov', dnsSuffix: 'amazonaws.com', region: /^us-gov-\w+-\d+$/ },
];

const partitionEntry = (region: string) =>
  PARTITIONS.find((entry) => entry.region.test(region)) ?? PARTITIONS[0]!;

/** `aws`, `aws-cn`, `aws-us-gov`…; `aws` for a region that AWS does not have. */
export const partitionOfRegion = (region: string): string => partitionEntry(region).partition;

/** `amazonaws.com`, `amazonaws.com.cn`… */
export const dnsSuffixOfRegion = (region: string): string => partitionEntry(region).dnsSuffix;

export interface ArnScope {
  region: string;
  /** Twelve digits. */
  accountId: string;
}

const arn = (service: string, { region, accountId }: ArnScope, resource: string) =>
  `arn:${partitionOfRegion(region)}:${service}:${region}:${accountId}:${resource}`;

/** The name keeps its case. */
export const trainingJobArn = (scope: ArnScope, jobName: string): string =>
  arn('sagemaker', scope, `training-job/${jobName}`);

/** With the `:*` that DescribeLogGroups puts into `arn`; `logGroupArn` there is the same without it. */
export const logGroupArn = (scope: ArnScope, group: string): string =>
  arn('logs', scope, `log-group:${group}:*`);

export const logStreamArn = (scope: ArnScope, group: string, stream: string): string =>
  arn('logs', scope, `log-group:${group}:log-stream:${stream}`);

/** `path` with both slashes, `/` when the role has none. */
export const roleArn = (scope: ArnScope, name: string, path = '/'): string =>
  `arn:${partitionOfRegion(scope.region)}:iam::${scope.accountId}:role${path}${name}`;

export const assumedRoleArn = (scope: ArnScope, roleName: string, sessionName: string): string =>
  `arn:${partitionOfRegion(scope.region)}:sts::${scope.accountId}:assumed-role/${roleName}/${sessionName}`;

/** The bucket both SageMaker SDKs make on first use. */
export const defaultBucketName = ({ region, accountId }: ArnScope): string =>
  `sagemaker-${region}-${accountId}`;

export interface Arn {
  partition: string;
  service: string;
  region: string;
  accountId: string;
  /** Everything after the fifth colon. */
  resource: string;
}

/** @returns null for text that is not an ARN. */
export function parseArn(text: string): Arn | null {
  const match = /^arn:([^:]+):([^:]+):([^:]*):([^:]*):(.+)$/s.exec(text);
  if (!match) return null;
  const [, partition, service, region, accountId, resource] = match as unknown as [
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  return { partition, service, region, accountId, resource };
}
