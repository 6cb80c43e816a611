"""Partial checkpoints on other degrees: whole tensors from the parts in files, and parts of them for this rank.

Beside its files each rank writes how its tensors lie in the whole ones (`parts_<ranks>.pt`): cut along a dimension over
tensor-parallel ranks, the result cut over shard groups, and optimizer states in flat ranges with `shard_optimizer_state`.
Putting together reads every file on every rank, so it needs the memory of the whole state on the host.
"""

import glob
import os

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

from trainyard_parallel.state import state
from trainyard_parallel.tensor import movement

PARTS = "parts_"


def describe(model, optimizer, ranks, model_file, optimizer_file):
    """What `whole_model` and `whole_optimizer` need to know of this rank's files."""
    tp = state.size("tp") > 1
    layout = {
        name: (getattr(p, "_smp_split", None) if tp else None, p.placements[-1].dim if isinstance(p, DTensor) else None)
        for name, p in model.module.named_parameters(remove_duplicate=False)
        if not p.is_meta
    }
    flat = groups = None
    if optimizer is not None:
        groups = [[model.names[p] for p in group] for group in optimizer._named_groups]
        flat = optimizer._shards and [
            {
                "kind": part.kind,
                "rank": part.rank,
                "names": [model.names[p] for p in part.parameters],
                "shapes": [tuple(p.shape) for p in part.parameters],
            }
            for part in optimizer._shards
        ]
    return {
        "ranks": ranks,
        "layout": layout,
        "groups": groups,
        "flat": flat,
        "model_file": model_file,
        "optimizer_file": optimizer_file,
    }


def local(value):
    return value.to_local() if isinstance(value, DTensor) else value


def local_entries(saved):
    """An optimizer's or model's state with this rank's shards in place of sharded tensors."""
    if isinstance(saved, dict):
        return {key: local_entries(value) for key, value in saved.items()}
    return [local_entries(item) for item in saved] if isinstance(saved, list) else local(saved)


def like(value, own):
    """This rank's shard as a part of a tensor that is sharded as `own`."""
    if isinstance(own, DTensor) and isinstance(value, torch.Tensor) and value.shape == own.to_local().shape:
        return DTensor.from_local(
            value.to(own.device), own.device_mesh, own.placements, run_check=False, shape=own.shape, stride=own.stride()
        )
    return value


def read(folder, load):
    """The descriptions of all parts, in order of ranks."""
    found = [load(path) for path in glob.glob(os.path.join(folder, f"{PARTS}*.pt"))]
    return sorted(found, key=lambda part: sorted(part["ranks"].items()))


class Pieces:
    """Parts of tensors by (tensor-parallel rank, shard), put together on request."""

    def __init__(self):
        self.found = {}

    def add(self, key, value, ranks, cuts):
        tp, sdp = cuts
        at = (ranks["tp"] if tp is not None else 0, ranks["sdp"] if sdp is not None else 0)
        self.found.setdefault(key, (cuts, {}))[1].setdefault(at, value)

    def whole(self, key):
        (tp, sdp), parts = self.found[key]
        columns = {}
        for (i, j), value in sorted(parts.items()):
            columns.setdefault(i, []).append(value)
        joined = [torch.cat(column, sdp) if len(column) > 1 else column[0] for column in columns.values()]
        return torch.cat(joined, tp) if len(joined) > 1 else joined[0]


def whole_model(folder, load):
    pieces, order = Pieces(), {}
    for part in read(folder, load):
        if part["model_file"] is None:
            continue
        for name, value in load(os.path.join(folder, part["model_file"])).items():
            if isinstance(value, torch.Tensor):
                pieces.add(name, value, part["ranks"], part["layout"].get(name, (None, None)))
                order[name] = None
    return {name: pieces.whole(name) for name in order}


