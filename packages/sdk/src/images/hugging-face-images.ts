import type { ImageTable, ImageVersion } from './image-table.ts';
import {
  COMPILER_FIRST,
  COMPILER_HUGGING_FACE,
  HUGGING_FACE,
  type Registry,
  WITHOUT_NEWEST,
} from './registries.ts';

export type BaseFramework = 'pytorch' | 'tensorflow';

interface HuggingFaceImage extends ImageVersion {
  base: BaseFramework;
  baseVersion: string;
}

/** Lines of: transformers, base framework, its version, python, last part of the tag. */
function rows(kind: 'training' | 'trcomp-training', registry: Registry, lines: string): HuggingFaceImage[] {
  return lines
    .trim()
    .split('\n')
    .map((line) => {
      const [version = '', base = '', baseVersion = '', python = '', container = ''] = line.trim().split(' ');
      const repository = `huggingface-${base}-${kind}`;
      const framework = base as BaseFramework;
      return { version, base: framework, baseVersion, pythons: [python], container, repository, registry };
    });
}

/** https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/image_uri_config/huggingface.json */
const IMAGES: readonly HuggingFaceImage[] = [
  ...rows(
    'training',
    WITHOUT_NEWEST,
    `4.4.2 pytorch 1.6.0 py36 cu110-ubuntu18.04
     4.4.2 tensorflow 2.4.1 py37 cu110-ubuntu18.04
     4.5.0 pytorch 1.6.0 py36 cu110-ubuntu18.04
     4.5.0 tensorflow 2.4.1 py37 cu110-ubuntu18.04
     4.6.1 pytorch 1.6.0 py36 cu110-ubuntu18.04
     4.6.1 pytorch 1.7.1 py36 cu110-ubuntu18.04
     4.6.1 pytorch 1.8.1 py36 cu111-ubuntu18.04
     4.6.1 tensorflow 2.4.1 py37 cu110-ubuntu18.04
     4.10.2 pytorch 1.8.1 py36 cu110-ubuntu18.04
     4.10.2 pytorch 1.9.0 py38 cu111-ubuntu20.04
     4.10.2 tensorflow 2.4.1 py37 cu110-ubuntu18.04
     4.10.2 tensorflow 2.5.1 py37 cu112-ubuntu18.04
     4.11.0 pytorch 1.9.0 py38 cu111-ubuntu20.04
     4.11.0 tensorflow 2.5.1 py37 cu112-ubuntu18.04
     4.12.3 pytorch 1.9.1 py38 cu111-ubuntu20.04
     4.12.3 tensorflow 2.5.1 py37 cu112-ubuntu18.04
     4.17.0 pytorch 1.10.2 py38 cu113-ubuntu20.04
     4.17.0 tensorflow 2.6.3 py38 cu112-ubuntu20.04`,
  ),
  ...rows(
    'training',
    HUGGING_FACE,
    `4.26.0 pytorch 1.13.1 py39 cu117-ubuntu20.04
     4.28.1 pytorch 2.0.0 py310 cu118-ubuntu20.04
     4.36.0 pytorch 2.1.0 py310 cu121-ubuntu20.04
     4.46.1 pytorch 2.3.0 py311 cu121-ubuntu20.04
     4.48.0 pytorch 2.3.0 py311 cu121-ubuntu20.04
     4.49.0 pytorch 2.5.1 py311 cu124-ubuntu22.04
     4.55.0 pytorch 2.7.1 py312 cu128-ubuntu22.04
     4.56.2 pytorch 2.8.0 py312 cu129-ubuntu22.04`,
  ),
];

/** https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/image_uri_config/huggingface-training-compiler.json */
const COMPILER_IMAGES: readonly HuggingFaceImage[] = [
  ...rows(
    'trcomp-training',
    COMPILER_FIRST,
    `4.11.0 pytorch 1.9.0 py38 cu111-ubuntu20.04
     4.11.0 tensorflow 2.5.1 py37 cu112-ubuntu18.04`,
  ),
  ...rows(
    'trcomp-training',
    COMPILER_HUGGING_FACE,
    `4.17.0 pytorch 1.10.2 py38 cu113-ubuntu20.04
     4.17.0 tensorflow 2.6.3 py38 cu112-ubuntu20.04
     4.21.1 pytorch 1.11.0 py38 cu113-ubuntu20.04`,
  ),
];

/** What `HuggingFace` asks for outside AWS when neither versions nor an image are given. */
export const DEFAULT_HUGGING_FACE = { transformersVersion: '4.56.2', pytorchVersion: '2.8.0' } as const;

/** The images whose base framework has this version, `2.1` standing for its newest patch. */
export function huggingFaceImages(
  base: BaseFramework,
  baseVersion: string,
  hasCompiler: boolean,
): ImageTable {
  const images = (hasCompiler ? COMPILER_IMAGES : IMAGES).filter(
    (image) =>
      image.base === base &&
      (image.baseVersion === baseVersion ||
        (/^\d+\.\d+$/.test(baseVersion) && image.baseVersion.startsWith(`${baseVersion}.`))),
  );
  const compiler = hasCompiler ? ' and the Training Compiler' : '';
  return {
    title: `transformers with ${base === 'pytorch' ? 'PyTorch' : 'TensorFlow'} ${baseVersion}${compiler}`,
    field: 'transformersVersion',
    processors: ['gpu'],
    images,
  };
}

/** Every pair of versions with an image, for a message. */
export function huggingFacePairs(base: BaseFramework): string {
  return IMAGES.filter((image) => image.base === base)
    .map((image) => `${image.version} with ${image.baseVersion}`)
    .join(', ');
}
