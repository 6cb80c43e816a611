"""torch's `load_sharded_optimizer_state_dict` in a job of this library.

Scripts import it from torch.distributed.checkpoint.optimizer and give it a `process_group`, which torch's own does not
take. Like that it gives what a sharded checkpoint holds of an optimizer; the tensors are sharded as the model's are.
"""

import functools

import torch
from torch.distributed.checkpoint import optimizer
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor
from torch.sagemaker.state_handler import state


def install():
    """Changes torch's module, once; without an initialised job the function does what it did."""
    theirs = optimizer.load_sharded_optimizer_state_dict
    if hasattr(theirs, "__wrapped__"):
        return

    @functools.wraps(theirs)
    def choose(*args, **kwargs):
        return (theirs if state.cfg is None else load_sharded_optimizer_state_dict)(*args, **kwargs)

    optimizer.load_sharded_optimizer_state_dict = choose


def load_sharded_optimizer_state_dict(model_state_dict, optimizer_key, storage_reader, planner=None, process_group=None):
    """`{optimizer_key: state}` with the state in the form of `FSDP.optim_state_dict`; every rank of the group calls it."""
    from torch.sagemaker.distributed.checkpoint.parts import parts_of
    from torch.sagemaker.distributed.checkpoint.state_dict_loader import load

    metadata, found = storage_reader.read_metadata(), {}
    parts = parts_of(model_state_dict, process_group)
    for key, about in metadata.state_dict_metadata.items():
        path = metadata.planner_data[key]
        if path[0] != optimizer_key:
            continue
        place = found
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = None
        if isinstance(about, TensorStorageMetadata):
            name = path[2] if len(path) > 2 else None
            own, dtype = model_state_dict.get(name), about.properties.dtype
            is_like = isinstance(own, DTensor) and parts[name].shape == about.size
            place[path[-1]] = torch.empty_like(own, dtype=dtype) if is_like else torch.empty(about.size, dtype=dtype)
    found = with_lists(found)
    load(found, storage_reader=storage_reader, planner=planner, process_group=process_group)
    return found


def with_lists(tree):
    """Dictionaries whose keys are numbers are lists, where those were followed to tensors inside."""
    if not isinstance(tree, dict):
        return tree
    inner = {key: with_lists(value) for key, value in tree.items()}
    return [inner[key] for key in sorted(inner)] if inner and all(isinstance(key, int) for key in inner) else inner
