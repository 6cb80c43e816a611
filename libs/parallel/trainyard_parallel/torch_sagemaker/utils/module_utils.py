"""`torch.sagemaker.utils.module_utils`: what initialisation functions of delayed parameters call."""

import torch
from torch import nn


def empty_module_params(module, device, recurse=False):
    """Gives parameters that are on the meta device memory on `device`, with whatever values are there."""
    for part in module.modules() if recurse else [module]:
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.is_meta:
                new = nn.Parameter(torch.empty_like(parameter, device=device), requires_grad=parameter.requires_grad)
                setattr(part, name, new)


def move_buffers_to_device(module, device, recurse=False):
    """Moves the module's buffers; those on the meta device get memory, with whatever values are there."""
    for part in module.modules() if recurse else [module]:
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = torch.empty_like(buffer, device=device) if buffer.is_meta else buffer.to(device)
