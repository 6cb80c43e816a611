import { decodeHyperparameter, pythonStr } from '@trainyard/api';
import type { DescribeTrainingJobResponse, TrainyardJob } from '@trainyard/sdk';
import { formatDuration } from './duration.ts';
import { formatMetric } from './metric-course.ts';
import { modelOf } from './model-of.ts';

/** A description as lines of name and value, what a person asks for first; `--json` has the rest. */
export function describeJob(job: DescribeTrainingJobResponse, more: TrainyardJob | null = null): string {
  const { ResourceConfig: resources, SecondaryStatusTransitions: transitions = [] } = job;
  const userValues = Object.entries(job.HyperParameters ?? {}).filter(
    ([name]) => !name.startsWith('sagemaker_'),
  );
  const lines: [string, string | undefined][] = [
    ['Name', job.TrainingJobName],
    ['Status', `${job.TrainingJobStatus} (${job.SecondaryStatus})`],
    ['Reason', job.FailureReason],
    ['Waits', more?.waitReason ?? undefined],
    ['Hosts', resources && describeHosts(resources)],
    ['Image', job.AlgorithmSpecification?.TrainingImage],
    ['Script', asTyped(job.HyperParameters?.['sagemaker_program'])],
    ['Hyperparameters', userValues.map(([name, value]) => `${name}=${asTyped(value)}`).join(' ')],
    ['Inputs', job.InputDataConfig?.map((channel) => channel.ChannelName).join(' ')],
    ['Model', modelOf(job) ?? undefined],
    ['Metrics', finalMetrics(job)],
    ['Created', job.CreationTime.toISOString()],
    ['Ended', job.TrainingEndTime?.toISOString()],
    ...transitions.map(({ Status, StartTime, EndTime, StatusMessage }, index): [string, string] => {
      const took = EndTime ? formatDuration(EndTime.getTime() - StartTime.getTime()) : 'so far';
      return [
        index === 0 ? 'Phases' : '',
        `${Status.padEnd(12)} ${took.padEnd(12)} ${StatusMessage ?? ''}`.trimEnd(),
      ];
    }),
    ...sayOnce(more?.notices ?? []).map((text, index): [string, string] => [
      index === 0 ? 'Notices' : '',
      text,
    ]),
  ];
  return lines
    .filter((line): line is [string, string] => line[1] !== undefined && line[1] !== '')
    .map(([name, value]) => `${name.padEnd(17)}${value}\n`)
    .join('');
}

function describeHosts({
  InstanceCount: count,
  InstanceType: type,
  InstanceGroups: groups = [],
}: NonNullable<DescribeTrainingJobResponse['ResourceConfig']>): string {
  if (groups.length === 0) return `${count} × ${type}`;
  return groups
    .map((group) => `${group.InstanceGroupName}: ${group.InstanceCount} × ${group.InstanceType}`)
    .join(', ');
}

/** What every host says counts once. */
function sayOnce(notices: TrainyardJob['notices']): string[] {
  return [...new Set(notices.map(({ message }) => message))];
}

/** Estimators send values as JSON; a person reads what the script gets. */
function asTyped(value: string | undefined): string | undefined {
  return value === undefined ? undefined : pythonStr(decodeHyperparameter(value));
}

function finalMetrics({
  FinalMetricDataList: metrics = [],
}: DescribeTrainingJobResponse): string | undefined {
  const texts = metrics.flatMap(({ MetricName: name, Value: value }) =>
    name === undefined || value === undefined ? [] : [`${name}=${formatMetric(value)}`],
  );
  return texts.join(' ') || undefined;
}
