export interface S3Location {
  bucket: string;
  /** Key or key prefix without a leading slash; empty for the whole bucket. */
  key: string;
}

/**
 * Reads `s3://bucket/key`. The key is taken as it stands: no decoding, no normalisation of `.`, `..` or `//`.
 *
 * @throws TypeError for any other form.
 */
export function parseS3Uri(uri: string): S3Location {
  const match = /^s3:\/\/([^/]+)(?:\/(.*))?$/s.exec(uri);
  if (!match) throw new TypeError(`'${uri}' is not an S3 URI: write s3://BUCKET or s3://BUCKET/KEY`);
  return { bucket: match[1]!, key: match[2] ?? '' };
}

/** `s3://bucket` for an empty key. */
export const formatS3Uri = ({ bucket, key }: S3Location): string =>
  key === '' ? `s3://${bucket}` : `s3://${bucket}/${key}`;

export const isS3Uri = (uri: string): boolean => /^s3:\/\/[^/]/.test(uri);

/** Puts segments below a URI with exactly one slash between each two: `joinS3Uri('s3://b/p/', 'job', 'output')`. */
export const joinS3Uri = (base: string, ...segments: string[]): string =>
  segments.reduce((uri, segment) => `${uri.endsWith('/') ? uri.slice(0, -1) : uri}/${segment}`, base);
