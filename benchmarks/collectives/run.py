"""Measures collectives of several libraries, interleaved round by round.

    python benchmarks/collectives/run.py --scenario 1x2 --out results/NAME [--quick]

Needs an interpreter with torch and trainyard_collective (PYTHONPATH or installed). MPI peers are installed into
environments of their own (peers.py). Scenarios with several hosts emulate them by network namespaces and need root.

In every round each library measures in turn; the time of a call is that of the slowest rank. With each round the
share of the machine's CPU time that processes other than ours took is kept, and rounds above --max-foreign do not
count as long as others remain. A row (operation and size) goes on until it has --rounds quiet rounds, but for at most
twice as many rounds.

After every row the data are written; the same command started again goes on after the last complete row.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import report
from libraries import Library

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "libs/collective/tests"))

OPS = ("allreduce", "allgather", "reducescatter", "broadcast")
SIZES = [1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20]
# name: ranks, hosts, megabits of each host's link, peers beside ours and Gloo
SCENARIOS = {
    "1x2": (2, 1, None, ("openmpi", "mpich", "impi")),
    "1x4": (4, 1, None, ("openmpi", "mpich", "impi")),
    "2x2-1g": (4, 2, 1000, ("openmpi", "mpich", "impi")),
    "2x2-10g": (4, 2, 10000, ("openmpi", "mpich", "impi")),
}


def cpu_times(pids):
    """Seconds of CPU taken by all processes, and by ours."""
    tick = os.sysconf("SC_CLK_TCK")
    with open("/proc/stat") as file:
        fields = [int(x) for x in file.readline().split()[1:9]]
    busy = sum(fields) - fields[3] - fields[4]
    ours = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                parts = file.read().rsplit(")", 1)[1].split()
            ours += int(parts[11]) + int(parts[12])
        except FileNotFoundError:
            pass
    return busy / tick, ours / tick


def copy_seconds(size):
    """A plain memory copy of `size` bytes by one core: the limit for movers."""
    source, target = np.ones(size // 4, np.float32), np.ones(size // 4, np.float32)
    calls = max(1, min(200, (64 << 20) // size))
    np.copyto(target, source)
    started = time.perf_counter()
    for _ in range(calls):
        np.copyto(target, source)
    return (time.perf_counter() - started) / calls


def hardware():
    model = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=SCENARIOS, required=True)
    parser.add_argument("--out", required=True, help="path without extension; .json, .md and .svg are written")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 4 sizes; for a look, not for a claim")
    parser.add_argument("--rounds", type=int, help="default: 12")
    parser.add_argument("--sizes", help="bytes, with commas between")
    parser.add_argument("--ops", default=",".join(OPS))
    parser.add_argument("--mpi", help="peers with commas between, or none; default: those of the scenario")
    parser.add_argument("--budget", type=float, help="seconds per measurement; default: 0.15")
    parser.add_argument("--max-foreign", type=float, default=0.10)
    parser.add_argument("--no-allocated", action="store_true", help="only ordinary tensors")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        help="NAME:VARIABLE=VALUE;…: ours once more with these variables, to measure a setting or another build",
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 12)
    options.budget = options.budget or (0.02 if options.quick else 0.15)
    if options.sizes:
        options.sizes = [int(size) for size in options.sizes.split(",")]
    else:
        options.sizes = [1 << 10, 1 << 20, 16 << 20, 64 << 20] if options.quick else SIZES
    options.ops = options.ops.split(",")
    peers = SCENARIOS[options.scenario][3]
    if options.mpi is not None:
        peers = tuple(name for name in options.mpi.split(",") if name not in ("", "none"))
    options.peers = peers
    return options


def start(options, ranks, folder, namespaces):
    """Yields the libraries, each as soon as it runs."""

    def library(name, kind, **more):
        return Library(name, kind, ranks, folder, namespaces=namespaces, **more)

    yield library("smddp", "smddp")
    if not options.no_allocated:
        yield library("smddp-allocated", "smddp-allocated")
    for variant in options.variant:
        name, settings = variant.split(":", 1)
        variables = dict(setting.split("=", 1) for setting in settings.split(";"))
        yield library(f"smddp-{name}", "smddp", variables=variables)
    yield library("gloo", "gloo")
    if namespaces and len(set(namespaces)) == 2:
        yield library("sockets", "sockets", variables={"BENCHMARK_ADDRESS": "10.77.0.1"})
    for name in options.peers:
        yield library(name, "mpi", mpi=name)
    if options.peers and not namespaces and not options.no_allocated:
        yield library("mpi-window", "mpi-window", mpi=options.peers[-1])


def measure_row(libraries, pids, op, size, options):
    """The rounds of one operation and size: (share of foreign CPU, {library: seconds})."""
    estimates, rounds = {}, []
    for library in libraries:
        library.ask(do="check", op=op, bytes=size)
        estimates[library.name] = library.ask(do="measure", op=op, bytes=size, calls=1)
    quiet = 0
    while quiet < options.rounds and len(rounds) < 2 * options.rounds:
        before, clock = cpu_times(pids), time.perf_counter()
        times = {}
        for library in libraries:
            calls = max(1, min(500, int(options.budget / max(estimates[library.name], 1e-6))))
            times[library.name] = library.ask(do="measure", op=op, bytes=size, calls=calls)
            estimates[library.name] = min(estimates[library.name], times[library.name])
        times["copy"] = copy_seconds(size)
        after, elapsed = cpu_times(pids), time.perf_counter() - clock
        foreign = (after[0] - before[0] - (after[1] - before[1])) / (elapsed * os.cpu_count())
        rounds.append((max(foreign, 0), times))  # clock ticks are coarse
        quiet += foreign <= options.max_foreign
        if options.quick and len(rounds) == options.rounds:
            break
    return rounds


def main():
    options = arguments()
    # Ends the ranks and the network also when the run is cut short.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ranks, hosts, megabits, _ = SCENARIOS[options.scenario]
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    data = {"about": None, "rows": []}
    if out.with_suffix(".json").exists():
        data = json.loads(out.with_suffix(".json").read_text())
    folder = Path(tempfile.mkdtemp(prefix="collectives-"))
    network, namespaces, libraries = None, None, []
    try:
        if hosts > 1:
            from network import Network

            network = Network(hosts, megabits)
            namespaces = [network.names[rank // (ranks // hosts)] for rank in range(ranks)]
        for library in start(options, ranks, folder, namespaces):
            libraries.append(library)
        about = {
            "scenario": options.scenario,
            "hardware": hardware(),
            "versions": {library.name: library.version for library in libraries},
            "mpis": list(options.peers),
            "ranks": ranks,
            "hosts": hosts,
            "megabits": megabits,
            "max_foreign": options.max_foreign,
            "command": " ".join(["python benchmarks/collectives/run.py", *sys.argv[1:]]),
        }
        known = {key: value for key, value in (data["about"] or about).items() if key != "started"}
        if known != about:
            raise SystemExit(f"{out}.json holds another run; remove it or choose another --out")
        if data["about"] is None:
            now = datetime.datetime.now(datetime.timezone.utc)
            data["about"] = {**about, "started": now.isoformat(timespec="seconds")}
        done = {(row["op"], row["bytes"]) for row in data["rows"]}
        pids = [pid for library in libraries for pid in library.pids] + [os.getpid()]
        for op in options.ops:
            for size in options.sizes:
                if (op, size) in done:
                    continue
                rounds = measure_row(libraries, pids, op, size, options)
                data["rows"].append({"op": op, "bytes": size, "rounds": rounds})
                out.with_suffix(".json").write_text(json.dumps(data) + "\n")
                kept, _ = report.keep(rounds, options.max_foreign)
                medians = {name: statistics.median(times[name] for times in kept) for name in kept[0]}
                print(op, report.human(size), {n: f"{v * 1e6:.0f} us" for n, v in medians.items()}, flush=True)
    finally:
        for library in libraries:
            library.end()
        if network:
            network.close()
        shutil.rmtree(folder, ignore_errors=True)
    cells = [(row["op"], row["bytes"], row["rounds"]) for row in data["rows"]]
    out.with_suffix(".md").write_text(report.table(data["about"], cells))
    out.with_suffix(".svg").write_text(report.plot(data["about"], cells))
    print(out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
