"""A suite of the sizes that the finance industry's LSTM benchmark is reported for: stacks of 2 x 128, 3 x 256 and
3 x 480 units over as many features, answered anew with each new row. README.md says what others publish.

    python bench/finance.py [--threads N …] [--precision NAME …] [--steps N] [--window N] [--json FILE]

`stream`: the states are carried over, so a new row is one step. `window`: they are not; the answer is that of the last
--window rows, run from zero states (a hundredth of --steps times). Either is timed as a service in Python meets it,
with out=, the clock included. No percentile is given that fewer than one call lies beyond.
`max error` is the largest difference of the stream's outputs from the NumPy float64 reference of tests/.
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
ROWS = 200  # of input, again and again
CHECKED = 100  # of them beside the reference


def measure(call, arguments, times):
    """Microseconds of each of so many calls, after a tenth of them."""
    clock, result = time.perf_counter_ns, []
    for k in range(-times // 10, times):
        argument = arguments[k % len(arguments)]
        start = clock()
        call(argument)
        if k >= 0:
            result.append(clock() - start)
    return np.array(result) / 1e3


def percentiles(times):
    """p50, p99, p99.9; None where there are too few times to tell."""
    enough = {q: len(times) * (100 - q) >= 100 for q in (50, 99, 99.9)}
    return {f"p{q:g}": float(np.percentile(times, q)) if enough[q] else None for q in enough}


def build(depth, units, rows):
    """The model, and what the reference answers to the first rows."""
    stack = [layers.LSTM(units, return_sequences=True) for _ in range(depth)]
    model = Sequential([layers.Input((None, units)), *stack])
    description = {
        "input": {"shape": [None, None, units], "dtype": "float32"},
        "layers": [{"class_name": "LSTM", "config": {"units": units, "return_sequences": True}}] * depth,
    }
    reference = Reference(description)
    reference.set_weights(model.get_weights())
    return model, reference.forward(rows[np.newaxis, :CHECKED])[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--precision", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--steps", type=int, default=20000, help="of each stream")
    parser.add_argument("--window", type=int, default=100, help="rows; 0: leave these out")
    parser.add_argument("--json", help="also write the numbers here")
    args = parser.parse_args()
    rng, results = np.random.default_rng(0), []
    for depth, units in SIZES:
        rows = rng.standard_normal((ROWS + args.window, units), "f4")
        windows = [rows[k : k + args.window] for k in range(ROWS)]
        model, exact = build(depth, units, rows)
        for precision in args.precision:
            for threads in args.threads:
                seqcore.set_num_threads(threads)
                stream, out = model.stream(precision, threads), np.empty(units, "f4")
                error = float(np.abs(stream.run(rows[:CHECKED]) - exact).max())
                what = {"model": f"{depth} x {units}", "precision": precision, "threads": threads}
                times = measure(lambda row, step=stream.step, out=out: step(row, out), list(rows), args.steps)
                results.append({**what, "by": "stream", **percentiles(times), "max error": error})
                if not args.window:
                    continue
                outs = np.empty((args.window, units), "f4")

                def slide(window, stream=stream, outs=outs):
                    stream.reset()
                    stream.run(window, outs)

                times = measure(slide, windows, max(args.steps // 100, 2))
                results.append({**what, "by": f"window of {args.window}", **percentiles(times), "max error": None})
    print(f"us an answer from Python, seqcore {seqcore.__version__}\n")
    print(tabulate(results, headers="keys", tablefmt="github", floatfmt=("", "", "", "", ".2f", ".2f", ".2f", ".1e")))
    if args.json:
        Path(args.json).write_text(json.dumps({"unit": "us", **seqcore.show_config(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
