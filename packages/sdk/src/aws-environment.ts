import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { CredentialsSource } from '@trainyard/api';

/**
 * Region, credentials and endpoints as AWS's SDKs find them. The modules that read profiles, SSO caches and instance
 * metadata are loaded only when one of these is needed.
 */
export type EndpointService = 'sagemaker' | 'logs' | 'sts' | 's3';

/** Names of the services in `AWS_ENDPOINT_URL_…` and in a profile's `services` section. */
const SERVICE_IDS: Readonly<Record<EndpointService, string>> = {
  sagemaker: 'SAGEMAKER',
  logs: 'CLOUDWATCH_LOGS',
  sts: 'STS',
  s3: 'S3',
};

export type ConfiguredEndpoints = Partial<Record<EndpointService, string>>;

type Section = Readonly<Record<string, string | undefined>>;

/** Endpoints from the environment, else from the profile; empty when none is configured or they are to be ignored. */
export async function findEndpoints(profile: string | undefined): Promise<ConfiguredEndpoints> {
  const { env } = process;
  if (isTrue(env['AWS_IGNORE_CONFIGURED_ENDPOINT_URLS'])) return {};
  const sections = mayConfigureEndpoints() ? await profileSections(profile) : null;
  const endpoints: ConfiguredEndpoints = {};
  for (const [service, id] of Object.entries(SERVICE_IDS) as [EndpointService, string][]) {
    const url =
      env[`AWS_ENDPOINT_URL_${id}`] ||
      env['AWS_ENDPOINT_URL'] ||
      sections?.services?.[`${id.toLowerCase()}.endpoint_url`] ||
      sections?.profile['endpoint_url'];
    if (url && !isTrue(sections?.profile['ignore_configured_endpoint_urls']))
      endpoints[service] = url.replace(/\/+$/, '');
  }
  return endpoints;
}

/** @returns undefined when none is configured. */
export async function findRegion(profile: string | undefined): Promise<string | undefined> {
  const { env } = process;
  const named = env['AWS_REGION'] || env['AWS_DEFAULT_REGION'];
  if (named) return named;
  if (!existsSync(configPath())) return undefined;
  return (await profileSections(profile)).profile['region'];
}

/** Static keys of the environment, else the chain of AWS's SDK for JavaScript, which renews temporary keys. */
export async function findCredentials(profile: string | undefined): Promise<CredentialsSource> {
  const { env } = process;
  const [accessKeyId, secretAccessKey] = [env['AWS_ACCESS_KEY_ID'], env['AWS_SECRET_ACCESS_KEY']];
  if (accessKeyId && secretAccessKey && !profile && !env['AWS_PROFILE']) {
    const sessionToken = env['AWS_SESSION_TOKEN'];
    return { accessKeyId, secretAccessKey, ...(sessionToken && { sessionToken }) };
  }
  const { defaultProvider } = await import('@aws-sdk/credential-provider-node');
  const provider = defaultProvider(profile === undefined ? {} : { profile });
  return async () => {
    const found = await provider();
    return {
      accessKeyId: found.accessKeyId,
      secretAccessKey: found.secretAccessKey,
      ...(found.sessionToken !== undefined && { sessionToken: found.sessionToken }),
    };
  };
}

function configPath(): string {
  return process.env['AWS_CONFIG_FILE'] || join(homedir(), '.aws', 'config');
}

/** A look at the text costs nothing beside loading the parser. */
function mayConfigureEndpoints(): boolean {
  try {
    return readFileSync(configPath(), 'utf8').includes('endpoint_url');
  } catch {
    return false;
  }
}

async function profileSections(
  profile: string | undefined,
): Promise<{ profile: Section; services: Section | undefined }> {
  const { loadSharedConfigFiles, getProfileName } = await import('@smithy/core/config');
  const { configFile, credentialsFile } = await loadSharedConfigFiles();
  const name = getProfileName(profile === undefined ? {} : { profile });
  const section = { ...credentialsFile[name], ...configFile[name] };
  const services =
    section['services'] === undefined ? undefined : configFile[`services.${section['services']}`];
  return { profile: section, services };
}

function isTrue(value: string | undefined): boolean {
  return value?.toLowerCase() === 'true';
}
