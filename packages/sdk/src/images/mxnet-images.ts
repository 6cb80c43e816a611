import type { ImageTable } from './image-table.ts';
import { imageRows } from './image-table.ts';
import { LEGACY, WITHOUT_NEWEST } from './registries.ts';

const legacy = { repository: 'sagemaker-mxnet', registry: LEGACY };
const current = { repository: 'mxnet-training', registry: WITHOUT_NEWEST };

/** https://github.com/aws/sagemaker-python-sdk/blob/v2.257.6/src/sagemaker/image_uri_config/mxnet.json */
export const MXNET_IMAGES: ImageTable = {
  title: 'MXNet',
  field: 'frameworkVersion',
  processors: ['cpu', 'gpu'],
  images: [
    ...imageRows(legacy, 'py2 py3', '0.12.1 1.0.0 1.1.0 1.2.1 1.3.0 1.4.0'),
    ...imageRows(legacy, 'py2', '1.4.1'),
    ...imageRows(current, 'py3', '1.4.1'),
    ...imageRows(current, 'py2 py3', '1.6.0'),
    ...imageRows(current, 'py3', '1.7.0'),
    ...imageRows(current, 'py37', '1.8.0'),
    ...imageRows(current, 'py38', '1.9.0'),
  ],
};

/** What `MXNet` asks for outside AWS when neither a version nor an image is given: AWS has none newer. */
export const DEFAULT_MXNET_VERSION = '1.9.0';
