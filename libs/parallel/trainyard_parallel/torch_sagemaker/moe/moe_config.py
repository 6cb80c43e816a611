"""`torch.sagemaker.moe.moe_config.MoEConfig`."""

from dataclasses import dataclass

from trainyard_parallel.errors import SMPConfigError, not_available

BALANCING = ("sinkhorn", "balanced", "aux_loss", "none")


@dataclass(frozen=True)
class MoEConfig:
    """How `tsm.transform` treats a mixture of experts.

    `smp_moe` replaces the model's blocks by MoELayer; without it they stay and expert_parallel_degree must be 1.
    `moe_load_balancing`: `sinkhorn` (a balanced choice of experts in training), `aux_loss` (a loss with
    `moe_aux_loss_coeff` beside the model's) or `none`. `moe_z_loss_coeff` weighs the squared log-sum-exp of router logits in
    every mode. Both losses act on gradients and are not part of the loss that the model returns.
    `moe_all_to_all_dispatcher` sends each token to its experts only; without it every rank gathers all tokens.
    `random_seed` and `use_cpu_initialization` have no effect: weights are those of the model. `balanced` and
    `global_token_shuffle` are not available yet.
    """

    smp_moe: bool = True
    random_seed: int = 12345
    moe_load_balancing: str = "sinkhorn"
    global_token_shuffle: bool = False
    moe_all_to_all_dispatcher: bool = True
    moe_aux_loss_coeff: float = 0.001
    moe_z_loss_coeff: float = 0.001
    use_cpu_initialization: bool = False

    def __post_init__(self):
        if self.moe_load_balancing not in BALANCING:
            raise SMPConfigError(f"moe_load_balancing is {self.moe_load_balancing!r} but must be one of {', '.join(BALANCING)}")
        if self.moe_load_balancing == "balanced":
            raise not_available("moe_load_balancing 'balanced'", "use 'sinkhorn'")
        if self.global_token_shuffle:
            raise not_available("global_token_shuffle", "leave it False")


def parse(config):
    """A MoEConfig from one, a dictionary, or None (the model's own routing, without losses beside)."""
    if config is None:
        return MoEConfig(moe_load_balancing="none", moe_z_loss_coeff=0.0)
    return config if isinstance(config, MoEConfig) else MoEConfig(**config)
