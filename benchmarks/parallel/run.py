"""Measures libs/parallel: step time against bare PyTorch, peak tensor bytes against their sum, idle time of pipelines.

    python benchmarks/parallel/run.py --out results/NAME

Runs in an interpreter with torch and transformers, as libs/parallel/script/test makes one in .trainyard/parallel; ranks
are processes of this machine with one thread each. Writes NAME.json and NAME.md.

Step time: library and bare part train in the same processes, one after the other in every round, each first in every
second round; the time of a step is that of the slowest rank. The ratio is the median of the rounds' ratios, and its
interval holds the true median with at least 95 % (order statistics, no assumption on the distribution). `wire` is the
time that the bare step's collectives and messages take by themselves. Pipelines and split layers send little, so they run between two
emulated hosts (root, iproute2) on a link slow enough for a fifth of the step; without root they run on one host, and the
table shows their share.
"""

import argparse
import contextlib
import datetime
import json
import math
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "libs/parallel"), str(ROOT / "libs/collective/tests")]

from cases import CASES  # noqa: E402
from launching import free_port  # noqa: E402

SECONDS = 900


@contextlib.contextmanager
def emulated_hosts(megabits, ranks):
    """Names of network namespaces by rank, or None where they cannot be made."""
    if megabits is None:
        yield None
        return
    from network import Network, why_impossible

    why = why_impossible()
    if why:
        print(f"one host instead of emulated ones: {why}", flush=True)
        yield None
        return
    network = Network(ranks, megabits)
    try:
        yield network.names
    finally:
        network.close()


