/**
 * PyTorch versions for which AWS publishes a training image, oldest first, with the python versions of each.
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/image_uri_config/pytorch.json
 * The last two rows are images that AWS published after that table.
 */
export interface ImageVersion {
  version: string;
  pythons: readonly [string, ...string[]];
  repository: 'sagemaker-pytorch' | 'pytorch-training';
}

function rows(
  repository: ImageVersion['repository'],
  pythons: ImageVersion['pythons'],
  versions: string,
): ImageVersion[] {
  return versions.split(' ').map((version) => ({ version, pythons, repository }));
}

export const PYTORCH_IMAGES: readonly ImageVersion[] = [
  ...rows('sagemaker-pytorch', ['py2', 'py3'], '0.4.0 1.0.0 1.1.0'),
  ...rows('pytorch-training', ['py2', 'py3'], '1.2.0 1.3.1'),
  ...rows('pytorch-training', ['py2', 'py3', 'py36'], '1.4.0'),
  ...rows('pytorch-training', ['py3', 'py36'], '1.5.0 1.6.0 1.7.1 1.8.0 1.8.1'),
  ...rows('pytorch-training', ['py38'], '1.9.0 1.9.1 1.10.0 1.10.2 1.11.0 1.12.0 1.12.1'),
  ...rows('pytorch-training', ['py39'], '1.13.1'),
  ...rows('pytorch-training', ['py310'], '2.0.0 2.0.1 2.1.0 2.2.0'),
  ...rows('pytorch-training', ['py311'], '2.3.0 2.4.0 2.5.1'),
  ...rows('pytorch-training', ['py312'], '2.6.0 2.7.1 2.8.0'),
  ...rows('pytorch-training', ['py312'], '2.9.0'),
  ...rows('pytorch-training', ['py313'], '2.10.0'),
];

/** What `PyTorch` asks for outside AWS when neither a version nor an image is given: the newest that AWS's own SDK knows. */
export const DEFAULT_PYTORCH_VERSION = '2.8.0';

/** Versions with which AWS's SDK lets `torch_distributed` start on GPU types. */
export const TORCHRUN_VERSIONS: readonly string[] =
  '1.13.1 2.0.0 2.0.1 2.1.0 2.1.2 2.2.0 2.3.0 2.3.1 2.4.1 2.5.1 2.6.0 2.7.1 2.8.0'.split(' ');

/** The same on Trainium types. */
export const TORCHRUN_TRAINIUM_VERSIONS: readonly string[] =
  '1.11 1.11.0 1.12 1.12.0 1.12.1 1.13.1 2.0.0'.split(' ');

/** Versions with which AWS's SDK lets `pytorchddp` start (the list of its data-parallel library). */
export const PYTORCHDDP_VERSIONS: readonly string[] = [
  '1.6 1.6.0 1.7 1.7.1 1.8 1.8.0 1.8.1 1.9 1.9.0 1.9.1 1.10 1.10.0 1.10.2 1.11 1.11.0 1.12 1.12.0 1.12.1 1.13.1',
  '2.0.0 2.0.1 2.1.0 2.1.2 2.2.0',
].flatMap((line) => line.split(' '));
