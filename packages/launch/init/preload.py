"""What the fork server imports: measured to cover torchrun's own imports, and what the first DistributedDataParallel of a process
brings in (823 modules with PyTorch 2.13, nearly all through torch._dynamo). Nothing here may start a thread or touch an accelerator."""

import importlib

_MODULES = (
    'numpy', 'numpy.random', 'torch', 'torch.distributed', 'torch.nn.parallel', 'torch.optim', 'torch.utils.data',
    'torch.utils.data.distributed', 'torch.utils.serialization.config', 'torch._dynamo', 'torch.distributed.run',
    'torch.distributed.elastic.agent.server.local_elastic_agent', 'torch.distributed.elastic.multiprocessing.api',
    'torch.distributed.elastic.multiprocessing.tail_log', 'torch.distributed.elastic.multiprocessing.errors',
    'torch.distributed.elastic.rendezvous.registry', 'torch.distributed.elastic.rendezvous.c10d_rendezvous_backend',
    'torch.distributed.elastic.rendezvous.dynamic_rendezvous', 'torch.distributed.elastic.rendezvous.static_tcp_rendezvous',
    'torch.distributed.elastic.timer.file_based_local_timer', 'torch.distributed.checkpoint', 'torch.distributed.fsdp',
    'multiprocessing.spawn', 'multiprocessing.popen_fork', 'multiprocessing.popen_spawn_posix', 'multiprocessing.resource_sharer',
    'multiprocessing.connection', 'multiprocessing.queues', 'multiprocessing.synchronize',
)


def import_all():
    """@returns the names that this runtime does not have."""
    missing = []
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing
