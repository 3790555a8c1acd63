"""Load for a running service, by wrk (Debian: apt-get install wrk): each connection steps sessions in turn, as fast as
the answers come. Reports requests per second, p50 and p99. Run: `python examples/http_service/loadtest.py --help`."""

import argparse
import json
import os
import struct
import subprocess
import tempfile
import urllib.request

LUA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "step.lua")


def call(method: str, url: str) -> dict[str, object]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
        text = answer.read()
    return dict(json.loads(text)) if text else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000", help="of one worker")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="JSON in place of binary")
    args = parser.parse_args()

    features = call("GET", f"{args.url}/model")["features"]
    row = [0.1 * i for i in range(features)] if isinstance(features, int) else 0
    if args.json:
        kind, body = "application/json", json.dumps({"x": row}).encode()
    else:
        kind = "application/octet-stream"
        body = struct.pack(f"<{len(row)}f", *row) if isinstance(row, list) else struct.pack("<i", row)
    ids = [str(call("POST", f"{args.url}/sessions")["id"]) for _ in range(args.sessions)]
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command = ["wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}s", "-s", LUA, args.url, "--"]
        out = subprocess.run([*command, kind, file.name, *ids], capture_output=True, text=True, check=True).stdout
    for key in ids:
        call("DELETE", f"{args.url}/sessions/{key}")
    r = json.loads(out.splitlines()[-1])
    print(
        f"{'JSON' if args.json else 'binary'}, {args.connections} connections, {args.sessions} sessions: "
        f"{r['requests'] / r['seconds']:,.0f} requests/s, p50 {r['p50_us'] / 1e3:.2f} ms, "
        f"p99 {r['p99_us'] / 1e3:.2f} ms, max {r['max_us'] / 1e3:.2f} ms, {r['failed']} failed"
    )
    if r["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