def ask(request, ranks, megabits=None, preload=None):
    """The answer of rank 0, with the link it ran on; ends every rank whatever happens."""
    with emulated_hosts(megabits, ranks) as names, tempfile.TemporaryDirectory(prefix="parallel-") as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "libs/parallel"), os.environ.get("PYTHONPATH")])),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "10.77.0.1" if names else "127.0.0.1",
            "MASTER_PORT": free_port(),
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "TMPDIR": folder,
        }
        if names:
            environment["GLOO_SOCKET_IFNAME"] = "eth0"
        if preload:
            environment["LD_PRELOAD"] = preload
        processes = []
        try:
            for rank in range(ranks):
                prefix = ["ip", "netns", "exec", names[rank]] if names else []
                with open(f"{folder}/{rank}.out", "w") as out, open(f"{folder}/{rank}.err", "w") as err:
                    processes.append(
                        subprocess.Popen(
                            [*prefix, sys.executable, str(HERE / "rank.py"), json.dumps(request)],
                            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                            stdout=out,
                            stderr=err,
                        )
                    )
            codes = [process.wait(SECONDS) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        if any(codes):
            said = "".join(Path(f"{folder}/{rank}.err").read_text()[-3000:] for rank in range(ranks))
            raise SystemExit(f"{request} failed with codes {codes}:\n{said}")
        lines = Path(f"{folder}/0.out").read_text().splitlines()
        return {**json.loads(next(line for line in reversed(lines) if line.startswith("{"))), "megabits": megabits if names else None}


def interval(values):
    """(median, low, high): order statistics whose interval holds the true median with at least 95 %."""
    ordered, n = sorted(values), len(values)
    below, rank = 0.0, 0
    while rank < n // 2:
        below += math.comb(n, rank) / 2**n
        if below > 0.025:
            break
        rank += 1
    low = max(rank - 1, 0)
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def step_times(options):
    rows = []
    for name, case in CASES.items():
        if options.only not in name:
            continue
        request = {"do": "compare", "case": name, "shape": {}, "rounds": options.rounds, "steps": options.steps}
        answer = ask(request, options.ranks, case.megabits)
        rounds = [r for r in answer["rounds"] if r["foreign"] <= options.max_foreign]
        disturbed = not rounds
        rounds = rounds or answer["rounds"]
        median, low, high = interval([r["ours"] / r["bare"] for r in rounds])
        bare = statistics.median(r["bare"] for r in rounds)
        rows.append(
            {
                "case": name,
                "goal": case.goal,
                "ratio": median,
                "low": low,
                "high": high,
                "cpu_ratio": statistics.median(r["ours cpu"] / r["bare cpu"] for r in rounds),
                "rounds": len(rounds),
                "ours_ms": 1e3 * statistics.median(r["ours"] for r in rounds),
                "bare_ms": 1e3 * bare,
                "wire_share": statistics.median(r["wire"] for r in rounds) / bare,
                "calls": answer["calls"],
                "bytes": answer["bytes"],
                "megabits": answer["megabits"],
                "foreign": statistics.median(r["foreign"] for r in answer["rounds"]),
                "disturbed": disturbed,
            }
        )
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    return rows


def peaks(options):
    """Compiles the counter of live bytes; one row for each version and number of ranks."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="parallel-") as folder:
        library = f"{folder}/live_bytes.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, str(HERE / "live_bytes.c"), "-ldl", "-lpthread"], check=True)
        for version in ("v1", "v2"):
            for ranks in (2, 4):
                answer = ask({"do": "memory", "version": version, "shape": {}, "steps": 3}, ranks, preload=library)
                rows.append({"version": version, "ranks": ranks, **answer})
                print({k: rows[-1][k] for k in ("version", "ranks", "peaks", "sum")}, flush=True)
    return rows


def bubbles(options):
    rows = []
    for schedule in ("simple", "interleaved"):
        answer = ask({"do": "bubble", "schedule": schedule, "shape": {}, "rounds": options.rounds // 2}, options.ranks)
        rows.append({"schedule": schedule, **answer})
        print(schedule, {n: round(entry["idle"], 3) for n, entry in answer["ours"].items()}, flush=True)
    return rows


def report(about, times, memory, idle):
    """The tables as Markdown."""
    lines = [f"# {about['name']}", "", *(f"- {key}: {value}" for key, value in about.items() if key != "name"), ""]
    if times:
        lines += [
            "## Step time against bare PyTorch",
            "",
            "| case | ratio | interval | goal | CPU ratio | ours ms | bare ms | wire share | link | rounds | other work |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for r in times:
            link = f"{r['megabits']} Mbit/s" if r["megabits"] else "loopback"
            lines.append(
                f"| {r['case']} | {r['ratio']:.3f} | {r['low']:.3f}–{r['high']:.3f} | {r['goal']} | {r['cpu_ratio']:.3f} | "
                f"{r['ours_ms']:.1f} | {r['bare_ms']:.1f} | {r['wire_share']:.2f} | {link} | {r['rounds']} | {r['foreign']:.0%} |"
            )
        if any(r["disturbed"] for r in times):
            lines += ["", "Other work exceeded the limit in every round of some cases; all of their rounds are kept."]
        lines.append("")
    if memory:
        lines += [
            "## Peak of live tensor bytes",
            "",
            "Sum: share + activations + two gathered units + reduce buffers + padding, see memory.py. Goal: at most 1.05.",
            "",
            "| version | ranks | largest peak MB | sum MB | peak / sum | share | activations | units | reduce | padding |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for r in memory:
            terms = " | ".join(f"{value / 1e6:.1f}" for value in r["terms"].values())
            top = max(r["peaks"])
            lines.append(f"| {r['version']} | {r['ranks']} | {top / 1e6:.1f} | {r['sum'] / 1e6:.1f} | {top / r['sum']:.3f} | {terms} |")
        lines.append("")
    if idle:
        lines += [
            "## Idle time of pipelines",
            "",
            "| schedule | stages | micro-batches | theory | ours | bare |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for r in idle:
            for count, entry in r["ours"].items():
                lines.append(
                    f"| {r['schedule']} | {r['stages']} | {count} | {entry['theory']:.3f} | {entry['idle']:.3f} | {r['bare'][count]['idle']:.3f} |"
                )
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2, help="of step times and pipelines; at most the machine's cores")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=5, help="steps of each side in a round")
    parser.add_argument("--quick", action="store_true", help="6 rounds of 2 steps")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--parts", default="time,memory,bubble")
    parser.add_argument("--max-foreign", type=float, default=0.10, help="most CPU that other work may take in a round that counts")
    parser.add_argument("--out", required=True, help="path without extension")
    options = parser.parse_args()
    # Ends the ranks and the emulated hosts also when the run is cut short.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.quick:
        options.rounds, options.steps = 6, 2
    import torch

    out = Path(options.out)
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    command = shlex.join(["python", "benchmarks/parallel/run.py", *sys.argv[1:]])
    about = {
        "name": out.name,
        "command": f"`{command}`",
        "hardware": f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, Gloo",
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    parts = options.parts.split(",")
    if "memory" in parts and shutil.which("cc") is None:
        raise SystemExit("the memory part needs a C compiler (cc); install one or leave it out with --parts time,bubble")
    times = step_times(options) if "time" in parts else []
    memory = peaks(options) if "memory" in parts else []
    idle = bubbles(options) if "bubble" in parts else []
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps({"about": about, "times": times, "memory": memory, "idle": idle}, indent=1) + "\n")
    out.with_suffix(".md").write_text(report(about, times, memory, idle))


if __name__ == "__main__":
    main()
