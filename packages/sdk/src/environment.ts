/** The variables that this SDK reads besides those of AWS's SDKs (`AWS_REGION`, `AWS_PROFILE`, `AWS_ENDPOINT_URL`…). */
export interface Environment {
  /** URL of a Trainyard service; comes before `AWS_ENDPOINT_URL_SAGEMAKER` and `AWS_ENDPOINT_URL`. */
  TRAINYARD_ENDPOINT?: string;
  /** Data directory of the embedded service. Default `~/.local/share/trainyard/data`. */
  TRAINYARD_DATA?: string;
  /** File that starts the service, run with this process's Node. Default: the one of package `@trainyard/service`. */
  TRAINYARD_SERVICE?: string;
}
