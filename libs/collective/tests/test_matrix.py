"""Every operation × type × reduce operation × size × topology.

Inputs are small integers, so that sums are exact in every type; what each rank
must get is computed from the inputs of all ranks, which every rank can make.
"""

import pytest
import torch
import torch.distributed as dist

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
MOVED_ONLY = [torch.float8_e4m3fn, torch.float8_e5m2, torch.bool, torch.complex64, torch.complex128]
# Around the limits of the schedules: one-shot (32 KiB), slot (512 KiB).
SIZES = [0, 1, 2, 3, 5, 127, 128, 1023, 4097, 8192, 8193, 131072, 131073, 400001]


def data_of(rank, numel, dtype, salt=0):
    values = (torch.arange(numel, dtype=torch.int64) * 7 + rank * 3 + salt) % 5 + 1
    if dtype == torch.bool:
        return values % 2 == 0
    return values.to(torch.float32).to(dtype) if dtype.is_floating_point else values.to(dtype)


def exact(left, right):
    return torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


def reduced(inputs, op):
    wide = [x.to(torch.float64) if x.dtype.is_floating_point else x.to(torch.int64) for x in inputs]
    total = wide[0].clone()
    for x in wide[1:]:
        if op in ("SUM", "AVG"):
            total = total + x
        elif op == "PRODUCT":
            total = total * x
        elif op == "MIN":
            total = torch.minimum(total, x)
        elif op == "MAX":
            total = torch.maximum(total, x)
        elif op == "BAND":
            total = total & x
        elif op == "BOR":
            total = total | x
        elif op == "BXOR":
            total = total ^ x
    if op == "AVG":
        total = total / len(inputs)
    return total.to(inputs[0].dtype)


def check_reductions(rank, size, dtype, op, numel):
    reduce_op = getattr(dist.ReduceOp, op)
    inputs = [data_of(r, numel, dtype) for r in range(size)]
    expected = reduced(inputs, op)

    x = inputs[rank].clone()
    dist.all_reduce(x, op=reduce_op)
    assert exact(x, expected), f"all_reduce {x[:8]} {expected[:8]}"

    root = size - 1
    x = inputs[rank].clone()
    dist.reduce(x, root, op=reduce_op)
    assert exact(x, expected if rank == root else inputs[rank]), "reduce"

    whole = [data_of(r, numel * size, dtype) for r in range(size)]
    expected = reduced(whole, op).view(size, numel)[rank] if numel else torch.empty(0, dtype=dtype)
    out = torch.empty(numel, dtype=dtype)
    dist.reduce_scatter_tensor(out, whole[rank].clone(), op=reduce_op)
    assert exact(out, expected), "reduce_scatter_tensor"
    out = torch.empty(numel, dtype=dtype)
    dist.reduce_scatter(out, [part.clone() for part in whole[rank].view(size, numel)], op=reduce_op)
    assert exact(out, expected), "reduce_scatter"


