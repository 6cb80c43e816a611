"""Files of a training state. A save is complete or invisible: files are written aside and renamed, `newest` last.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-parallel-extended-features-pytorch-checkpoint.html
"""

import functools
import os
import pickle
import shutil

import torch

from trainyard_parallel import messages, reshard, shard
from trainyard_parallel.errors import SMPRuntimeError
from trainyard_parallel.state import state

DEGREES = "degrees.pt"


def rank_suffix(sharded=False):
    parts = [state.rank("pp"), state.rank("tp")] if state.size("tp") > 1 else [state.rank("mp")]
    return "_".join(map(str, [*parts, state.rank("rdp")] if sharded else parts))


def write(obj, path, **options):
    """Replaces the file in one instant."""
    aside = f"{path}.{os.getpid()}.tmp"
    try:
        with open(aside, "wb") as file:
            torch.save(obj, file, **options)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        if os.path.exists(aside):
            os.unlink(aside)
        raise


def save(obj, f, partial=True, pickle_module=pickle, pickle_protocol=2, v3=False):
    """Writes `f`, or this rank's part of it: `f_{mp_rank}`, `f_{pp_rank}_{tp_rank}` with tensor parallelism, and the
    reduced-data rank appended with `v3` (sharded optimizer state)."""
    write(obj, f"{f}_{rank_suffix(v3)}" if partial else f, pickle_module=pickle_module, pickle_protocol=pickle_protocol)


def load(f, map_location=None, pickle_module=pickle, partial=True, back_compat=False, **pickle_load_args):
    """Reads what `save` wrote on the rank with equal model-parallel ranks; finds sharded files by themselves.

    Files are unpickled: load only what you wrote.
    """
    if partial:
        names = [f"{f}_{rank_suffix(True)}", f"{f}_{rank_suffix()}"]
        path = next((name for name in names if os.path.exists(name)), names[1])
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path} does not exist; a partial checkpoint is loaded with the degrees it was saved with")
        f = path
    pickle_load_args.setdefault("weights_only", False)
    return torch.load(f, map_location=map_location or "cpu", pickle_module=pickle_module, **pickle_load_args)


def degrees():
    """What must be equal for each rank to find its own files again."""
    rdp = state.size("rdp") if state.cfg.shard_optimizer_state else None
    return {**{kind: state.size(kind) for kind in ("pp", "tp", "sdp")}, "rdp": rdp}


def own_ranks():
    return {kind: state.rank(kind) for kind in ("pp", "tp", "sdp", "rdp")}


def own_files(model, optimizer):
    """Names of this rank's files in a partial checkpoint; None where another rank has the same content."""
    states_differ = state.cfg.shard_optimizer_state
    # The first replica of every shard; without sharding a shard group is one rank.
    writes = state.rank("rdp") < state.size("sdp")
    model_file = f"model_{rank_suffix(shard.is_on())}.pt" if model is not None and writes else None
    name = f"optimizer_{rank_suffix(states_differ or shard.is_on())}.pt"
    return model_file, name if optimizer is not None and (states_differ or writes) else None


def save_checkpoint(
    path,
    tag,
    partial=True,
    model=None,
    optimizer=None,
    user_content=None,
    translate_if_full=True,
    num_kept_partial_checkpoints=None,
):
    """Saves under `path`; every rank must call it with the same tag. `newest` names the tag once all parts are there.

    Partial: directory `{tag}_partial` with files for each model-parallel rank, and each rank of a shard group where the
    model or the optimizer state is sharded. Full: file `{tag}` with the whole model, and `user_content_{tag}`; it has no
    optimizer state.
    """
    tags = messages.allgather(tag, messages.CommGroup.WORLD)
    if len(set(tags)) != 1:
        raise SMPRuntimeError(f"save_checkpoint got different tags on different ranks: {tags}; give one tag everywhere")
    os.makedirs(path, exist_ok=True)
    first = state.process.rank == 0
    if partial:
        folder = os.path.join(path, f"{tag}_partial")
        os.makedirs(folder, exist_ok=True)
        model_file, optimizer_file = own_files(model, optimizer)
        if model_file is not None:
            write(reshard.local_entries(model.local_state_dict()), os.path.join(folder, model_file))
        if optimizer_file is not None:
            saved = optimizer.local_state_dict(gather_if_shard=False)
            write(reshard.local_entries(saved), os.path.join(folder, optimizer_file))
        if (model_file or optimizer_file) and model is not None:
            part = reshard.describe(model, optimizer, own_ranks(), model_file, optimizer_file)
            write(part, os.path.join(folder, f"{reshard.PARTS}{rank_suffix(True)}.pt"))
        if first:
            write(degrees(), os.path.join(folder, DEGREES))
            if user_content is not None:
                write(user_content, os.path.join(folder, "user_content.pt"))
    else:
        whole = model.state_dict() if model is not None else None
        if first:
            if translate_if_full and whole is not None:
                for to_hf, _ in state.module_manager.translate_functions:
                    whole = to_hf(whole)
            write(whole, os.path.join(path, tag))
            if user_content is not None:
                write(user_content, os.path.join(path, f"user_content_{tag}"))
    messages.barrier()
    if first:
        write_newest(path, f"{tag}_partial" if partial else tag)
        if partial and num_kept_partial_checkpoints:
            prune(path, num_kept_partial_checkpoints)
    messages.barrier()


