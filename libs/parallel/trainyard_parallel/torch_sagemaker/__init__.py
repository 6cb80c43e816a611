"""`import torch.sagemaker as tsm`: the interface of SageMaker's model-parallel library, version 2.

https://docs.aws.amazon.com/sagemaker/latest/dg/distributed-model-parallel-v2-reference.html
"""

from torch.sagemaker import optimizer_loading
from torch.sagemaker.state_handler import init, is_initialized, state
from torch.sagemaker.transform import transform

__all__ = ["init", "is_initialized", "state", "transform"]

# Scripts import torch's function after this module and before `init`.
optimizer_loading.install()