def check_movers(rank, size, dtype, numel):
    inputs = [data_of(r, numel, dtype) for r in range(size)]
    mine = inputs[rank]
    for root in range(size):
        x = mine.clone()
        dist.broadcast(x, root)
        assert exact(x, inputs[root]), "broadcast"

    outs = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(outs, mine)
    assert all(exact(a, b) for a, b in zip(outs, inputs)), "all_gather"
    out = torch.empty(size * numel, dtype=dtype)
    dist.all_gather_into_tensor(out, mine)
    assert exact(out, torch.cat(inputs)), "all_gather_into_tensor"
    # In place: the input is this rank's part of the output.
    out = torch.zeros(size * numel, dtype=torch.uint8).to(dtype) if numel else out
    part = out.narrow(0, rank * numel, numel)
    part.copy_(mine)
    dist.all_gather_into_tensor(out, part)
    assert exact(out, torch.cat(inputs)), "all_gather_into_tensor in place"

    root = size // 2
    outs = [torch.empty_like(mine) for _ in range(size)] if rank == root else None
    dist.gather(mine, outs, root)
    assert rank != root or all(exact(a, b) for a, b in zip(outs, inputs)), "gather"
    out = torch.empty_like(mine)
    dist.scatter(out, [x.clone() for x in inputs] if rank == root else None, root)
    assert exact(out, mine), "scatter"

    outgoing = [data_of(rank * size + to, numel, dtype) for to in range(size)]
    expected = [data_of(r * size + rank, numel, dtype) for r in range(size)]
    out = torch.empty(size * numel, dtype=dtype)
    dist.all_to_all_single(out, torch.cat(outgoing))
    assert exact(out, torch.cat(expected)), "all_to_all_single"
    outs = [torch.empty_like(mine) for _ in range(size)]
    dist.all_to_all(outs, outgoing)
    assert all(exact(a, b) for a, b in zip(outs, expected)), "all_to_all"

    out = torch.empty_like(mine)
    requests = [dist.isend(mine, (rank + 1) % size), dist.irecv(out, (rank - 1) % size)]
    for request in requests:
        request.wait()
    assert exact(out, inputs[(rank - 1) % size]), "send and recv"


def cells():
    for op in ("SUM", "AVG", "PRODUCT", "MIN", "MAX"):
        for dtype in FLOATS:
            yield dtype, op
    for op in ("SUM", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR"):
        for dtype in INTEGERS:
            yield dtype, op


@pytest.mark.parametrize("dtype,op", list(cells()), ids=str)
def test_reductions_equal_exact_arithmetic(world, dtype, op):
    sizes = SIZES if dtype in (torch.float32, torch.bfloat16) and op in ("SUM", "AVG") else [0, 1, 5, 1023, 131073]
    world.run(run_sizes, check_reductions, (dtype, op), sizes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.uint8, *MOVED_ONLY], ids=str)
def test_moved_data_are_equal_bit_for_bit(world, dtype):
    world.run(run_sizes, check_movers, (dtype,), SIZES if dtype == torch.float32 else [0, 1, 5, 1023, 131073])


def run_sizes(rank, size, check, args, sizes):
    for numel in sizes:
        try:
            check(rank, size, *args, numel)
        except AssertionError as error:
            raise AssertionError(f"{args} with {numel} elements: {error}") from error


def check_bool(rank, size):
    for op, fold in (("SUM", any), ("PRODUCT", all), ("MIN", all), ("MAX", any), ("BAND", all), ("BOR", any)):
        x = torch.tensor([rank == 0, True, False])
        dist.all_reduce(x, op=getattr(dist.ReduceOp, op))
        assert x.tolist() == [fold([r == 0 for r in range(size)]), True, False], (op, x)
    x = torch.tensor([True, False])
    dist.all_reduce(x, op=dist.ReduceOp.BXOR)
    assert x.tolist() == [size % 2 == 1, False]


def test_bools_reduce_as_logic(world):
    world.run(check_bool)


def check_complex(rank, size, dtype):
    for op in (dist.ReduceOp.SUM, dist.ReduceOp.AVG):
        x = torch.tensor([complex(rank, 1), complex(2, -rank)], dtype=dtype)
        dist.all_reduce(x, op=op)
        total = sum(range(size))
        expected = torch.tensor([complex(total, size), complex(2 * size, -total)], dtype=dtype)
        assert torch.allclose(x, expected / (size if op == dist.ReduceOp.AVG else 1)), x
    with pytest.raises((ValueError, RuntimeError)):
        dist.all_reduce(torch.ones(2, dtype=dtype), op=dist.ReduceOp.PRODUCT)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_numbers_sum_and_average(world, dtype):
    world.run(check_complex, dtype)


