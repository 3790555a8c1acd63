"""The HTTP service of examples/http_service: bits of `predict` over HTTP, refusals, limits, and real processes."""

import asyncio
import concurrent.futures
import contextlib
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest

from seqcore import layers, models
from support import ROOT, prefixes, same_bits

FOLDER = os.path.join(ROOT, "examples", "http_service")
BINARY, FEATURES = {"content-type": "application/octet-stream"}, 3
RNG = np.random.default_rng(0)


def load(name):
    spec = importlib.util.spec_from_file_location(f"http_{name}", os.path.join(FOLDER, f"{name}.py"))
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


service = load("service")


class Client:
    """A client of the application in this process, or, by `url`, of another one."""

    def __init__(self, app=None, url="http://app"):
        self.runner = asyncio.new_event_loop()
        transport = httpx.ASGITransport(app) if app else None
        self.http = httpx.AsyncClient(transport=transport, base_url=url, timeout=30, trust_env=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait(self.http.aclose())
        self.runner.run_until_complete(self.runner.shutdown_default_executor())
        self.runner.close()

    def wait(self, awaitable):
        return self.runner.run_until_complete(awaitable)

    def __call__(self, method, path, **arguments):
        return self.wait(self.http.request(method, path, **arguments))

    def ok(self, method, path, status=200, **arguments):
        answer = self(method, path, **arguments)
        assert answer.status_code == status, (answer.status_code, answer.text)
        return answer

    def session(self):
        return f"/sessions/{self.ok('POST', '/sessions', 201).json()['id']}"

    def json(self, path, x):
        return np.array(self.ok("POST", path, json={"x": np.asarray(x).tolist()}).json()["y"], np.float32)

    def binary(self, path, x):
        answer = self.ok("POST", path, content=np.asarray(x).tobytes(), headers=BINARY)
        assert answer.headers["content-type"] == BINARY["content-type"]
        return np.frombuffer(answer.content, np.float32)

    def refused(self, status, match, method, path, **arguments):
        answer = self(method, path, **arguments)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
        assert re.search(match, answer.json()["error"]), answer.text


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model and its file."""
    model = models.Sequential([
        layers.Input((None, FEATURES)),
        layers.LSTM(16, return_sequences=True),
        layers.GRU(5, return_sequences=True),
        layers.Dense(2),
    ])
    path = str(tmp_path_factory.mktemp("http") / "model.safetensors")
    model.save(path)
    return model, path


@pytest.fixture
def client(made):
    with Client(service.create_app(made[1])) as client:
        yield client


def rows(steps):
    return RNG.normal(size=(steps, FEATURES)).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------- in process


def test_sessions_are_independent_and_give_the_bits_of_predict(made, client):
    xs = [rows(9) for _ in range(4)]
    paths = [client.session() for _ in xs]
    forms = [client.json, client.binary] * 2
    answers = [[form(f"{path}/step", x[t]) for path, form, x in zip(paths, forms, xs)] for t in range(4)]
    blocks = [form(f"{path}/run", x[4:]).reshape(5, -1) for path, form, x in zip(paths, forms, xs)]
    for i, x in enumerate(xs):
        assert same_bits(np.stack([*(a[i] for a in answers), *blocks[i]]), prefixes(made[0], x))
    assert client.ok("GET", "/health").json() == {"status": "ok", "sessions": 4, "process": os.getpid()}


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_precisions(made, precision):
    with Client(service.create_app(made[1], precision)) as client:
        x = rows(5)
        assert same_bits(client.binary(client.session() + "/run", x).reshape(5, -1),
                         prefixes(made[0], x, precision=precision))  # fmt: skip
        assert client.ok("GET", "/model").json()["precision"] == precision


def test_ids_are_numbers_in_json_and_int32_in_binary(tmp_path):
    model = models.Sequential([layers.Embedding(7, 3, input_shape=(None,)), layers.LSTM(5, return_sequences=True)])
    model.save(tmp_path / "words.safetensors")
    ids = np.array([3, 0, 6, 6, 1], np.int32)
    with Client(service.create_app(str(tmp_path / "words.safetensors"))) as client:
        for form in (client.json, client.binary):
            path = client.session()
            answers = [form(f"{path}/step", i) for i in ids[:2]]
            answers = [*answers, *form(f"{path}/run", ids[2:]).reshape(3, -1)]
            assert same_bits(np.stack(answers), prefixes(model, ids))
        path = client.session()
        client.refused(400, r"expected an id in \[0, 7\), got 7", "POST", f"{path}/step", json={"x": 7})
        client.refused(400, "integer", "POST", f"{path}/step", json={"x": 0.5})
        client.refused(400, "expected one id", "POST", f"{path}/step", content=ids.tobytes(), headers=BINARY)
        described = client.ok("GET", "/model").json()
        assert (described["input"], described["features"], described["outputs"]) == ("int32", None, 5)


def test_what_is_refused_is_told_and_changes_nothing(made, client):
    path, x = client.session(), rows(2)
    first = client.json(f"{path}/step", x[0])
    for how in ("step", "run"):
        bad = f"{path}/{how}"
        client.refused(400, "expected shape", "POST", bad, json={"x": [1.0, 2.0]})
        client.refused(400, "expected real numbers|expected an array", "POST", bad, json={"x": ["a", None, 10**400]})
        client.refused(400, "expected a JSON object", "POST", bad, json=[1.0])
        client.refused(400, "expected a JSON object", "POST", bad, json={"x": [1, 2, 3], "y": 1})
        client.refused(400, "nested too deeply", "POST", bad, content=b"[" * 100_000,
                       headers={"content-type": "application/json; charset=utf-8"})  # fmt: skip
        for text, match in ((b'{"x": [1, NaN, 2]}', "NaN"), (b"{", "Expecting"), (b"\xff\xfe\x00", ""), (b"", "")):
            client.refused(400, match, "POST", bad, content=text, headers={"content-type": "application/json"})
        client.refused(400, "expected 4 bytes", "POST", bad, content=b"12345", headers=BINARY)
        client.refused(400, "expected", "POST", bad, content=bytes(4 * FEATURES + 4), headers=BINARY)
        client.refused(415, "Content-Type", "POST", bad, data={"x": 1})
        client.refused(404, "no session 'nobody'", "POST", f"/sessions/nobody/{how}", json={"x": [1]})
        client.refused(405, "", "GET", bad)
    client.refused(400, "expected shape", "POST", f"{path}/step", content=b"", headers=BINARY)
    assert client.binary(f"{path}/run", rows(0)).size == 0  # a block of no steps
    client.refused(404, "", "GET", "/nothing")
    assert same_bits(np.stack([first, client.json(f"{path}/step", x[1])]), prefixes(made[0], x))
    client.ok("DELETE", path, 204)
    client.refused(404, "no session", "DELETE", path)


def test_what_json_cannot_say_is_null(client):
    x = np.full(FEATURES, np.nan, np.float32)
    assert np.isnan(client.binary(client.session() + "/step", x)).all()
    path = client.session()
    client.binary(f"{path}/step", x)
    assert client.ok("POST", f"{path}/step", json={"x": [0.0] * FEATURES}).json() == {"y": [None, None]}


def test_a_state_moves_to_another_process(made):
    x, here, there = rows(6), *(Client(service.create_app(made[1])) for _ in range(2))
    with here, there:
        old, new = here.session(), there.session()
        here.json(f"{old}/run", x[:3])
        state = here.ok("GET", f"{old}/state").content
        assert len(state) == here.ok("GET", "/model").json()["state_bytes"] == 4 * (16 + 16 + 5)
        there.ok("PUT", f"{new}/state", 204, content=state, headers=BINARY)
        expected = prefixes(made[0], x)[3:]
        assert same_bits(there.json(f"{new}/run", x[3:]), expected)
        there.refused(400, "expected 37 values, got 36", "PUT", f"{new}/state", content=state[4:], headers=BINARY)
        there.refused(415, "Content-Type", "PUT", f"{new}/state", json={})
        assert same_bits(here.json(f"{old}/run", x[3:]), expected)


def test_bounds(made):
    limits, clock = service.Limits(sessions=2, idle_seconds=10, body_bytes=4000, reply_bytes=800), Clock()
    with Client(service.create_app(made[1], limits=limits, clock=clock)) as client:
        first, second = client.session(), client.session()
        client.refused(503, "2 sessions", "POST", "/sessions")
        clock.now = 8
        client.binary(f"{first}/step", rows(1))
        clock.now = 15  # the second was idle for 15 s, the first for 7
        third = client.session()
        client.refused(404, "idle for too long", "GET", f"{second}/state")
        client.binary(f"{first}/run", rows(100))
        client.refused(413, "at most 100 steps in a block, got 101", "POST", f"{third}/run",
                       content=rows(101).tobytes(), headers=BINARY)  # fmt: skip
        client.refused(413, "at most 4000 bytes", "POST", f"{third}/run", content=bytes(4001), headers=BINARY)

        async def pieces():
            for _ in range(50):
                yield bytes(100)

        client.refused(413, "at most 4000 bytes", "POST", f"{third}/run", content=pieces(), headers=BINARY)
        clock.now = 26
        assert client.ok("GET", "/health").json()["sessions"] == 0


def test_one_session_at_the_same_time_is_a_conflict(made):
    """A long block runs beside the event loop: other sessions are answered meanwhile, its own is refused."""
    limits = service.Limits(body_bytes=1 << 24, reply_bytes=1 << 24)
    with Client(service.create_app(made[1], limits=limits)) as client:
        path, other, x = client.session(), client.session(), rows(200_000)

        async def both():
            block = asyncio.ensure_future(client.http.post(f"{path}/run", content=x.tobytes(), headers=BINARY))
            refused, answered = [], 0
            while not block.done():
                await asyncio.sleep(0)
                one = await client.http.get(f"{path}/state")
                if one.status_code == 409:
                    refused.append(one.json()["error"])
                answered += (await client.http.get(f"{other}/state")).status_code == 200
            return block.result(), refused, answered

        block, refused, answered = client.wait(both())
        assert block.status_code == 200 and len(block.content) == 8 * len(x)
        assert refused and answered >= len(refused) and "in use" in refused[0]
        assert same_bits(np.frombuffer(block.content, np.float32).reshape(-1, 2), prefixes(made[0], x))


def test_a_missing_or_unfit_model_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("SEQCORE_MODEL", raising=False)
    with pytest.raises(RuntimeError, match="SEQCORE_MODEL"):
        service.create_app()
    model = models.Sequential([layers.Input((None, 2)), layers.Bidirectional(layers.LSTM(3))])
    model.save(tmp_path / "both.safetensors")
    with pytest.raises(ValueError, match="Bidirectional"):
        service.create_app(str(tmp_path / "both.safetensors"))


def test_training_script(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path / "m.safetensors"), "--epochs", "1"])
    train = load("train")
    train.main()
    train.main()  # tries the file that is there
    assert capsys.readouterr().out.count("held-out") == 2
    with Client(service.create_app(str(tmp_path / "m.safetensors"))) as client:
        assert client.json(client.session() + "/step", [0.1] * 8).shape == (8,)


# ------------------------------------------------------------------------------------------------------ real processes


@contextlib.contextmanager
def serving(tmp_path, path, *command):
    """A server on a free port: (its process, its address). Killed at the end if need be."""
    log = tmp_path / "log"
    environment, command = {**os.environ, "SEQCORE_MODEL": path}, [sys.executable, "-m", *command]
    with open(log, "w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=FOLDER)
    try:
        end = time.monotonic() + 30
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        yield process, found[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) in (0, -signal.SIGTERM), log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def test_uvicorn_serves_many_clients_and_ends_on_sigterm(made, tmp_path):
    command = ["uvicorn", "--factory", "service:create_app", "--port", "0"]
    with serving(tmp_path, made[1], *command) as (_, url):

        def client_of(x):
            with Client(url=url) as client:
                path = client.session()
                steps = [client.json(f"{path}/step", row) for row in x[:10]]
                return np.stack([*steps, *(client.binary(f"{path}/step", row) for row in x[10:])])

        xs = [rows(20) for _ in range(6)]
        with concurrent.futures.ThreadPoolExecutor(len(xs)) as pool:
            answers = list(pool.map(client_of, xs))
        for x, y in zip(xs, answers):
            assert same_bits(y, prefixes(made[0], x))
        with Client(url=url) as client:
            path = client.session()
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as gone:  # amid its body
                gone.sendall(f"POST {path}/step HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n"
                             f"Content-Type: application/octet-stream\r\n\r\nsix by".encode())  # fmt: skip
            assert same_bits(client.binary(f"{path}/step", xs[0][0]), prefixes(made[0], xs[0][:1])[0])


def test_gunicorn_forks_workers_that_give_the_same_bits(made, tmp_path):
    """The model is loaded once, before the fork. A worker that is stopped leaves all new connections to the other."""
    command = ["gunicorn", "--preload", "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:0"]
    with serving(tmp_path, made[1], *command, "service:create_app()") as (process, url):
        x, stopped = rows(8), None
        expected = prefixes(made[0], x)
        try:
            with Client(url=url) as here:
                path = here.session()
                assert same_bits(here.json(f"{path}/run", x[:4]), expected[:4])
                state = here.ok("GET", f"{path}/state").content
                worker = here.ok("GET", "/health").json()["process"]
                os.kill(worker, signal.SIGSTOP)
                stopped = worker
                with Client(url=url) as there:
                    assert there.ok("GET", "/health").json()["process"] not in (worker, process.pid)
                    there.refused(404, "another process", "GET", f"{path}/state")
                    new = there.session()
                    there.ok("PUT", f"{new}/state", 204, content=state, headers=BINARY)
                    assert same_bits(there.binary(f"{new}/run", x[4:]).reshape(4, -1), expected[4:])
                os.kill(worker, signal.SIGCONT)
                stopped = None
                assert same_bits(here.json(f"{path}/run", x[4:]), expected[4:])
        finally:
            if stopped:
                os.kill(stopped, signal.SIGCONT)
