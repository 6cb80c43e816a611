"""Measures the step time of DDP and FSDP2 on a small GPT, with this repository's backend and with Gloo.

    python benchmarks/training/run.py [--quick] [--scenario 1x2] [--out benchmarks/training/results/NAME]

Needs an interpreter with torch and trainyard_collective (PYTHONPATH or installed). Scenarios with several hosts
emulate them by network namespaces and need root.

In every round each variant trains a few steps in turn, in the same processes; a step's time is that of the slowest
rank. `alone` is the same step without communication, on all ranks at once. What a variant takes longer than `alone`
in the same round is its exposed communication. Losses of the backends are compared after every round.
"""

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "libs/collective/tests")]

import rank as ranks_module  # noqa: E402
from network import Network, why_impossible  # noqa: E402
from ranks import World  # noqa: E402

VARIANTS = ("alone", "ddp smddp", "ddp gloo", "fsdp2 smddp", "fsdp2 gloo")
METHODS = ("ddp", "fsdp2")
# name: hosts of the ranks, megabits per second of each host's link
SCENARIOS = {"1x2": ([0, 0], None), "2x1-1g": ([0, 1], 1000), "2x2-1g": ([0, 0, 1, 1], 1000)}
SHAPE = {"layers": 4, "width": 512, "heads": 8, "length": 64}
QUICK_SHAPE = {"layers": 2, "width": 128, "heads": 4, "length": 32}


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=list(SCENARIOS), default="1x2")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=4, help="steps of a variant in a round")
    parser.add_argument("--batch", type=int, default=2, help="sequences per rank and step")
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model and 3 rounds: shows that it runs, no figures"
    )
    parser.add_argument("--out", type=Path, help="where to write NAME.md and NAME.json")
    return parser.parse_args(arguments)


def busy_seconds():
    """CPU time that all processes of the machine have taken."""
    with open("/proc/stat") as file:
        fields = [int(part) for part in file.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def seconds_of(pids):
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            parts = file.read().rsplit(")", 1)[1].split()
        ticks += int(parts[11]) + int(parts[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(world, options):
    """Yields for every round: seconds per step by variant, and the share of the machine that others took."""
    for variant in VARIANTS:
        world.run(ranks_module.turn, variant, 1)
    for number in range(options.rounds):
        order = list(VARIANTS)
        random.Random(number).shuffle(order)
        # This process only waits.
        started, busy, ours = datetime.datetime.now(), busy_seconds(), seconds_of(world.pids)
        times, losses = {}, {}
        for variant in order:
            answers = world.run(ranks_module.turn, variant, options.steps, seconds=600)
            times[variant] = max(seconds for seconds, _ in answers)
            losses[variant] = [loss for _, loss in answers]
        for method in METHODS:
            pairs = zip(losses[f"{method} smddp"], losses[f"{method} gloo"])
            if any(abs(a - b) > 1e-4 * abs(b) for a, b in pairs):
                raise SystemExit(f"{method}: losses differ between the backends in round {number}: {losses}")
        elapsed = (datetime.datetime.now() - started).total_seconds()
        foreign = (busy_seconds() - busy - seconds_of(world.pids) + ours) / elapsed / os.cpu_count()
        yield {"times": times, "foreign": max(0.0, foreign)}


def interval(values, resamples=2000):
    """Median and its 95 % bootstrap interval."""
    generator = random.Random(7)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(resamples))
    return statistics.median(values), medians[int(0.025 * resamples)], medians[int(0.975 * resamples)]


def table(rounds):
    lines = [
        "| method | ours, ms | Gloo, ms | Gloo / ours | exposed, ours, ms | exposed, Gloo, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]

    def cell(values, scale, digits):
        return "{:.{d}f} ({:.{d}f} – {:.{d}f})".format(*(v * scale for v in interval(values)), d=digits)

    for method in METHODS:
        ours = [r["times"][f"{method} smddp"] for r in rounds]
        gloo = [r["times"][f"{method} gloo"] for r in rounds]
        alone = [r["times"]["alone"] for r in rounds]
        cells = [
            cell(ours, 1e3, 1),
            cell(gloo, 1e3, 1),
            cell([b / a for a, b in zip(ours, gloo)], 1, 3),
            cell([a - c for a, c in zip(ours, alone)], 1e3, 1),
            cell([b - c for b, c in zip(gloo, alone)], 1e3, 1),
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "The same step without communication: " + cell([r["times"]["alone"] for r in rounds], 1e3, 1) + " ms.",
    ]
    return lines


def report(options, parameters, rounds, started):
    import torch

    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    foreign = [r["foreign"] for r in rounds]
    shape = QUICK_SHAPE if options.quick else SHAPE
    command = " ".join(["python benchmarks/training/run.py", *sys.argv[1:]])
    return [
        f"# Step time of a small GPT, {options.scenario}",
        "",
        f"Hardware: {model}, {os.cpu_count()} cores, Linux {platform.release()}; torch {torch.__version__}, one thread "
        f"per rank. Started {started}.",
        f"Model: {shape}, {parameters / 1e6:.1f} million parameters in float32, {options.batch} sequences per rank and "
        f"step, SGD. {len(rounds)} rounds of {options.steps} steps.",
        "",
        f"    {command}",
        "",
        "Medians of the rounds with 95 % bootstrap intervals; ratios and differences are taken within a round.",
        f"Other processes took {statistics.median(foreign):.0%} of the machine (median; at most {max(foreign):.0%} in a "
        "round)."
        + (" **The machine was not idle: read only the ratios.**" if statistics.median(foreign) > 0.1 else ""),
        "",
        *table(rounds),
        "",
    ]


def main():
    options = parse(sys.argv[1:])
    if options.quick:
        options.rounds, options.steps = 3, 2
    hosts, megabits = SCENARIOS[options.scenario]
    network = None
    if megabits:
        reason = why_impossible()
        if reason:
            raise SystemExit(f"--scenario {options.scenario} {reason}; --scenario 1x2 needs neither")
        network = Network(len(set(hosts)), megabits)
    world = None
    started = datetime.datetime.now(datetime.UTC if hasattr(datetime, "UTC") else datetime.timezone.utc).isoformat(
        timespec="seconds"
    )
    rounds = []
    try:
        world = World(
            len(hosts),
            hosts,
            environment={"GLOO_SOCKET_IFNAME": "eth0"} if network else None,
            namespaces=[network.names[host] for host in hosts] if network else None,
        )
        shape = QUICK_SHAPE if options.quick else SHAPE
        parameters = world.run(ranks_module.prepare, shape, options.batch)[0]
        for number, found in enumerate(measure(world, options)):
            rounds.append(found)
            print(f"round {number + 1} of {options.rounds}: {found}", file=sys.stderr)
        world.close()
    finally:
        if world:
            world.kill()
        if network:
            network.close()
    text = "\n".join(report(options, parameters, rounds, started))
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".md").write_text(text)
        options.out.with_suffix(".json").write_text(json.dumps({"command": sys.argv[1:], "rounds": rounds}) + "\n")


if __name__ == "__main__":
    main()