def check_premul(rank, size, numel):
    for factor in (0.5, torch.tensor([0.25])):
        x = torch.full((numel,), float(rank + 1))
        dist.all_reduce(x, op=dist._make_nccl_premul_sum(factor))
        assert torch.equal(x, torch.full((numel,), float(factor) * size * (size + 1) / 2))
        out = torch.empty(numel)
        dist.reduce_scatter_tensor(
            out, torch.full((numel * size,), float(rank + 1)), op=dist._make_nccl_premul_sum(factor)
        )
        assert torch.equal(out, torch.full((numel,), float(factor) * size * (size + 1) / 2))


@pytest.mark.parametrize("numel", [3, 300001])
def test_premul_sum_applies_the_factor_once(world, numel):
    world.run(check_premul, numel)


def check_nan(rank, size):
    inf, nan = float("inf"), float("nan")
    for dtype in FLOATS:
        x = torch.tensor([nan if rank == 0 else 1.0, -inf if rank == 0 else 1.0, 1.0], dtype=dtype)
        y, z = x.clone(), x.clone()
        dist.all_reduce(x, op=dist.ReduceOp.MAX)
        dist.all_reduce(y, op=dist.ReduceOp.MIN)
        dist.all_reduce(z, op=dist.ReduceOp.SUM)
        assert x[0].isnan() and x[1] == 1 and x[2] == 1, x
        assert y[0].isnan() and y[1] == -inf, y
        assert z[0].isnan() and z[1] == -inf and z[2] == size, z


def test_nan_and_infinity_propagate(world):
    world.run(check_nan)


def check_half_rounding(rank, size, dtype):
    generator = torch.Generator().manual_seed(7)
    inputs = [torch.randn(5000, generator=generator).to(dtype) for _ in range(size)]
    x = inputs[rank].clone()
    dist.all_reduce(x)
    exact_sum = sum(value.double() for value in inputs)
    absolute = sum(value.double().abs() for value in inputs)
    unit = torch.finfo(dtype).eps / 2
    # One rounding per host at most, and float32 inside.
    bound = 2 * unit * absolute + size * 2**-24 * absolute
    assert bool(((x.double() - exact_sum).abs() <= bound + 1e-12).all())
    return x.view(torch.int16).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_sums_round_once_and_alike_on_all_ranks(world, dtype):
    results = world.run(check_half_rounding, dtype)
    assert all(result == results[0] for result in results)
    assert world.run(check_half_rounding, dtype) == results


def check_unequal(rank, size, scale):
    sizes = [(r + 1) * scale for r in range(size)]
    mine = torch.full((sizes[rank],), float(rank))
    outs = [torch.empty(n) for n in sizes]
    dist.all_gather(outs, mine)
    assert all(torch.equal(out, torch.full((n,), float(r))) for r, (out, n) in enumerate(zip(outs, sizes)))
    # all_to_all: rank r sends (to + 1) * scale rows to `to`, none to rank 0.
    splits_in = [0 if to == 0 else (to + 1) * scale for to in range(size)]
    splits_out = [0 if rank == 0 else (rank + 1) * scale] * size
    data = torch.cat([torch.full((n, 3), float(rank * 10 + to)) for to, n in enumerate(splits_in)])
    out = torch.empty(sum(splits_out), 3)
    dist.all_to_all_single(out, data, splits_out, splits_in)
    expected = [torch.full((n, 3), float(r * 10 + rank)) for r, n in enumerate(splits_out)]
    assert torch.equal(out, torch.cat(expected))


@pytest.mark.parametrize("scale", [1, 7, 50000])
def test_unequal_parts(world, scale):
    world.run(check_unequal, scale)


