export * from './arn.ts';
export * from './client.ts';
export * from './codec.ts';
export * from './control.ts';
export { type Crc32, crc32, formatCrc32 } from './crc32.ts';
export * from './credentials.ts';
export * from './errors.ts';
export type * from './generated/logs.ts';
export { logsOperationNames } from './generated/logs-model.ts';
export type * from './generated/sagemaker.ts';
export { sagemakerOperationNames } from './generated/sagemaker-model.ts';
export type * from './generated/sts.ts';
export type { Hasher } from './hasher.ts';
export * from './hyperparameters.ts';
export * from './instance.ts';
export type { Operation, ServiceModel, Shape } from './model.ts';
export { modelOf, operationStatus, type ServiceName } from './models.ts';
export { PythonFloat, type PythonValue } from './python-value.ts';
export * from './s3/client.ts';
export * from './s3-uri.ts';
export * from './sagemaker-errors.ts';
export * from './signature-errors.ts';
export * from './signed-fetch.ts';
export * from './sigv4/chunks.ts';
export { parseQuery } from './sigv4/canonical.ts';
export type { PayloadRule } from './sigv4/payload.ts';
export type {
  AccessKey,
  KeyLookup,
  RawRequest,
  SignatureFailure,
  SignatureFailureReason,
} from './sigv4/raw-request.ts';
export * from './sigv4/sign.ts';
export * from './sigv4/sigv2.ts';
export * from './sigv4/verify.ts';
export * from './validate.ts';
export {
  escapeXml,
  parseXml,
  type XmlElement,
  xmlChild,
  xmlChildren,
  xmlText,
} from './xml.ts';
export { webCryptoHasher } from './webcrypto-hasher.ts';
