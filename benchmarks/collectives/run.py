"""Measures collectives of several libraries, interleaved round by round.

    python benchmarks/collectives/run.py --ranks 2 --out results/NAME

Needs an interpreter with torch and trainyard_collective (PYTHONPATH or
installed). MPI peers: `--mpi NAME=ENVIRONMENT` for each Python environment
that holds an MPI from the package index and mpi4py, e.g.
`--mpi impi=.venv-impi`. Emulated hosts (root): `--hosts 2 --megabits 1000`.

In every round each library measures in turn; the time of a call is that of the
slowest rank. Beside each round stands the share of the machine's CPU time that
processes other than ours took; rounds above --max-foreign are left out, and if
none remains all are kept and the table says so.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "libs/collective/tests"))

OPS = ("allreduce", "allgather", "reducescatter", "broadcast")
START_SECONDS = 90


def bus_factor(op, ranks):
    """nccl-tests' factors: bus bandwidth = bytes / time × factor."""
    return {"allreduce": 2 * (ranks - 1) / ranks, "broadcast": 1}.get(op, (ranks - 1) / ranks)


class Library:
    """The ranks of one library, waiting for requests."""

    def __init__(self, name, ranks, folder, mpi=None, namespaces=None):
        self.name = name
        path = str(folder / f"{name}.sock")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(ranks)
        self.processes = []
        log = open(folder / f"{name}.log", "w")
        environment = dict(os.environ, OMP_NUM_THREADS="1", BENCHMARK_STORE=str(folder / f"{name}.store"))
        if mpi:
            command = [f"{mpi}/bin/mpirun", "-n", str(ranks)]
            version = subprocess.run([command[0], "--version"], capture_output=True, text=True).stdout
            named = [line.strip() for line in version.splitlines() if "ersion" in line or "MPI" in line]
            self.version = " ".join((named or ["unknown"])[0].split())
            if "Open MPI" in version or "open-mpi" in version.lower():
                command += ["--allow-run-as-root", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
            environment.update(I_MPI_PIN="0", I_MPI_FABRICS="shm", PATH=f"{mpi}/bin:{environment['PATH']}")
            command += [f"{mpi}/bin/python", str(HERE / "rank.py"), "mpi", path]
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        else:
            import torch

            self.version = f"torch {torch.__version__}"
            for rank in range(ranks):
                prefix = ["ip", "netns", "exec", namespaces[rank]] if namespaces else []
                if namespaces and name == "gloo":
                    environment["GLOO_SOCKET_IFNAME"] = "eth0"
                self.processes.append(
                    subprocess.Popen(
                        [*prefix, sys.executable, str(HERE / "rank.py"), name, path],
                        env=dict(environment, RANK=str(rank), WORLD_SIZE=str(ranks)),
                        stdout=log,
                        stderr=log,
                    )
                )
        server.settimeout(START_SECONDS)
        self.streams, self.pids = {}, []
        try:
            for _ in range(ranks):
                stream = server.accept()[0].makefile("rw")
                hello = json.loads(stream.readline())
                self.streams[hello["rank"]] = stream
                self.pids.append(hello["pid"])
        except (TimeoutError, ValueError) as error:
            self.kill()
            raise SystemExit(f"{name} did not start: {(folder / f'{name}.log').read_text()[-2000:]}") from error

    def ask(self, **request):
        for stream in self.streams.values():
            stream.write(json.dumps(request) + "\n")
            stream.flush()
        lines = [stream.readline() for stream in self.streams.values()]
        if not all(lines):
            raise SystemExit(f"{self.name} ended during {request}")
        return max(json.loads(line) for line in lines)

    def end(self):
        for stream in self.streams.values():
            try:
                stream.write(json.dumps({"do": "end"}) + "\n")
                stream.flush()
            except OSError:
                pass
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


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


def calls_for(size, estimate, budget):
    return max(1, min(500, int(budget / max(estimate, 1e-6))))


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def hardware():
    model = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def human(size):
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def plot(rows, libraries, path):
    """Bus bandwidth over size, one panel per operation, as SVG."""
    width, height, margin = 330, 240, 45
    colours = ["#0b6", "#073", "#c33", "#38c", "#a5c", "#d82", "#777"]
    ops = [op for op in OPS if any(row["op"] == op for row in rows)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(ops)}" height="{height + 40}" '
        'font-family="sans-serif" font-size="10">'
    ]
    for panel, op in enumerate(ops):
        mine = [row for row in rows if row["op"] == op]
        sizes = sorted({row["bytes"] for row in mine})
        top = max(row["bus_gbytes"] for row in mine) * 1.05
        left = panel * width
        x_of = lambda size: left + margin + (width - margin - 15) * (  # noqa: E731
            sizes.index(size) / max(1, len(sizes) - 1)
        )
        y_of = lambda value: height - 25 - (height - 50) * value / top  # noqa: E731
        parts.append(f'<text x="{left + margin}" y="15" font-size="12">{op}, bus GB/s</text>')
        for size in sizes:
            parts.append(f'<text x="{x_of(size) - 12}" y="{height - 8}">{human(size).replace(" ", "")}</text>')
        for i in range(5):
            value = top * i / 4
            parts.append(f'<text x="{left + 5}" y="{y_of(value)}">{value:.1f}</text>')
            parts.append(
                f'<line x1="{left + margin}" x2="{left + width - 15}" y1="{y_of(value)}" y2="{y_of(value)}" stroke="#ddd"/>'
            )
        for number, name in enumerate(libraries):
            points = " ".join(
                f"{x_of(row['bytes']):.1f},{y_of(row['bus_gbytes']):.1f}" for row in mine if row["library"] == name
            )
            colour = colours[number % len(colours)]
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
            if panel == 0:
                parts.append(f'<text x="{20 + number * 130}" y="{height + 25}" fill="{colour}">{name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--hosts", type=int, default=1, help="emulated by network namespaces when above 1")
    parser.add_argument("--megabits", type=int, default=1000, help="rate of each emulated host's link")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--sizes", default="1024,16384,65536,1048576,4194304,16777216,67108864")
    parser.add_argument("--ops", default=",".join(OPS))
    parser.add_argument("--mpi", action="append", default=[], help="NAME=ENVIRONMENT")
    parser.add_argument("--budget", type=float, default=0.15, help="seconds per measurement")
    parser.add_argument("--max-foreign", type=float, default=0.10)
    parser.add_argument("--out", required=True, help="path without extension; .json, .md and .svg are written")
    options = parser.parse_args()
    # Ends the ranks and the network also when the run is cut short.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    sizes = [int(size) for size in options.sizes.split(",")]
    ops = options.ops.split(",")
    folder = Path(tempfile.mkdtemp(prefix="collectives-"))
    network, namespaces = None, None
    libraries = []
    started = datetime.datetime.now(datetime.timezone.utc)
    samples = {}
    try:
        if options.hosts > 1:
            from network import Network

            network = Network(options.hosts, options.megabits)
            per_host = options.ranks // options.hosts
            namespaces = [network.names[rank // per_host] for rank in range(options.ranks)]
        for name in ("smddp", "smddp-allocated", "gloo"):
            libraries.append(Library(name, options.ranks, folder, namespaces=namespaces))
        for entry in options.mpi:
            name, environment = entry.split("=", 1)
            libraries.append(Library(name, options.ranks, folder, mpi=str(Path(environment).absolute())))
        pids = [pid for library in libraries for pid in library.pids] + [os.getpid()]
        estimates = {}
        for op in ops:
            for size in sizes:
                for library in libraries:
                    library.ask(do="check", op=op, bytes=size)
                    estimates[library.name] = library.ask(do="measure", op=op, bytes=size, calls=1)
                for _ in range(options.rounds):
                    before, clock = cpu_times(pids), time.perf_counter()
                    times = {}
                    for library in libraries:
                        calls = calls_for(size, estimates[library.name], options.budget)
                        times[library.name] = library.ask(do="measure", op=op, bytes=size, calls=calls)
                        estimates[library.name] = min(estimates[library.name], times[library.name])
                    times["copy"] = copy_seconds(size)
                    after, elapsed = cpu_times(pids), time.perf_counter() - clock
                    foreign = (after[0] - before[0] - (after[1] - before[1])) / (elapsed * os.cpu_count())
                    foreign = max(foreign, 0)  # clock ticks are coarse
                    samples.setdefault((op, size), []).append((foreign, times))
                median = {n: statistics.median(t[n] for _, t in samples[op, size]) for n in times}
                print(op, human(size), {n: f"{v * 1e6:.0f} us" for n, v in median.items()}, flush=True)
    finally:
        for library in libraries:
            library.end()
        if network:
            network.close()
        shutil.rmtree(folder, ignore_errors=True)

    rows, notes = [], []
    names = [library.name for library in libraries]
    for (op, size), rounds in samples.items():
        kept = [times for foreign, times in rounds if foreign <= options.max_foreign]
        if not kept:
            kept = [times for _, times in rounds]
            notes.append(f"{op} {human(size)}")
        for name in [*names, "copy"]:
            low, middle, high = quartiles([times[name] for times in kept])
            rows.append(
                {
                    "op": op,
                    "bytes": size,
                    "library": name,
                    "rounds": len(kept),
                    "min_us": min(times[name] for times in kept) * 1e6,
                    "q1_us": low * 1e6,
                    "median_us": middle * 1e6,
                    "q3_us": high * 1e6,
                    "bus_gbytes": size / middle * bus_factor(op, options.ranks) / 1e9 if name != "copy" else size / middle / 1e9,
                    "foreign_cpu": statistics.median(foreign for foreign, _ in rounds),
                }
            )
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    versions = {library.name: library.version for library in libraries}
    command = " ".join(["python benchmarks/collectives/run.py", *sys.argv[1:]])
    about = {
        "hardware": hardware(),
        "versions": versions,
        "ranks": options.ranks,
        "hosts": options.hosts,
        "megabits": options.megabits if options.hosts > 1 else None,
        "command": command,
        "started": started.isoformat(timespec="seconds"),
    }
    out.with_suffix(".json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    plot([row for row in rows if row["library"] != "copy"], names, out.with_suffix(".svg"))

    lines = [
        f"# {options.ranks} ranks on {options.hosts} host{'s' if options.hosts > 1 else ''}"
        + (f", {options.megabits} Mbit/s links" if options.hosts > 1 else ""),
        "",
        f"Hardware: {about['hardware']}. Versions: "
        + ", ".join(f"{name} ({version})" for name, version in versions.items())
        + f". Started {about['started']}. float32, no pinning.",
        "",
        f"    {command}",
        "",
        "Median microseconds per call of the slowest rank (first to third quartile). Bytes are those of the whole vector.",
        "`copy` is one core copying as many bytes in private memory.",
        "",
    ]
    if notes:
        lines += [
            f"**Other processes took more than {options.max_foreign:.0%} of the machine in every round of: "
            + ", ".join(notes)
            + ".** All rounds are kept there; read only the ratios.",
            "",
        ]
    columns = [*names, "copy"]
    bound = options.hosts > 1
    lines.append("| op | size | " + " | ".join(columns) + (" | bound |" if bound else " |") + " foreign CPU |")
    lines.append("| --- " * (len(columns) + 3 + bound) + "|")
    for (op, size), _ in samples.items():
        cells = {row["library"]: row for row in rows if row["op"] == op and row["bytes"] == size}
        line = f"| {op} | {human(size)} |"
        for name in columns:
            cell = cells[name]
            line += f" {cell['median_us']:.1f} ({cell['q1_us']:.1f}–{cell['q3_us']:.1f}) |"
        if bound:
            m = options.hosts
            factor = {"allreduce": 2 * (m - 1) / m, "broadcast": 1}.get(op, (m - 1) / m)
            line += f" {size * factor * 8 / (options.megabits * 1e6) * 1e6:.0f} |"
        line += f" {cells[names[0]]['foreign_cpu']:.0%} |"
        lines.append(line)
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
