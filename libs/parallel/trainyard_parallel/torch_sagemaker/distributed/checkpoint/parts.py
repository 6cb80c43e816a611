"""What the ranks of one process group hold of a state dict.

SageMaker's recipes save with the group of a shard's replicas (each rank its own shard) or with the shard group, one
folder for each tensor-parallel rank. Such a group writes and reads parts of tensors that reach beyond it.
"""

import functools

import torch.distributed as dist
from torch.distributed.tensor import DTensor, Shard
from torch.sagemaker.state_handler import state

from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.private import tree_map


def parts_of(state_dict, group):
    """The state dict with its DTensors as the group's ranks hold them among themselves; memory is shared."""
    if group is None:
        return state_dict
    ranks = tuple(dist.get_process_group_ranks(group))
    return tree_map(lambda leaf: part_of(leaf, ranks) if isinstance(leaf, DTensor) else leaf, state_dict)


def part_of(tensor, ranks):
    mesh, size = tensor.device_mesh, list(tensor.shape)
    split = [axis for axis, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    relations = relations_to(mesh, ranks)
    inside = [axis for axis in split if relations[axis] == "inside"]
    outside = [axis for axis in split if relations[axis] == "outside"]
    # A tensor without even parts along the axes outside has no shape of its own among the ranks inside.
    is_uneven = inside and any(size[tensor.placements[axis].dim] % mesh.size(axis) for axis in outside)
    if len(inside) + len(outside) < len(split) or is_uneven:
        raise SMPRuntimeError(
            f"process_group has the ranks {list(ranks)}, which hold different parts of a tensor but not all of them; give "
            "the group of a shard's replicas (ranker.get_rep_groups), model.process_group, or none"
        )
    if not outside:
        return tensor
    if not inside:
        return tensor.to_local()
    for axis in outside:
        size[tensor.placements[axis].dim] //= mesh.size(axis)
    whole = state.expert_mesh if "ep" in mesh.mesh_dim_names else state.mesh
    return DTensor.from_local(
        tensor.to_local(),
        whole[tuple(mesh.mesh_dim_names[axis] for axis in inside)],
        # Not the strided shard of a tensor that is split outside as well.
        [Shard(tensor.placements[axis].dim) for axis in inside],
        run_check=False,
        shape=tuple(size),
        stride=contiguous(size),
    )


@functools.lru_cache(maxsize=64)
def relations_to(mesh, ranks):
    """For each axis of the mesh: `inside` where this rank's peers on it are among `ranks`, `outside` where all `ranks`
    have this rank's place on it, else None."""
    own = (mesh.mesh == dist.get_rank()).nonzero()[0]
    places = [found[0] for found in ((mesh.mesh == rank).nonzero() for rank in ranks) if len(found)]

    def relation(axis):
        if set(dist.get_process_group_ranks(mesh.get_group(axis))) <= set(ranks):
            return "inside"
        return "outside" if all(place[axis] == own[axis] for place in places) else None

    return [relation(axis) for axis in range(mesh.ndim)]


def contiguous(size):
    strides = [1]
    for length in reversed(size[1:]):
        strides.insert(0, strides[0] * length)
    return tuple(strides)


def keep_values(target, source):
    """What loading has put into `source` beside tensors, which share memory, goes to `target`."""
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            keep_values(target[key], value)
        elif isinstance(value, DTensor) or isinstance(target.get(key), DTensor):
            continue
        else:
            target[key] = value


def agree_on_place(path, group):
    """Raises on every rank of the group if its ranks name different folders, which no load could read."""
    if group is None or dist.get_world_size(group) == 1:
        return
    places = [None] * dist.get_world_size(group)
    dist.all_gather_object(places, str(path), group=group)
    if len(set(places)) > 1:
        raise SMPRuntimeError(
            f"ranks of one process group save one checkpoint but name the folders {', '.join(sorted(set(places)))}; give "
            "all of them the same, or a process group for each folder"
        )