def whole_optimizer(folder, load):
    """The optimizer's state by parameter names, whole, or None if none was saved."""
    pieces, plain, groups, extra, flat = Pieces(), {}, [], {}, {}
    for part in read(folder, load):
        if part["optimizer_file"] is None:
            continue
        saved = load(os.path.join(folder, part["optimizer_file"]))
        extra = {key: value for key, value in saved.items() if key not in ("state", "param_groups")} or extra
        for index, (group, names) in enumerate(zip(saved["param_groups"], part["groups"])):
            if index == len(groups):
                groups.append({**group, "params": []})
            groups[index]["params"] += [name for name in names if name not in groups[index]["params"]]
        if part["flat"] is None:
            for name, entry in saved["state"].items():
                add_entry(pieces, plain, name, entry, part)
            continue
        for index, entry in saved["state"].items():
            buffer = part["flat"][index]
            key = (part["ranks"]["pp"], index, part["ranks"]["tp"] if buffer["kind"] == "rdp" else 0)
            flat.setdefault(key, {})[buffer["rank"]] = (entry, buffer, part)
    for ranges in flat.values():
        parts = [ranges[rank] for rank in sorted(ranges)]
        for name, entry in of_ranges([entry for entry, _, _ in parts], parts[0][1]):
            add_entry(pieces, plain, name, entry, parts[0][2])
    if not groups:
        return None
    entries = {name: dict(values) for name, values in plain.items()}
    for name, key in pieces.found:
        entries.setdefault(name, {})[key] = pieces.whole((name, key))
    return {**extra, "state": entries, "param_groups": groups}


def add_entry(pieces, plain, name, entry, part):
    for key, value in entry.items():
        if isinstance(value, torch.Tensor) and value.dim():
            pieces.add((name, key), value, part["ranks"], part["layout"][name])
        else:
            plain.setdefault(name, {}).setdefault(key, value)


def of_ranges(entries, buffer):
    """(name, entry) of each parameter in a flat buffer, from the entries of its ranges in order."""
    sizes = [torch.Size(shape).numel() for shape in buffer["shapes"]]
    joined = {
        key: torch.cat([entry[key] for entry in entries])[: sum(sizes)].split(sizes)
        if isinstance(value, torch.Tensor) and value.dim()
        else value
        for key, value in entries[0].items()
    }
    for index, (name, shape) in enumerate(zip(buffer["names"], buffer["shapes"])):
        yield name, {key: v[index].view(shape) if isinstance(v, tuple) else v for key, v in joined.items()}


def own_optimizer(optimizer, whole):
    """What `optimizer.local_state_dict` would be on this rank with the state `whole`; called after the partition."""
    parameters = {state.model.names[p]: p for group in optimizer._named_groups for p in group}

    def own(name, value):
        parameter = parameters[name]
        if not isinstance(value, torch.Tensor):
            return value
        if not value.dim():
            # Optimizers count steps in place, and one flat range has one count for all its parameters.
            return value.clone()
        split = getattr(parameter, "_smp_split", None)
        if split is not None and state.size("tp") > 1:
            value = movement.own_part(value, split)
        if isinstance(parameter, DTensor):
            value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None)
        return value

    entries = {
        name: {key: own(name, value) for key, value in entry.items()}
        for name, entry in whole["state"].items()
        if name in parameters
    }
    rest = {key: value for key, value in whole.items() if key not in ("state", "param_groups", "_smp_is_sharded")}
    if optimizer._shards is None:
        return {**rest, "state": entries, "param_groups": whole["param_groups"]}
    states = {index: ranged(part, entries) for index, part in enumerate(optimizer._shards)}
    count, groups = 0, []
    for group, saved in zip(optimizer.param_groups, whole["param_groups"]):
        groups.append({**saved, "params": list(range(count, count + len(group["params"])))})
        count += len(group["params"])
    return {**rest, "state": {i: s for i, s in states.items() if s}, "param_groups": groups, "_smp_is_sharded": True}


def ranged(part, entries):
    """This rank's range of the states of a flat buffer's parameters; those without a state count as zero."""
    names = [state.model.names[p] for p in part.parameters]
    known = [entries[name] for name in names if name in entries]
    result = {}
    for key, value in (known[0] if known else {}).items():
        if not isinstance(value, torch.Tensor) or not value.dim():
            result[key] = value
            continue
        flat = torch.zeros(part.flat.numel(), dtype=value.dtype)
        for name, view in zip(names, flat.split([*part.sizes, flat.numel() - sum(part.sizes)])):
            if name in entries:
                view.copy_(entries[name][key].reshape(-1))
        result[key] = flat.narrow(0, part.rank * part.range, part.range).clone()
    return result
