"""Delayed parameters have, bit for bit, the values of a run without delay, and a rank's peak memory is its share."""

import pytest
import torch
from torch import nn

import zoo
from live import Live
from training import fresh, own_slice

PP2, TP2, DDP = {"pipeline_parallel_degree": 2}, {"tensor_parallel_degree": 2, "ddp": True}, {"ddp": True}
CONFIGS = {
    "one": (1, {}),
    "dp2": (2, DDP),
    "pp2": (2, PP2),
    "tp2": (2, TP2),
    "pp2tp2": (4, {**PP2, **TP2}),
    "shards2": (2, {**DDP, "shard_optimizer_state": True}),
    "sdp2": (2, {**DDP, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100}),
    "sdp2tp2": (4, {**TP2, "microbatches": 1, "sharded_data_parallel_degree": 2, "sdp_param_persistence_threshold": 100}),
    "fp16pp2": (2, {**PP2, "fp16": True}),
}


class Initialised(zoo.GPT):
    """As Hugging Face models do: constructors draw first values, then a walk over modules draws the real ones."""

    def __init__(self, tied=True):
        super().__init__(tied=tied)
        self.register_buffer("frequencies", 1.0 / 10 ** (torch.arange(0, 4) / 4))
        self.width = int(self.frequencies.sum().item())
        self.apply(self.initialise)

    def initialise(self, module):
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(mean=0.0, std=0.3)
            if module.bias is not None:
                nn.init.trunc_normal_(module.bias, std=0.1)


def weights(rank, config, is_delayed, tied=True):
    smp = fresh({"microbatches": 2, **config, "delayed_parameter_initialization": is_delayed})
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(11)
    with smp.model_creation(tensor_parallelism=smp.tp_size() > 1, dtype=torch.float64):
        net = Initialised(tied)
    first = next(net.parameters())
    before = sum(0 if p.is_meta else p.numel() for p in net.parameters())
    keeps = smp.tp_size() == 1 and smp.state.cfg.sharded_data_parallel_degree == 1
    early = zoo.make_optimizer("sgd", net.parameters()) if keeps else None
    model = smp.DistributedModel(net)
    opt = smp.DistributedOptimizer(early or zoo.make_optimizer("sgd", model.parameters()))

    @smp.step
    def train_step(model, x, y):
        loss = zoo.loss_of("gpt", model(x), y)
        model.backward(loss)
        return loss

    def own():
        return {k: getattr(v, "to_local", lambda: v)().clone() for k, v in model.local_state_dict().items() if k[0] != "_"}

    start = []
    model.register_post_partition_hook(lambda m, o: start.append(own()))
    opt.zero_grad()
    loss = train_step(model, *(own_slice(t, smp) for t in zoo.data("gpt", 0))).reduce_mean()
    opt.step()
    same = smp.pp_size() > 1 or not keeps or first is next(model.module.parameters())
    return before, start[0], loss, own(), same, net.width, torch.get_rng_state()


def equal(a, b):
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", CONFIGS)
def test_values_are_those_of_a_run_without_delay(worlds, name):
    ranks, config = CONFIGS[name]
    for tied in (True, False) if name in ("pp2", "tp2") else (True,):
        plain = worlds(ranks).run(weights, config, False, tied)
        found = worlds(ranks).run(weights, config, True, tied)
        for (held, start, loss, after, _, width, rng), (none, *own, same, other_width, other_rng) in zip(plain, found):
            assert held > 0 and none == 0 and same and width == other_width == 2
            assert equal(start, own[0])
            assert torch.equal(loss, own[1]) and equal(after, own[2])
            assert torch.equal(rng, other_rng)


def peaks(rank, config, layers=8, width=64):
    """Most bytes alive from creation until the parameters are there, and this rank's share, delayed and not."""
    found = []
    for is_delayed in (False, True):
        smp = fresh({**config, "delayed_parameter_initialization": is_delayed})
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(11)
        with Live() as live:
            with smp.model_creation(tensor_parallelism=smp.tp_size() > 1):
                net = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
                for layer in net:
                    nn.init.normal_(layer.weight)
            model = smp.DistributedModel(net)

            @smp.step
            def forward(x):
                return model(x)

            model.register_post_partition_hook(lambda m, o: found.append((live.peak, sum(local(p) for p in m.local_parameters()))))
            forward(torch.ones(2, width))
    return found, width * width * 8


def local(parameter):
    return getattr(parameter, "to_local", lambda: parameter)().numel() * parameter.element_size()


@pytest.mark.parametrize("name", ["pp2", "tp2", "sdp2"])
def test_a_rank_never_holds_more_than_its_share_and_what_is_being_made(worlds, name):
    ranks, config = CONFIGS[name]
    for ((plain, share), (delayed, same)), layer in worlds(ranks).run(peaks, config):
        assert share == same and plain >= 8 * layer
        # The tensor in the making, its first values or its copy, and what passes between ranks.
        assert delayed <= share + 3.5 * layer < plain


def seeded(rank):
    smp = fresh({})

    def create():
        torch.manual_seed(1)
        first = nn.Linear(4, 4)
        torch.manual_seed(2)
        second = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        nn.init.orthogonal_(second[0].weight)
        second[1].weight.data[1:3].normal_()
        second[1].bias.data.copy_(torch.arange(4.0))
        second.append(nn.Linear(4, 4).to(torch.float64))
        second.append(nn.Linear(4, 2, device="meta"))
        return nn.ModuleList([first, second])

    expected = create()
    with smp.delay_param_initialization():
        made = create()
        try:
            nn.Linear(2, 2).weight.sum().item()
        except RuntimeError as error:
            message = str(error)
    is_meta = all(parameter.is_meta for parameter in made.parameters())
    from trainyard_parallel import delayed

    delayed.materialize(made.parameters())
    pairs = [(a, b) for a, b in zip(expected.parameters(), made.parameters()) if not a.is_meta]
    same = all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    return is_meta, same, len(pairs), made[1][3].weight.is_meta, message


def test_seeds_partial_writes_casts_and_what_is_refused(worlds):
    is_meta, same, count, stays_meta, message = worlds(1).run(seeded)[0]
    assert is_meta and same and count == 8 and stays_meta
    assert "looks at a random value while parameter initialisation is delayed" in message


def transformer(rank, is_delayed):
    transformers = pytest.importorskip("transformers")
    smp = fresh({"partitions": 2, "microbatches": 2, "delayed_parameter_initialization": is_delayed})
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(5)
    config = transformers.GPT2Config(n_layer=3, n_embd=32, n_head=4, vocab_size=64, n_positions=16, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    with smp.model_creation():
        net = transformers.AutoModelForCausalLM.from_config(config)
    held = sum(0 if p.is_meta else p.numel() for p in net.parameters())
    model = smp.DistributedModel(net)

    @smp.step
    def train_step(ids):
        loss = model(input_ids=ids, labels=ids)["loss"]
        model.backward(loss)
        return loss

    loss = train_step(torch.arange(32).view(4, 8) % 64).reduce_mean()
    return held, loss, {name: value.clone() for name, value in model.local_state_dict().items() if name[0] != "_"}


def test_a_transformer_from_its_configuration(worlds):
    pytest.importorskip("transformers", reason="transformers is not installed")
    plain, found = worlds(2).run(transformer, False), worlds(2).run(transformer, True)
    for (held, loss, weights), (none, same, others) in zip(plain, found):
        assert held > 0 and none == 0 and torch.equal(loss, same) and equal(weights, others)