def check_coalesced(rank, size, numel):
    from torch.distributed.distributed_c10d import _coalescing_manager

    xs = [torch.full((numel + i,), float(rank + i)) for i in range(4)]
    with _coalescing_manager():
        for x in xs:
            dist.all_reduce(x)
    total = sum(range(size))
    assert all(torch.equal(x, torch.full_like(x, float(total + i * size))) for i, x in enumerate(xs))

    ins = [torch.full((numel + i,), float(rank * 10 + i)) for i in range(3)]
    outs = [torch.empty(size * x.numel()) for x in ins]
    with _coalescing_manager():
        for out, x in zip(outs, ins):
            dist.all_gather_into_tensor(out, x)
    for i, out in enumerate(outs):
        rows = out.view(size, numel + i)
        assert all(bool((rows[r] == r * 10 + i).all()) for r in range(size))

    ins = [torch.full(((numel + i) * size,), float(rank + i)) for i in range(3)]
    outs = [torch.empty(numel + i) for i in range(3)]
    with _coalescing_manager():
        for out, x in zip(outs, ins):
            dist.reduce_scatter_tensor(out, x)
    assert all(torch.equal(out, torch.full_like(out, float(total + i * size))) for i, out in enumerate(outs))

    with _coalescing_manager(device=torch.device("cpu"), async_ops=True) as manager:
        x = torch.ones(numel)
        dist.all_reduce(x)
    manager.wait()
    assert bool((x == size).all())


@pytest.mark.parametrize("numel", [3, 70000])
def test_coalesced_forms(world, numel):
    world.run(check_coalesced, numel)


def check_objects(rank, size):
    gathered = [None] * size
    dist.all_gather_object(gathered, {"rank": rank, "text": "x" * (100 * rank)})
    assert [item["rank"] for item in gathered] == list(range(size))
    objects = [{"from": 0}, "two"] if rank == 0 else [None, None]
    dist.broadcast_object_list(objects, src=0)
    assert objects == [{"from": 0}, "two"]
    out = [None]
    dist.scatter_object_list(out, [f"for {r}" for r in range(size)] if rank == 0 else None, src=0)
    assert out == [f"for {rank}"]
    if size > 1 and rank == 0:
        dist.send_object_list([["a", 1]], dst=1)
    elif rank == 1:
        received = [None]
        dist.recv_object_list(received, src=0)
        assert received == [["a", 1]]


def test_object_collectives(world):
    world.run(check_objects)


def check_layouts(rank, size):
    base = torch.arange(24, dtype=torch.float32).view(4, 6)
    total = sum(r + 1 for r in range(size))
    layouts = {
        "offset": lambda: torch.cat([torch.zeros(1), base.flatten()])[1:].view(4, 6),
        "transposed": lambda: base.t().contiguous().t(),
        "strided": lambda: torch.stack([base, torch.zeros_like(base)], dim=-1)[..., 0],
        "rows": lambda: torch.cat([base, base], dim=1)[:, :6],
    }
    for name, make in layouts.items():
        x = make()
        assert torch.equal(x, base)
        storage = x.untyped_storage().nbytes()
        x.mul_(rank + 1)
        dist.all_reduce(x)
        assert torch.equal(x, base * total), name
        assert x.untyped_storage().nbytes() == storage
        x = make() * 1
        x = make()
        if rank != 0:
            x.zero_()
        dist.broadcast(x, 0)
        assert torch.equal(x, base), name
        outs = [make().zero_() for _ in range(size)]
        dist.all_gather(outs, make())
        assert all(torch.equal(out, base) for out in outs), name
    # One rank transposed, the others not: the elements count, not the memory.
    x = layouts["transposed"]() if rank == 0 else base.clone()
    dist.all_reduce(x)
    assert torch.equal(x, base * size)
    image = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)
    x = image.contiguous(memory_format=torch.channels_last)
    dist.all_reduce(x)
    assert torch.equal(x, image * size)
    with pytest.raises(ValueError, match="share one memory location"):
        dist.all_reduce(torch.zeros(1).expand(5))
    # Bytes at an odd address.
    raw = torch.zeros(41, dtype=torch.uint8)
    x = torch.frombuffer(raw.numpy(), dtype=torch.uint8, offset=1)
    x.fill_(rank + 1)
    dist.all_reduce(x)
    assert bool((x == total).all())


def test_strides_never_change_the_result(world):
    world.run(check_layouts)
