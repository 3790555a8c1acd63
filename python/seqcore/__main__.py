"""The command line: `python -m seqcore` or `seqcore`."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from . import __version__, _engine, models
from ._serving import Stream

_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


def cmake_dir() -> str:
    """The folder that CMake's seqcore_DIR names; FileNotFoundError where the installation has none."""
    path = os.path.join(_engine.library_folder(), "lib", "cmake", "seqcore")
    if not os.path.isdir(path):
        raise FileNotFoundError(f"this installation has no C and C++ library: no {path}")
    return path


def _floor_table(model: models.Sequential) -> str:
    rows = []
    for precision in _engine.PRECISIONS:
        size = model.stream(precision).weight_bytes
        rows.append([precision, f"{size:,}", _engine.measure_read(max(size, 1)) * 1e6])
    head = ["precision", "bytes of weights a step", "floor, us"]
    return tabulate(rows, head, floatfmt=".2f", disable_numparse=[1], colalign=["left", "right", "right"])


def info(path: str) -> None:
    """Prints a file's layers and sizes, and the floor of a step on this machine: the time to read its weights once."""
    model = models.load_model(path, compile=False)
    print(f"{path}: {os.path.getsize(path):,} bytes")
    model.summary()
    try:
        print(_floor_table(model))
    except ValueError as error:
        print(f"No stream: {error}")


def convert(path: str, to: str, compile: bool) -> None:
    """Writes a model of Keras's or seqcore's as seqcore's own file, which C and C++ read too, or as Keras's."""
    models.load_model(path, compile=compile).save(to)


def export(path: str, to: str) -> None:
    """Writes a model of seqcore's or Keras's as an ONNX file."""
    models.load_model(path, compile=False).export(to, format="onnx", verbose=False)


def measure(stream: Stream, seconds: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The times of single steps through Python, in us: `seconds` of them after a tenth of that as a warm-up."""
    random = np.random.default_rng(0)
    rows: Sequence[Any]
    if stream.features is None:
        rows = [0] * 64
    else:
        rows = list(random.standard_normal((64, stream.features)).astype(np.float32))
    out = np.empty(stream.outputs, np.float32)
    step, clock = stream.step, time.perf_counter_ns
    times: list[int] = []
    begin = clock()
    warm, end = begin + int(seconds * 1e8), begin + int(seconds * 1.1e9)
    while (now := clock()) < end or not times:
        if now < warm:
            times.clear()
        for row in rows:
            start = clock()
            step(row, out)
            times.append(clock() - start)
    return np.array(times) / 1e3


def _histogram(times: np.ndarray[Any, np.dtype[np.float64]], width: int = 50) -> str:
    """Counts by time, on a logarithmic scale up to the maximum."""
    low, high = max(times.min(), 1e-3), max(times.max(), 2e-3)
    bins = max(4, min(24, math.ceil(math.log(high / low) / math.log(1.25))))
    edges = np.geomspace(low, high, bins + 1)
    counts, _ = np.histogram(times.clip(low, high), edges)
    scale = width / math.log1p(counts.max())
    lines = [
        f"{left:>10.2f} us  {'█' * max(1, round(math.log1p(n) * scale))} {n:,}"
        for left, n in zip(edges[:-1], counts, strict=True)
        if n
    ]
    return "\n".join([*lines, "(bars: logarithm of the count)"])


def bench(path: str, precisions: Sequence[str], threads: int, seconds: float, as_json: bool) -> None:
    """Times single steps of a model as a stream, called from Python with `out=`, the call and the clock included."""
    model = models.load_model(path, compile=False)
    results = []
    for precision in precisions:
        stream = model.stream(precision, threads)
        times = measure(stream, seconds)
        row = {name: float(np.percentile(times, q)) for name, q in _PERCENTILES.items()}
        floor = _engine.measure_read(max(stream.weight_bytes, 1)) * 1e6
        results.append({"precision": precision, "steps": len(times), **row, "floor": floor})
        if not as_json:
            print(f"{precision}\n{_histogram(times)}\n")
    if as_json:
        print(json.dumps({**_engine.show_config(), "file": path, "threads": threads, "unit": "us", "results": results}))
    else:
        print("One step, us (floor: one thread reads the weights once)")
        print(tabulate(results, headers="keys", floatfmt=".2f"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0, or 1 with a message on standard error."""
    parser = argparse.ArgumentParser(prog="seqcore", description="Recurrent networks on CPUs.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--cmakedir", action="store_true", help="print the folder for CMake's -Dseqcore_DIR=")
    commands = parser.add_subparsers(dest="command", metavar="{info,bench,convert,export}")
    about = commands.add_parser("info", help=info.__doc__, description=info.__doc__)
    timing = commands.add_parser("bench", help=bench.__doc__, description=bench.__doc__)
    converting = commands.add_parser("convert", help=convert.__doc__, description=convert.__doc__)
    exporting = commands.add_parser("export", help=export.__doc__, description=export.__doc__)
    for command in (about, timing, converting, exporting):
        command.add_argument("file", help="a model saved by seqcore, ….safetensors, or by Keras, ….keras or ….h5")
    converting.add_argument("to", help="the file to write, ….safetensors or ….keras")
    exporting.add_argument("to", help="the file to write, ….onnx")
    converting.add_argument("--no-compile", action="store_true", help="without optimizer, loss and metrics")
    timing.add_argument("--precision", action="append", choices=_engine.PRECISIONS, help="default: each")
    timing.add_argument("--threads", type=int, default=1)
    timing.add_argument("--seconds", type=float, default=1.0, help="for each precision (default: 1)")
    timing.add_argument("--json", action="store_true", help="print JSON instead of tables")
    given = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # bars and paths, whatever the terminal's encoding
    try:
        if given.cmakedir:
            print(cmake_dir())
        elif given.command == "info":
            info(given.file)
        elif given.command == "convert":
            convert(given.file, given.to, not given.no_compile)
        elif given.command == "export":
            export(given.file, given.to)
        elif given.command == "bench":
            if not 0 < given.seconds < math.inf:
                raise ValueError(f"--seconds: expected a positive number, got {given.seconds}")
            bench(given.file, given.precision or _engine.PRECISIONS, given.threads, given.seconds, given.json)
        else:
            parser.print_help()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, OSError, ValueError) as error:
        print(f"seqcore: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
