"""`smp.optimizers`: the names of apex's fused optimizers; torch's own take their place."""

import torch

from trainyard_parallel.errors import absent


def FusedAdam(
    params,
    lr=1e-3,
    bias_correction=True,
    betas=(0.9, 0.999),
    eps=1e-8,
    adam_w_mode=True,
    weight_decay=0.0,
    amsgrad=False,
    set_grad_none=True,
):
    """torch.optim.AdamW, or Adam with `adam_w_mode` false; torch chooses the kernels. Bias correction is always on."""
    if not bias_correction:
        raise ValueError("bias_correction is False, but torch's Adam always corrects; leave it True")
    kind = torch.optim.AdamW if adam_w_mode else torch.optim.Adam
    return kind(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)


# They use the norm of a whole parameter, which sharded and split parameters do not have on one rank.
FusedLamb = absent("smp.optimizers.FusedLamb", "use smp.optimizers.FusedAdam")
FusedNovoGrad = absent("smp.optimizers.FusedNovoGrad", "use smp.optimizers.FusedAdam")

__all__ = ["FusedAdam", "FusedLamb", "FusedNovoGrad"]
