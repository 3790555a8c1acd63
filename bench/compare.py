"""seqcore beside its peers, both sides in one run: a Markdown table of medians and ratios.

    python bench/compare.py [--threads N] [--rows TEXT …] [--case "KIND CELL ACTIVATION I H B T OUTPUTS" …]
                            [--peers NAME …] [--turns N] [--seconds S] [--json FILE] [--markdown FILE] [--plot FILE]

Every peer that is installed takes part. A turn is one process per peer, one after the other; turns are repeated, so
that all meet the same machine. Within a turn the median of the calls counts, over the turns the median of those.
Where peers infer, they have the same weights and data, and it is an error if the last step's output is another.
A row is one line of ROWS, or a case of your own; who takes part is in peers.py.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from statistics import median

import numpy as np
from peers import CELLS, PEERS

# kind, cell, activation, I, H, batch, T, outputs
ROWS = [
    ("epoch", "rnn", "relu", 8, 64, 64, 10, 2),  # the tutorial: fit on 1000 x 10 x 8
    ("epoch", "lstm", "relu", 8, 64, 64, 10, 2),
    ("train", "rnn", "relu", 8, 64, 64, 10, 2),
    ("train", "lstm", "relu", 8, 64, 64, 10, 2),
    ("train", "lstm", "tanh", 8, 64, 64, 10, 2),
    ("train", "gru", "tanh", 64, 128, 64, 50, 10),
    ("train", "lstm", "tanh", 64, 256, 32, 100, 10),
    ("train", "lstm", "tanh", 128, 512, 64, 50, 64),
    ("infer", "lstm", "tanh", 8, 64, 1, 10, 0),
    ("infer", "lstm", "tanh", 64, 256, 1, 100, 0),
    ("infer", "lstm", "tanh", 8, 64, 64, 10, 0),
    ("infer", "lstm", "tanh", 64, 256, 32, 100, 0),
    ("run", "lstm", "tanh", 8, 64, 1, 10, 0),
    ("run", "lstm", "tanh", 64, 256, 1, 100, 0),
    ("step", "lstm", "tanh", 8, 16, 1, 1, 0),
    ("step", "lstm", "tanh", 8, 32, 1, 1, 0),
    ("step", "lstm", "tanh", 8, 64, 1, 1, 0),
    ("step", "lstm", "tanh", 13, 33, 1, 1, 0),
    ("step", "lstm", "tanh", 13, 100, 1, 1, 0),
    ("step", "lstm", "tanh", 64, 256, 1, 1, 0),
    ("step", "lstm", "tanh", 512, 512, 1, 1, 0),
    ("step", "lstm", "tanh", 512, 1024, 1, 1, 0),
    ("step", "gru", "tanh", 40, 200, 1, 1, 0),
    ("step", "gru", "tanh", 64, 128, 1, 1, 0),
    ("step", "rnn", "tanh", 8, 64, 1, 1, 0),
]

KINDS = {row[0] for row in ROWS}


def case(text):
    """A row of the words of --case: the columns of ROWS. OUTPUTS, of the last Dense layer, only for epoch and train."""
    words = text.split()
    kind, cell, activation, *sizes = words + [""] * (3 - len(words)) + ["0"] * (len(words) == 7)
    if kind not in KINDS or cell not in CELLS:
        kinds, cells = ", ".join(sorted(KINDS)), ", ".join(CELLS)
        raise argparse.ArgumentTypeError(f"{text!r}: expected a kind of {kinds} and a cell of {cells}")
    if len(sizes) != 5 or not all(size.isdigit() for size in sizes) or "0" in sizes[:4]:
        raise argparse.ArgumentTypeError(f"{text!r}: expected I H B T, and OUTPUTS of a last Dense layer, as numbers")
    sizes = [int(size) for size in sizes]
    if (sizes[4] > 0) != (kind in ("epoch", "train")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected OUTPUTS for epoch and train, and only there")
    return kind, cell, activation, *sizes


def label(row):
    kind, cell, activation, i, h, b, t, _ = row
    return f"{kind} {CELLS[cell]} {activation} {i}→{h} B{b} T{t}"


def work(peer, rows, threads, seconds):
    """One turn of one peer, in its own process: prints {row label: [median microseconds, output]} as the last line."""
    runner, result = PEERS[peer](threads), {}
    for row in rows:
        timed = getattr(runner, row[0])(*row[1:])
        if timed is None:
            continue
        call, divisor = timed
        output = np.ravel(call())[-row[4] :].tolist() if row[0] in ("infer", "run", "step") else []
        call()
        times, end = [], time.perf_counter() + seconds
        while len(times) < 3 or (time.perf_counter() < end and len(times) < 20000):
            start = time.perf_counter_ns()
            call()
            times.append((time.perf_counter_ns() - start) / 1e3 / divisor)
        result[label(row)] = median(times), output
    print(json.dumps(result))


def processor():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())


def compare(args, rows):
    peers = [name for name in PEERS if not args.peers or name in args.peers or name.startswith("seqcore")]
    peers = [name for name in peers if all(importlib.util.find_spec(module) for module in PEERS[name].modules)]
    peers = [name for name in peers if any(PEERS[name].offers(row[0]) for row in rows)]
    times, expected = {name: {label(row): [] for row in rows} for name in peers}, {}
    for _ in range(args.turns):
        for name in peers:
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": PEERS[name].backend}
            if args.threads:
                environment["OMP_NUM_THREADS"] = str(args.threads)
            command = [sys.executable, __file__, "--worker", name, *sys.argv[1:]]
            run = subprocess.run(command, env=environment, capture_output=True, text=True)
            if run.returncode:
                raise SystemExit(f"{name} failed:\n{run.stderr}")
            for row, (value, output) in json.loads(run.stdout.splitlines()[-1]).items():
                times[name][row].append(value)
                error = np.abs(np.subtract(output, expected.setdefault(row, output))).max(initial=0)
                if not error <= PEERS[name].tolerance:
                    raise SystemExit(f"{name}, {row}: outputs differ from {peers[0]}'s by {error:.2g}")
    medians = {name: {row: median(values) for row, values in each.items() if values} for name, each in times.items()}
    medians = {name: each for name, each in medians.items() if each}

    result = {
        "processor": processor(), "cores": len(os.sched_getaffinity(0)), "threads": args.threads or "default",
        "versions": {name: metadata.version(PEERS[name].package) for name in medians}, "us": medians,
    }  # fmt: skip
    print(table(result))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(result, file, indent=1)
    if args.markdown:
        with open(args.markdown, "w") as file:
            file.write(table(result))
    if args.plot:
        plot(result, args.plot)


def table(result):
    """Markdown: a row per case, a column per peer with how many times seqcore's time it needs (float32), and how many
    times each of seqcore's times the best other peer needs."""
    peers, own = list(result["us"]), result["us"]["seqcore"]
    ours = [name for name in peers if name.startswith("seqcore")]
    lines = [
        f"{result['processor']}, {result['cores']} cores, threads: {result['threads']}; µs, and times seqcore's",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "",
        "| case | " + " | ".join(peers) + " | best other peer |",
        "|---" * (len(peers) + 2) + "|",
    ]
    for row, time_us in own.items():
        others = [result["us"][name].get(row) for name in peers[1:]]
        cells = [f"{us:,.4g} ({us / time_us:.2g}x)" if us else "" for us in others]
        rivals = [(us, name) for us, name in zip(others, peers[1:], strict=True) if us and name not in ours]
        best, name = min(rivals, default=(0, ""))
        ratios = [f"{best / result['us'][each][row]:.2g}x" for each in ours if best and row in result["us"][each]]
        cells.append(f"{name} {' · '.join(ratios)}".strip())
        lines.append(f"| {row} | {time_us:,.4g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(result, path):
    """A row of bars per case: how many times seqcore's time each peer needs."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install 'seqcore[compare]'") from None
    own = result["us"]["seqcore"]
    peers = [name for name in result["us"] if name != "seqcore"]
    figure = Figure(figsize=(9, 1 + 0.16 * len(own) * (len(peers) + 1)), layout="constrained")
    axes = figure.subplots()
    height = 0.9 / max(len(peers), 1)
    for k, name in enumerate(peers):
        bars = [(y + k * height, us / own[row]) for y, row in enumerate(own) if (us := result["us"][name].get(row))]
        axes.barh([y for y, _ in bars], [ratio for _, ratio in bars], height, label=name)
    axes.set_yticks([y + 0.4 for y in range(len(own))], list(own))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("times seqcore's time, float32")
    axes.set_title(f"{result['processor']}, threads: {result['threads']}")
    figure.legend(loc="outside lower center", ncols=4)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0, help="of every peer; default: what each takes by itself")
    parser.add_argument("--rows", nargs="*", default=[], help="only rows whose label contains all these words")
    cases = "of your own instead: 'train gru tanh 13 96 24 50 5', 'infer lstm tanh 13 96 24 50'"
    parser.add_argument("--case", nargs="*", type=case, default=[], metavar="CASE", help=cases)
    parser.add_argument("--peers", nargs="*", default=[], help=f"beside seqcore, of {', '.join(PEERS)}; default: all")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="per row and turn")
    parser.add_argument("--json", help="also write the numbers here")
    parser.add_argument("--markdown", help="also write the table here")
    parser.add_argument("--plot", help="also draw the ratios here (.png, .svg, .pdf)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rows = args.case or [row for row in ROWS if all(word in label(row) for word in args.rows)]
    if not rows:
        parser.error(f"--rows: no case has all of {args.rows}; there are {', '.join(map(label, ROWS))}")
    if args.worker:
        work(args.worker, rows, args.threads, args.seconds)
    else:
        compare(args, rows)


if __name__ == "__main__":
    main()
