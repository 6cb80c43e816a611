/** Training job names may be this long: a limit of the API. */
const MAX_LENGTH = 63;

export const JOB_NAME_PATTERN = /^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$/;

/** `<base>-YYYY-mm-dd-HH-MM-SS-mmm` in UTC, the base cut so that all of it fits. */
export function timestampedName(base: string, now: Date): string {
  const stamp = now.toISOString().slice(0, 23).replace(/[T:.]/g, '-');
  return `${base.slice(0, MAX_LENGTH - stamp.length - 1)}-${stamp}`;
}

/** `<base>-YYYYmmddHHMMSS` in local time, as version 3 of AWS's SDK, the base cut so that all of it fits. */
export function secondsName(base: string, now: Date): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  const stamp = `${day}${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
  return `${base.slice(0, MAX_LENGTH - stamp.length - 1)}-${stamp}`;
}

/** Last part of an image's repository without its tag: `…/pytorch-training:2.8.0-cpu-py312` → `pytorch-training`. */
export function baseNameOfImage(imageUri: string): string {
  const match = /^(?:.+\/)?([^:/@]+)(?:[:@].+)?$/.exec(imageUri);
  return match?.[1] ?? imageUri;
}

/** The base that a timestamped name was made from; the name itself when it has no timestamp. */
export function baseOfJobName(jobName: string): string {
  const match = /^(.+)-(?:\d{4}(?:-\d{2}){5}-\d{3}|\d{6}-\d{4})/.exec(jobName);
  return match?.[1] ?? jobName;
}
