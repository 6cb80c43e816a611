"""Renders estimator calls with SageMaker's Python SDK 2. usage: render.py CASES SOURCE_DIR; prints JSON results.

A result is {"request": CreateTrainingJob body} or {"error": what was raised}. Uploads and calls are cut off.
"""

import json
import logging
import os
import re
import sys
import warnings

warnings.simplefilter('ignore')
logging.disable(logging.CRITICAL)
os.environ.update(
    AWS_ACCESS_KEY_ID='AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY='secret',
    AWS_DEFAULT_REGION='us-west-2',
    AWS_EC2_METADATA_DISABLED='true',
)

import boto3  # noqa: E402
import sagemaker  # noqa: E402
import sagemaker.estimator  # noqa: E402
import sagemaker.fw_utils  # noqa: E402
from sagemaker import huggingface, mxnet, pytorch, tensorflow  # noqa: E402
from sagemaker.instance_group import InstanceGroup  # noqa: E402

MODULES = {'PyTorch': pytorch, 'TensorFlow': tensorflow, 'MXNet': mxnet, 'HuggingFace': huggingface}
BUCKET = 'sagemaker-us-west-2-123456789012'


class Sent(Exception):
    """Carries the request."""


def session():
    made = sagemaker.Session(boto_session=boto3.Session(region_name='us-west-2'), default_bucket=BUCKET)
    made._default_bucket = BUCKET
    made.account_id = lambda: '123456789012'
    made._get_account_id_if_default_bucket = lambda *_args, **_options: None

    def intercept(request, _create, func_name=None):
        raise Sent(json.dumps(request))

    made._intercept_create_request = intercept
    return made


def packed(bucket, s3_key_prefix, script, **_options):
    uri = 's3://%s/%s/sourcedir.tar.gz' % (bucket, s3_key_prefix)
    return sagemaker.fw_utils.UploadedCode(s3_prefix=uri, script_name=script)


def snake_case(name):
    return re.sub('([A-Z]+)', lambda match: '_' + match[1].lower(), name)


def render(case, shared, source_dir):
    module = MODULES[case['class']]
    options = {snake_case(name): value for name, value in case['options'].items()}
    options.update(role='arn:aws:iam::123456789012:role/x', sagemaker_session=shared, source_dir=source_dir)
    groups = {
        group['instanceGroupName']: InstanceGroup(
            group['instanceGroupName'], group['instanceType'], group['instanceCount']
        )
        for group in options.get('instance_groups', [])
    }
    if groups:
        options['instance_groups'] = list(groups.values())
    distribution = options.get('distribution') or {}
    if 'instance_groups' in distribution:
        absent = InstanceGroup('g1', 'ml.p4d.24xlarge', 1)
        distribution['instance_groups'] = [groups.get(name, absent) for name in distribution['instance_groups']]
    if 'compiler_config' in options:
        options['compiler_config'] = module.TrainingCompilerConfig(**options['compiler_config'])
    estimator = getattr(module, case['class'])(**options)
    estimator.fit({'training': 's3://my-bucket/train'}, wait=False, job_name='job')


def main():
    cases, source_dir = sys.argv[1:]
    sagemaker.fw_utils.tar_and_upload_dir = sagemaker.estimator.tar_and_upload_dir = packed
    shared = session()
    results = []
    with open(cases, encoding='utf-8') as file:
        for case in json.load(file):
            try:
                render(case, shared, source_dir)
            except Sent as sent:
                results.append({'request': json.loads(str(sent))})
            except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                results.append({'error': '%s: %s' % (type(error).__name__, error)})
    json.dump(results, sys.stdout)


if __name__ == '__main__':
    main()
