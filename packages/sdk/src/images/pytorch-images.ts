import type { ImageTable } from './image-table.ts';
import { imageRows } from './image-table.ts';
import {
  COMPILER,
  COMPILER_LATER,
  EVERYWHERE,
  LEGACY,
  MODEL_PARALLEL,
  NEURON,
  WITHOUT_ISO,
  WITHOUT_ISOF,
} from './registries.ts';

const legacy = { repository: 'sagemaker-pytorch', registry: LEGACY };
const older = { repository: 'pytorch-training', registry: WITHOUT_ISOF };
const current = { repository: 'pytorch-training', registry: EVERYWHERE };
const newer = { repository: 'pytorch-training', registry: WITHOUT_ISO };

/**
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/image_uri_config/pytorch.json
 * The last two rows are images that AWS published after that table.
 */
export const PYTORCH_IMAGES: ImageTable = {
  title: 'PyTorch',
  field: 'frameworkVersion',
  processors: ['cpu', 'gpu'],
  images: [
    ...imageRows(legacy, 'py2 py3', '0.4.0 1.0.0 1.1.0'),
    ...imageRows(older, 'py2 py3', '1.2.0 1.3.1'),
    ...imageRows(older, 'py2 py3 py36', '1.4.0'),
    ...imageRows(older, 'py3 py36', '1.5.0 1.6.0 1.7.1 1.8.0 1.8.1'),
    ...imageRows(older, 'py38', '1.9.0 1.9.1 1.10.0 1.10.2 1.11.0 1.12.0 1.12.1'),
    ...imageRows(older, 'py39', '1.13.1'),
    ...imageRows(older, 'py310', '2.0.0 2.0.1'),
    ...imageRows(current, 'py310', '2.1.0 2.2.0'),
    ...imageRows(current, 'py311', '2.3.0'),
    ...imageRows(newer, 'py311', '2.4.0 2.5.1'),
    ...imageRows(newer, 'py312', '2.6.0 2.7.1 2.8.0'),
    ...imageRows(newer, 'py312', '2.9.0'),
    ...imageRows(newer, 'py313', '2.10.0'),
  ],
};

/** Trainium: other versions need `imageUri`. */
export const PYTORCH_NEURON_IMAGES: ImageTable = {
  title: 'PyTorch for Trainium',
  field: 'frameworkVersion',
  processors: ['neuron'],
  images: imageRows(
    { repository: 'pytorch-training-neuron', registry: NEURON, container: 'sdk2.4.0-ubuntu20.04' },
    'py38',
    '1.11.0',
  ),
};

/** Training Compiler. */
export const PYTORCH_COMPILER_IMAGES: ImageTable = {
  title: 'PyTorch with the Training Compiler',
  field: 'frameworkVersion',
  processors: ['gpu'],
  images: [
    ...imageRows({ repository: 'pytorch-trcomp-training', registry: COMPILER }, 'py38', '1.12.0'),
    ...imageRows({ repository: 'pytorch-trcomp-training', registry: COMPILER_LATER }, 'py39', '1.13.1'),
  ],
};

const library = { repository: 'smdistributed-modelparallel', registry: MODEL_PARALLEL };

/**
 * The model-parallel library with torch_distributed. Newer rows carry the version of the library, and the aliases say
 * which of them a PyTorch version is.
 */
export const MODEL_PARALLEL_IMAGES: ImageTable = {
  title: 'PyTorch with the model-parallel library',
  field: 'frameworkVersion',
  processors: ['gpu'],
  images: [
    ...imageRows(library, 'py310', '2.0.1 2.1.2 2.2.0 2.3.0 2.3.1'),
    ...imageRows(library, 'py311', '2.5.0 2.7.0 2.8.0'),
  ],
  aliases: {
    '2.0': '2.0.1',
    '2.1': '2.1.2',
    '2.2': '2.3.1',
    '2.2.0': '2.3.1',
    '2.3.1': '2.5.0',
    '2.4.1': '2.7.0',
    '2.5.1': '2.8.0',
  },
};

/** Last part of the tag of the model-parallel library's image. */
export function modelParallelContainer(frameworkVersion: string, instanceType: string): string {
  if (frameworkVersion.includes('2.5')) return 'cu124';
  if (instanceType.includes('p5') || /2\.[1-4]/.test(frameworkVersion)) return 'cu121';
  return 'cu118';
}

/** What `PyTorch` asks for outside AWS when neither a version nor an image is given: the newest that AWS's own SDK knows. */
export const DEFAULT_PYTORCH_VERSION = '2.8.0';
