import type { ImageTable } from './image-table.ts';
import { imageRows } from './image-table.ts';
import { EVERYWHERE, LEGACY, WITHOUT_ISO, WITHOUT_ISOF, WITHOUT_NEWEST } from './registries.ts';

const oldest = { repository: 'sagemaker-tensorflow', registry: LEGACY };
const scriptMode = { repository: 'sagemaker-tensorflow-scriptmode', registry: LEGACY };
const first = { repository: 'tensorflow-training', registry: WITHOUT_NEWEST };
const older = { repository: 'tensorflow-training', registry: WITHOUT_ISOF };
const current = { repository: 'tensorflow-training', registry: EVERYWHERE };
const newer = { repository: 'tensorflow-training', registry: WITHOUT_ISO };

/**
 * https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/image_uri_config/tensorflow.json
 * The last row is an image that AWS published after that table.
 */
export const TENSORFLOW_IMAGES: ImageTable = {
  title: 'TensorFlow',
  field: 'frameworkVersion',
  processors: ['cpu', 'gpu'],
  images: [
    ...imageRows(oldest, 'py2', '1.4.1 1.5.0 1.6.0 1.7.0 1.8.0 1.9.0 1.10.0'),
    ...imageRows(scriptMode, 'py2 py3', '1.11.0 1.12.0'),
    ...imageRows(scriptMode, 'py2', '1.13.1'),
    ...imageRows(first, 'py3', '1.13.1'),
    ...imageRows(older, 'py2 py3', '1.14.0 1.15.0'),
    ...imageRows(older, 'py2 py3 py37', '1.15.2 1.15.3'),
    ...imageRows(older, 'py3 py36 py37', '1.15.4 1.15.5'),
    ...imageRows(older, 'py2 py3', '2.0.0 2.0.1 2.0.2'),
    ...imageRows(older, 'py3 py36', '2.0.3 2.0.4'),
    ...imageRows(older, 'py2 py3', '2.1.0 2.1.1'),
    ...imageRows(older, 'py3 py36', '2.1.2 2.1.3'),
    ...imageRows(older, 'py37', '2.2.0 2.2.1 2.2.2 2.3.0 2.3.1 2.3.2 2.4.1 2.4.3 2.5.0 2.5.1'),
    ...imageRows(older, 'py38', '2.6.0 2.6.2 2.6.3 2.7.1'),
    ...imageRows(older, 'py39', '2.8.0 2.9.2 2.10.1 2.11.0'),
    ...imageRows(newer, 'py310', '2.12.0'),
    ...imageRows(current, 'py310', '2.13.0 2.14.1'),
    ...imageRows(newer, 'py310', '2.16.2 2.18.0'),
    ...imageRows(newer, 'py312', '2.19.0'),
    ...imageRows(newer, 'py312', '2.21.0'),
  ],
};

/** What `TensorFlow` asks for outside AWS when neither a version nor an image is given. */
export const DEFAULT_TENSORFLOW_VERSION = '2.19.0';
