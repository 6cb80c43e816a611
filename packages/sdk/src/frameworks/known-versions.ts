/**
 * Versions with which AWS's SDK lets a strategy start, letter by letter.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/fw_utils.py
 */
const list = (...lines: string[]): readonly string[] => lines.flatMap((line) => line.split(' '));

/** `torch_distributed` on GPU types. */
export const TORCHRUN_VERSIONS = list(
  '1.13.1 2.0.0 2.0.1 2.1.0 2.1.2 2.2.0 2.3.0 2.3.1 2.4.1 2.5.1 2.6.0 2.7.1 2.8.0',
);

/** The same on Trainium types. */
export const TORCHRUN_TRAINIUM_VERSIONS = list('1.11 1.11.0 1.12 1.12.0 1.12.1 1.13.1 2.0.0');

/** `smdistributed.dataparallel`, and with PyTorch `pytorchddp`. */
export const DATA_PARALLEL_VERSIONS = {
  pytorch: list(
    '1.6 1.6.0 1.7 1.7.1 1.8 1.8.0 1.8.1 1.9 1.9.0 1.9.1 1.10 1.10.0 1.10.2 1.11 1.11.0 1.12 1.12.0 1.12.1 1.13.1',
    '2.0.0 2.0.1 2.1.0 2.1.2 2.2.0',
  ),
  tensorflow: list(
    '2.3 2.3.1 2.3.2 2.4 2.4.1 2.4.3 2.5 2.5.0 2.5.1 2.6 2.6.0 2.6.2 2.6.3 2.7 2.7.1 2.8 2.8.0',
    '2.9 2.9.1 2.9.2 2.10 2.10.1 2.11 2.11.0',
  ),
} as const;

/** `multi_worker_mirrored_strategy`. */
export const MIRRORED_SINCE = '2.9';
/** `distribution` of MXNet. */
export const MXNET_DISTRIBUTION_SINCE = '1.3';
