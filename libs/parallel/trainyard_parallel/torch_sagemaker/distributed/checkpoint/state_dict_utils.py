"""`torch.sagemaker.distributed.checkpoint.state_dict_utils`.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-core-features-v2-checkpoints.html
"""

import torch
from torch.distributed.tensor import DTensor
from torch.sagemaker.fsdp1 import SMStateDictType
from torch.sagemaker.fsdp1 import state_dict_type as sm_state_dict_type

__all__ = ["SMStateDictType", "init_optim_state", "sm_state_dict_type"]


def init_optim_state(optimizer, skip_empty_param=False):
    """Gives an optimizer that has made no step its states, so that a checkpoint can be loaded into them.

    Parameters stay as they are, gradients too. `skip_empty_param` leaves out parameters without elements on this rank.
    An optimizer with states is left alone.
    """
    if optimizer.state:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters]
    rates = [group.get("lr") for group in optimizer.param_groups]
    for parameter in parameters:
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        is_wanted = parameter.requires_grad and not (skip_empty_param and local.numel() == 0)
        parameter.grad = torch.zeros_like(parameter) if is_wanted else None
    for group, rate in zip(optimizer.param_groups, rates):
        if rate is not None:
            group["lr"] = torch.zeros_like(rate) if isinstance(rate, torch.Tensor) else 0.0
    try:
        optimizer.step()
    finally:
        for group, rate in zip(optimizer.param_groups, rates):
            if rate is not None:
                group["lr"] = rate
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient
