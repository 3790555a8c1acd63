"""A suite of the sizes that the finance industry's LSTM benchmark is reported for: stacks of 2 x 128, 3 x 256 and
3 x 480 units over as many features, one new row at a time, the state carried over. README.md has what others publish.

    python bench/finance.py [--threads N] [--steps N] [--json FILE]

A step is timed as a service in Python meets it, with out=, the clock included. The error is the largest difference from
the NumPy float64 reference of tests/ over the first rows.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

import seqcore
from seqcore import Sequential, layers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from reference.model import Model as Reference

SIZES = [(2, 128), (3, 256), (3, 480)]
PRECISIONS = ["float32", "bfloat16", "int8"]
CHECKED = 50  # rows beside the reference


def measure(stream, rows, steps):
    """Microseconds of each of so many steps, after a tenth of them."""
    out, clock, times = np.empty(stream.outputs, "f4"), time.perf_counter_ns, []
    for k in range(-steps // 10, steps):
        row = rows[k % len(rows)]
        start = clock()
        stream.step(row, out)
        if k >= 0:
            times.append(clock() - start)
    return np.array(times) / 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--json", help="also write the numbers here")
    args = parser.parse_args()
    rng, results = np.random.default_rng(0), []
    for depth, units in SIZES:
        stack = [layers.LSTM(units, return_sequences=True) for _ in range(depth)]
        model = Sequential([layers.Input((None, units)), *stack])
        rows = [rng.standard_normal(units).astype("f4") for _ in range(200)]
        description = {
            "input": {"shape": [None, None, units], "dtype": "float32"},
            "layers": [{"class_name": "LSTM", "config": {"units": units, "return_sequences": True}}] * depth,
        }
        reference = Reference(description)
        reference.set_weights(model.get_weights())
        exact = reference.forward(np.stack(rows[:CHECKED])[np.newaxis])[0]
        for precision in PRECISIONS:
            stream = model.stream(precision, args.threads)
            error = float(np.abs(stream.run(np.stack(rows[:CHECKED])) - exact).max())
            times = measure(stream, rows, args.steps)
            quantiles = {f"p{q:g}": float(np.percentile(times, q)) for q in (50, 99, 99.9)}
            results.append({"model": f"{depth} x {units}", "precision": precision, **quantiles, "max error": error})
    print(f"us a step from Python, {args.threads} thread(s), seqcore {seqcore.__version__}\n")
    print(tabulate(results, headers="keys", tablefmt="github", floatfmt=("", "", ".2f", ".2f", ".2f", ".1e")))
    if args.json:
        Path(args.json).write_text(json.dumps({"threads": args.threads, "unit": "us", "results": results}, indent=1))


if __name__ == "__main__":
    main()
