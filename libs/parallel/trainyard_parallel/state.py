"""The one value that a process has: configuration, topology, process groups and the wrapped model."""

import torch.distributed as dist

from trainyard_parallel import config, process
from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.topology import Topology


class ModuleManager:
    """What the Hugging Face Trainer reads: pairs (to Hugging Face, from Hugging Face) of state-dict translators."""

    def __init__(self):
        self.translate_functions = []
        # Attention heads of replaced models by family: the layout of some weights depends on them.
        self.heads = {}


class State:
    def __init__(self):
        self.clear()

    def clear(self):
        self.cfg = None
        self.topology = None
        self.process = None
        self.model = None
        self.optimizer = None
        self.is_tracing = False
        # Of a model whose parameters have no memory yet (delayed.py).
        self.recording = None
        self.module_manager = ModuleManager()
        self._groups = {}

    def init(self, given=None):
        """Joins the job and fixes degrees and groups. The launcher's configuration wins over `given`.

        Every rank must call it, once, with the same values; raises SMPConfigError with all problems.
        """
        if self.cfg is not None:
            raise SMPRuntimeError("smp.init was called twice; call it once, before the model is made")
        from_launcher = config.from_environment()
        given = given if from_launcher is None else from_launcher
        own = process.discover()
        size = dist.get_world_size() if dist.is_initialized() else own.size
        cfg = config.parse_v1(given or {}, size)
        self.process = process.join(cfg.ddp_port)
        self.topology = Topology(
            size,
            cfg.pipeline_parallel_degree,
            cfg.tensor_parallel_degree,
            config.ORDERS[cfg.placement_strategy],
            cfg.sharded_data_parallel_degree,
        )
        self.cfg = cfg
        for kind, groups in self.topology.groups.items():
            if kind == "world":
                self._groups[kind] = dist.group.WORLD
                continue
            for ranks in groups:
                # new_group is collective over the world, also for ranks outside.
                group = dist.new_group(list(ranks), timeout=process.longest_wait())
                if self.process.rank in ranks:
                    self._groups[kind] = group

    def require_init(self):
        if self.cfg is None:
            raise SMPRuntimeError("smp.init() has not been called; call it at the start of the script")

    def ranks(self, kind):
        self.require_init()
        return list(self.topology.group_of(kind, self.process.rank))

    def rank(self, kind):
        return self.ranks(kind).index(self.process.rank)

    def size(self, kind):
        return len(self.ranks(kind))

    def group(self, kind):
        self.require_init()
        return self._groups[kind]


state = State()
