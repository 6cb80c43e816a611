"""A Hugging Face model that sees its rank's part of every sequence.

Three things in a model depend on the whole sequence: attention, positions, and the shift of labels in its loss. The
script cuts input_ids and labels (as `utils.get_batch_for_cp_rank` does); the rest happens here.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.sagemaker.context_parallel.attention import RingAttention, gathered_attention, positions
from torch.sagemaker.state_handler import state

from trainyard_parallel.errors import SMPConfigError, SMPRuntimeError

ATTENTION = "sm_context_parallel_"
KINDS = ("p2p", "all_gather")


def attend(kind):
    """An attention function of transformers: [B, heads, L, D] in, ([B, L, heads, D], None) out."""

    def attention(module, query, key, value, attention_mask=None, dropout=0.0, scaling=None, sliding_window=None, **options):
        length = query.shape[2] * state.cp_size
        if sliding_window is not None and sliding_window < length:
            raise SMPRuntimeError(
                f"sliding_window is {sliding_window} and the sequence has {length} tokens; context_parallel_degree "
                f"{state.cp_size} needs a window that covers it: shorten the sequence or set sliding_window to None"
            )
        if dropout:
            raise SMPRuntimeError(f"attention dropout is {dropout}; with context_parallel_degree {state.cp_size} set it to 0")
        if scaling is None:
            scaling = query.shape[-1] ** -0.5
        if kind == "p2p":
            out = RingAttention.apply(query, key, value, scaling, state.cp_process_group)
        else:
            out = gathered_attention(query, key, value, scaling, state.cp_process_group)
        return out.transpose(1, 2), None

    return attention


def spread_sequences(model, kind):
    """Prepares the model in place; `kind` is `p2p` (ring) or `all_gather`."""
    from transformers import AttentionInterface

    if kind not in KINDS:
        raise SMPConfigError(f"cp_comm_type is {kind!r} but must be one of {', '.join(KINDS)}")
    AttentionInterface.register(ATTENTION + kind, attend(kind))
    # Models read the name on every call; a name without a mask function gets no mask.
    model.set_attn_implementation(ATTENTION + kind)
    model.loss_function = shifted_loss
    model.register_forward_pre_hook(add_positions, with_kwargs=True)
    model.base_model.register_forward_pre_hook(add_positions, with_kwargs=True)


def add_positions(module, args, kwargs):
    ids = args[0] if args else kwargs.get("input_ids")
    ids = ids if ids is not None else kwargs["inputs_embeds"]
    length, mask = ids.shape[1], kwargs.get("attention_mask")
    if length % 2:
        raise SMPRuntimeError(
            f"this rank got {length} tokens of each sequence; context_parallel_degree {state.cp_size} needs sequences of a "
            f"multiple of {2 * state.cp_size} tokens, cut into equal chunks"
        )
    if mask is not None and not bool(mask.all()):
        raise SMPRuntimeError(
            f"attention_mask hides tokens; context_parallel_degree {state.cp_size} needs sequences without padding"
        )
    kwargs["attention_mask"] = None
    if kwargs.get("position_ids") is None:
        kwargs["position_ids"] = positions(state.cp_rank, state.cp_size, length, ids.device)[None]
    return args, kwargs


def shifted_loss(logits, labels, vocab_size, num_items_in_batch=None, ignore_index=-100, shift_labels=None, **options):
    """The mean over all tokens of the group's sequences, as this rank's share: shares average to the mean.

    Labels are those of the rank's own tokens; the one after a chunk comes from the rank that holds the next chunk.
    """
    labels = next_labels(labels, ignore_index) if shift_labels is None else shift_labels
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    total = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=ignore_index, reduction="sum")
    if num_items_in_batch is not None:
        return total * state.cp_size / num_items_in_batch
    count = (labels != ignore_index).sum()
    dist.all_reduce(count, group=state.cp_process_group)
    return total * state.cp_size / count


def next_labels(labels, ignore_index=-100):
    size, rank, half = state.cp_size, state.cp_rank, labels.shape[1] // 2
    firsts = torch.stack([labels[:, 0], labels[:, half]])
    every = [torch.empty_like(firsts) for _ in range(size)]
    dist.all_gather(every, firsts, group=state.cp_process_group)
    # first[c]: the first label of chunk c; after the last chunk there is nothing to predict.
    first = [chunk[0] for chunk in every] + [chunk[1] for chunk in reversed(every)]
    first.append(torch.full_like(first[0], ignore_index))
    shifted = torch.empty_like(labels)
    for at, chunk in ((0, rank), (half, 2 * size - 1 - rank)):
        shifted[:, at : at + half - 1] = labels[:, at + 1 : at + half]
        shifted[:, at + half - 1] = first[chunk + 1]
    return shifted
