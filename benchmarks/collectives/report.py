"""Writes what run.py has measured as a table (Markdown) and a plot (SVG)."""

import statistics

COLOURS = ["#0b6", "#073", "#c33", "#38c", "#a5c", "#d82", "#777", "#0aa", "#b80"]


def bus_factor(op, ranks):
    """nccl-tests' factors: bus bandwidth = bytes / time × factor."""
    return {"allreduce": 2 * (ranks - 1) / ranks, "broadcast": 1}.get(op, (ranks - 1) / ranks)


def bound_seconds(op, size, hosts, megabits):
    """What a host must send, at the rate of its link."""
    factor = {"allreduce": 2 * (hosts - 1) / hosts, "broadcast": 1}.get(op, (hosts - 1) / hosts)
    return size * factor * 8 / (megabits * 1e6)


def human(size):
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def keep(rounds, limit):
    """The rounds that other processes left in peace; all if there are none. Returns them and whether there were."""
    quiet = [times for foreign, times in rounds if foreign <= limit]
    return (quiet, True) if quiet else ([times for _, times in rounds], False)


def ratio_of(kept, left, right):
    """Median of the ratios round by round, which drift of the machine leaves alone."""
    return statistics.median(times[left] / times[right] for times in kept)


def table(about, cells):
    """`cells`: (op, size, rounds) in order, where a round is (foreign CPU share, {library: seconds})."""
    names = list(about["versions"])
    ours = [name for name in names if name.startswith("smddp")]
    mpis = [name for name in names if name in about["mpis"]]
    hosts, megabits, limit = about["hosts"], about["megabits"], about["max_foreign"]
    lines = [
        f"# {about['ranks']} ranks on {hosts} host{'s' if hosts > 1 else ''}"
        + (f", {megabits} Mbit/s links" if hosts > 1 else ""),
        "",
        f"Hardware: {about['hardware']}. Versions: "
        + ", ".join(f"{name} ({version})" for name, version in about["versions"].items())
        + f". Started {about['started']}. float32, no pinning.",
        "",
        f"    {about['command']}",
        "",
        "Median microseconds per call of the slowest rank (first to third quartile) over the rounds in which other",
        f"processes took at most {limit:.0%} of the machine (`quiet rounds`; * none: all rounds are kept, read only the",
        "ratios). Bytes are those of the whole vector. `copy` is one core copying as many bytes in private memory.",
        "",
    ]
    columns = [*names, "copy"] + (["bound"] if hosts > 1 else [])
    lines.append(f"| op | size | {' | '.join(columns)} | quiet rounds |")
    lines.append("| --- " * (len(columns) + 3) + "|")
    for op, size, rounds in cells:
        kept, quiet = keep(rounds, limit)
        texts = []
        for name in [*names, "copy"]:
            low, middle, high = (1e6 * value for value in quartiles([times[name] for times in kept]))
            texts.append(f"{middle:.1f} ({low:.1f}–{high:.1f})")
        if hosts > 1:
            texts.append(f"{bound_seconds(op, size, hosts, megabits) * 1e6:.0f}")
        count = f"{len(kept)} of {len(rounds)}" if quiet else f"0 of {len(rounds)} *"
        lines.append(f"| {op} | {human(size)} | {' | '.join(texts)} | {count} |")

    lines += ["", "Ratios, medians over the rounds: how many times faster ours is than the other; the best MPI is"]
    lines += ["chosen by its median in that row.", ""]
    against = [name for name in names if name not in ours and name not in mpis] + (["best MPI"] if mpis else [])
    heads = [f"{mine} : {other}" for mine in ours for other in against]
    heads += [f"{mine} / bound" for mine in ours] if hosts > 1 else []
    lines.append(f"| op | size | {' | '.join(heads)} |")
    lines.append("| --- " * (len(heads) + 2) + "|")
    for op, size, rounds in cells:
        kept, _ = keep(rounds, limit)
        texts = []
        for mine in ours:
            for other in against:
                if other == "best MPI":
                    best = min(mpis, key=lambda name: statistics.median(times[name] for times in kept))
                    texts.append(f"{ratio_of(kept, best, mine):.2f} ({best})")
                else:
                    texts.append(f"{ratio_of(kept, other, mine):.2f}")
        for mine in ours if hosts > 1 else ():
            bound = bound_seconds(op, size, hosts, megabits)
            texts.append(f"{statistics.median(times[mine] for times in kept) / bound:.3f}")
        lines.append(f"| {op} | {human(size)} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def plot(about, cells):
    """Bus bandwidth over size, one panel per operation."""
    names = list(about["versions"])
    points = {}
    for op, size, rounds in cells:
        kept, _ = keep(rounds, about["max_foreign"])
        for name in names:
            seconds = statistics.median(times[name] for times in kept)
            points[op, size, name] = size / seconds * bus_factor(op, about["ranks"]) / 1e9
    ops = list(dict.fromkeys(op for op, _, _ in cells))
    width, height, margin = 330, 240, 45
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(ops)}" height="{height + 40}" '
        'font-family="sans-serif" font-size="10">'
    ]
    for panel, op in enumerate(ops):
        sizes = sorted({size for other, size, _ in points if other == op})
        top = max(value for (other, _, _), value in points.items() if other == op) * 1.05
        left = panel * width

        def x_of(size):
            return left + margin + (width - margin - 15) * sizes.index(size) / max(1, len(sizes) - 1)

        def y_of(value):
            return height - 25 - (height - 50) * value / top

        parts.append(f'<text x="{left + margin}" y="15" font-size="12">{op}, bus GB/s</text>')
        for size in sizes:
            parts.append(f'<text x="{x_of(size) - 12:.0f}" y="{height - 8}">{human(size).replace(" ", "")}</text>')
        for i in range(5):
            y = y_of(top * i / 4)
            parts.append(f'<text x="{left + 5}" y="{y:.0f}">{top * i / 4:.2f}</text>')
            parts.append(f'<line x1="{left + margin}" x2="{left + width - 15}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        for number, name in enumerate(names):
            line = " ".join(f"{x_of(size):.1f},{y_of(points[op, size, name]):.1f}" for size in sizes)
            colour = COLOURS[number % len(COLOURS)]
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
            if panel == 0:
                parts.append(f'<text x="{20 + number * 130}" y="{height + 25}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
