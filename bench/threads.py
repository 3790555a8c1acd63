"""seqcore with one thread and with several, in turn, in one process: alone, then beside a process that is busy.

    python bench/threads.py [--threads N] [--rows TEXT …] [--case "KIND CELL ACTIVATION I H B T OUTPUTS" …] [--turns N]
                            [--seconds S]

The rows are compare.py's train and infer, or cases of your own. Each number is the median over the turns of each turn's
median; gain is what the threads bring, below 1 what they cost. Beside the busy process one thread has a core that it
leaves alone.
"""

import argparse
import os
import subprocess
import sys
import time
from statistics import median

from compare import ROWS, case, label
from peers import PEERS

import seqcore


def timed(call, seconds):
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def compare(row, threads, turns, seconds):
    """Median seconds of the row with one thread and with `threads`."""
    call, _ = getattr(PEERS["seqcore"](threads), row[0])(*row[1:])
    times = {1: [], threads: []}
    for _ in range(turns):
        for n in times:
            seqcore.set_num_threads(n)
            call()
            times[n].append(timed(call, seconds))
    return median(times[1]), median(times[threads])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=max(2, os.cpu_count() or 2))
    parser.add_argument("--rows", nargs="*", default=[], help="only rows whose label contains all these words")
    parser.add_argument("--case", nargs="*", type=case, default=[], help="of your own instead, as compare.py's")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="per row, number of threads and turn")
    args = parser.parse_args()
    rows = args.case or [r for r in ROWS if all(word in label(r) for word in args.rows)]
    rows = [r for r in rows if r[0] in ("train", "infer")]
    print(f"| case | 1 thread, ms | {args.threads} threads | gain | 1, a core busy | {args.threads} | gain |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        quiet = compare(row, args.threads, args.turns, args.seconds)
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            busy = compare(row, args.threads, args.turns, args.seconds)
        finally:
            other.kill()
            other.wait()
        cells = (f"{1e3 * one:.3g} | {1e3 * several:.3g} | {one / several:.2f}x" for one, several in (quiet, busy))
        print(f"| {label(row)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
