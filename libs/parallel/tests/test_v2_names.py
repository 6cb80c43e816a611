"""What version 2's scripts import beside `transform`: attention modules and helpers."""

import pytest
import torch

from test_v2 import initialise, make, transformers


def packed(layout):
    torch.manual_seed(3)
    shape = (2, 4, 5, 8) if layout == "b h s d" else (2, 5, 4, 8)
    return [torch.randn(shape, dtype=torch.float64) for _ in range(3)], 1 if layout == "b h s d" else 2


@pytest.mark.parametrize("layout", ["b h s d", "b s h d"])
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_takes_packed_and_separate_inputs(layout, causal):
    from torch.sagemaker.nn.attn import FlashSelfAttention

    parts, heads = packed(layout)
    q, k, v = (part if heads == 1 else part.transpose(1, 2) for part in parts)
    mask = torch.randn(2, 1, 1, 5, dtype=torch.float64)
    ahead = torch.full((5, 5), -1e300, dtype=torch.float64).triu(1) if causal else 0
    expected = ((q @ k.mT) * 0.3 + mask + ahead).softmax(-1) @ v
    layer = FlashSelfAttention(scale=0.3)
    for inputs in (torch.cat(parts, heads), tuple(parts)):
        assert torch.allclose(layer(inputs, mask, causal, layout=layout), expected, atol=1e-14)
    assert layer(tuple(parts), cast_dtype=torch.float32, layout=layout).dtype == torch.float32
    with pytest.raises(ValueError, match="layout is 's b h d'"):
        layer(tuple(parts), layout="s b h d")


@pytest.mark.parametrize("layout", ["b h s d", "b s h d"])
def test_grouped_attention_repeats_key_value_heads(layout):
    from torch.sagemaker.nn.attn import FlashGroupedQueryAttention

    parts, heads = packed(layout)
    few = [part.narrow(heads, 0, 2) for part in parts[1:]]
    q, k, v = (part if heads == 1 else part.transpose(1, 2) for part in (parts[0], *few))
    k, v = (part.repeat_interleave(2, 1) for part in (k, v))
    ahead = torch.full((5, 5), -1e300, dtype=torch.float64).triu(1)
    expected = ((q @ k.mT) * 8**-0.5 + ahead).softmax(-1) @ v
    for inputs in (torch.cat(few, heads), tuple(few)):
        assert torch.allclose(FlashGroupedQueryAttention()(parts[0], inputs, True, layout=layout), expected, atol=1e-14)


def test_llamas_attention_equals_transformers():
    from torch.sagemaker.nn.huggingface.llama_flashattn import LlamaFlashAttention

    model = make("llama")
    original = model.model.layers[0].self_attn
    layer = LlamaFlashAttention(model.config).double()
    layer.load_state_dict(original.state_dict())
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    ahead = torch.full((5, 5), -1e300, dtype=torch.float64).triu(1)[None, None]
    expected = original(x, position_embeddings=model.model.rotary_emb(x, torch.arange(5)[None]), attention_mask=ahead)[0]
    # transformers' eager attention rounds its weights to float32.
    assert torch.allclose(layer(x)[0], expected, atol=1e-6) and layer(x)[1:] == (None, None)
    assert isinstance(layer, transformers.models.llama.modeling_llama.LlamaAttention)


def helpers(rank):
    from torch.sagemaker.moe.moe_layer import MoELayer
    from torch.sagemaker.tensor_parallel.transformer import TETransformerLayer, TransformerLayer, TransformerLMHead
    from torch.sagemaker.utils.process_group_utils import get_global_ranks
    from torch.sagemaker.utils.utils import timeit

    tsm = initialise({"tensor_parallel_degree": 2})
    with timeit(True, "one block", rank):
        model = tsm.transform(make("llama"))
    kinds = [sum(isinstance(m, kind) for m in model.modules()) for kind in (TransformerLayer, TETransformerLayer, TransformerLMHead, MoELayer)]
    untouched = not isinstance(make("llama"), TransformerLMHead) and not isinstance(3, TransformerLayer)
    return get_global_ranks(tsm.state.tp_process_group), kinds, untouched


def test_helpers_and_names_of_parts(worlds):
    for found in worlds(2).run(helpers):
        assert found == ([0, 1], [2, 2, 1, 0], True)


def test_a_timed_block_is_logged_once(caplog):
    from torch.sagemaker.utils.utils import timeit

    # As samples call it: whether, of what, and by whom.
    for is_wanted, rank in ((True, 0), (True, 1), (False, 0)):
        with timeit(is_wanted, f"block {rank}", rank):
            pass
    assert [message.split(" took ")[0] for message in caplog.messages] == ["block 0"]


def trackers(rank):
    tsm = initialise({"tensor_parallel_degree": 2, "random_seed": 7})
    torch.manual_seed(0)
    tracker = tsm.state.get_rng_state_tracker()
    with tracker.fork():
        inside = [torch.rand((), dtype=torch.float32).item()]
    outside = torch.rand((), dtype=torch.float32).item()
    kept = tracker.get_states()
    for _ in range(2):
        with tracker.fork():
            inside.append(torch.rand((), dtype=torch.float32).item())
        tracker.set_states(kept)
    with pytest.raises(KeyError, match="there is no region 'other'"), tracker.fork("other"):
        pass
    with pytest.raises(ValueError, match="exists"):
        tracker.add("model-parallel-rng", 1)
    return inside, outside, tracker is tsm.state.get_rng_state_tracker()


def test_random_numbers_of_a_region_differ_between_ranks_and_go_on(worlds):
    (first, outside, same), (second, also, too) = worlds(2).run(trackers)
    assert same and too and outside == also == pytest.approx(0.4962565, abs=1e-6)
    for rank, (start, *replayed) in enumerate((first, second)):
        expected = torch.Generator().manual_seed(7 + rank)
        values = torch.rand(1, generator=expected, dtype=torch.float32), torch.rand(1, generator=expected, dtype=torch.float32)
        assert [start, *replayed] == [values[0].item(), values[1].item(), values[1].item()]
