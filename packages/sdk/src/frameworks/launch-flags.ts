import type { PythonValue } from '@trainyard/api';
import type { Distribution } from '../distribution.ts';

/** The options that lead to these decoded `sagemaker_*` hyperparameters: the way back of `planLaunch`. */
export function distributionOfFlags(flags: Readonly<Record<string, PythonValue>>): {
  distribution?: Distribution;
  processesPerHost?: number;
} {
  const processes = flags['sagemaker_mpi_num_of_processes_per_host'];
  const perHost = typeof processes === 'number' ? { processesPerHost: processes } : {};
  if (flags['sagemaker_torch_distributed_enabled'] === true) {
    return { distribution: { torch_distributed: { enabled: true } }, ...perHost };
  }
  if (flags['sagemaker_distributed_dataparallel_enabled'] === true) {
    const options = text(flags['sagemaker_distributed_dataparallel_custom_mpi_options']);
    return { distribution: { pytorchddp: { enabled: true, ...options } }, ...perHost };
  }
  if (flags['sagemaker_mpi_enabled'] === true) {
    return {
      distribution: { mpi: { enabled: true, ...text(flags['sagemaker_mpi_custom_mpi_options']) } },
      ...perHost,
    };
  }
  return {};
}

function text(options: PythonValue | undefined): { custom_mpi_options?: string } {
  return typeof options === 'string' && options !== '' ? { custom_mpi_options: options } : {};
}