def write_newest(path, name):
    aside = os.path.join(path, f"newest.{os.getpid()}.tmp")
    with open(aside, "w") as file:
        file.write(name)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, os.path.join(path, "newest"))


def prune(path, kept):
    folders = [entry.path for entry in os.scandir(path) if entry.is_dir() and entry.name.endswith("_partial")]
    for old in sorted(folders, key=os.path.getmtime)[:-kept]:
        shutil.rmtree(old)


def resume_from_checkpoint(
    path,
    tag=None,
    partial=True,
    strict=True,
    load_optimizer=True,
    load_sharded_optimizer_state=True,
    translate_function=None,
):
    """Loads what `save_checkpoint` wrote into the wrapped model and optimizer; returns user_content or None.

    With pipeline parallelism values are loaded in the first step. A partial checkpoint on the degrees that it was saved
    with is read by each rank its own part; on other degrees every rank reads all of it. `load_sharded_optimizer_state`
    false takes FP32 masters and loss scale of a sharded optimizer state only. Files are unpickled: load only what you wrote.
    """
    if tag is None:
        newest = os.path.join(path, "newest")
        if not os.path.exists(newest):
            raise FileNotFoundError(f"{newest} does not exist; nothing was saved in {path}, or give the tag")
        with open(newest) as file:
            name = file.read().strip()
        partial = name.endswith("_partial")
        tag = name.removesuffix("_partial")
    if not partial:
        whole = load(os.path.join(path, tag), partial=False)
        for _, from_hf in () if translate_function else state.module_manager.translate_functions:
            whole = from_hf(whole)
        state.model.load_state_dict(translate_function(whole) if translate_function else whole, strict)
        return load_if_there(os.path.join(path, f"user_content_{tag}"))
    folder = os.path.join(path, f"{tag}_partial")
    optimizer = state.optimizer if load_optimizer else None
    masters_only = degrees()["rdp"] is not None and not load_sharded_optimizer_state
    read = functools.partial(load, partial=False)
    if read(os.path.join(folder, DEGREES)) == degrees():
        load_own(folder, optimizer, strict, masters_only)
    else:
        state.model.load_state_dict(reshard.whole_model(folder, read), strict)
        whole = reshard.whole_optimizer(folder, read) if optimizer is not None else None
        if whole is not None:
            optimizer.load_state_dict(lambda: reshard.own_optimizer(optimizer, whole), masters_only)
    return load_if_there(os.path.join(folder, "user_content.pt"))


def load_own(folder, optimizer, strict, masters_only):
    """Reads only the files of this rank's place in its replica."""
    replica = state.rank("rdp") % state.size("sdp")
    suffix = f"{rank_suffix()}_{replica}" if shard.is_on() else rank_suffix()
    own = dict(state.model.module.named_parameters(remove_duplicate=False))
    saved = load(os.path.join(folder, f"model_{suffix}.pt"), partial=False)
    # Shards are fit into their tensors here; with a pipeline, which loads later, nothing is sharded.
    state.model.load_state_dict({name: reshard.like(value, own.get(name)) for name, value in saved.items()}, strict)
    name = os.path.join(folder, f"optimizer_{rank_suffix(True) if state.cfg.shard_optimizer_state else suffix}.pt")
    if optimizer is None or not os.path.exists(name):
        return
    saved = load(name, partial=False)
    if shard.is_on():
        saved["state"] = {
            name: {key: reshard.like(value, own[name]) for key, value in entry.items()} for name, entry in saved["state"].items()
        }
    optimizer.load_state_dict(saved, masters_only)


def load_if_there(path):
    return load(path, partial=False) if os.path.exists(path) else None
