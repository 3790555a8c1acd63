"""Serving inside a process: threads, fork, the GIL, memory, subnormals, files; what precisions do to a model."""

import threading
import time

import numpy as np
import pytest

import seqcore
from seqcore import layers, models
from support import prefixes, run_python, same_bits

RNG = np.random.default_rng(0)
PRECISIONS = ["float32", "bfloat16", "int8"]


def network(units=33, features=8):
    return models.Sequential(
        [
            layers.Input((None, features)),
            layers.LSTM(units, return_sequences=True),
            layers.GRU(units, return_sequences=True),
            layers.Dense(5, activation="softmax"),
        ]
    )


def large():
    """A model whose single step lets other threads run, with a block of steps that takes some tenths of a second."""
    model = models.Sequential([layers.Input((None, 32)), layers.LSTM(400), layers.Dense(3)])
    return model, rows(4000, 32)


def rows(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def in_threads(count, work):
    """Runs work(i) in so many threads, begun together; raises what one of them raised."""
    ready, errors = threading.Barrier(count), []

    def body(i):
        try:
            ready.wait(60)
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]


# ------------------------------------------------------------------------------------------------------------ threads


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_model_shared_by_32_threads(precision):
    """Each makes its own stream, the first of them while the weights are not packed yet."""
    seqcore.set_num_threads(2)
    model, x = network(), rows(32, 12, 8)
    other = models.Sequential.from_config(model.get_config())
    other.set_weights(model.get_weights())
    expected = [prefixes(other, part, precision=precision) for part in x]
    results = {}

    def work(i):
        stream = model.stream(precision, threads=2 if i % 8 == 0 else 1)
        many = model.streams(3, precision)
        stepped = np.stack([stream.step(row) for row in x[i]])
        stream.reset()
        block = stream.run(x[i])
        both = many.run(np.stack([x[i], x[i]], 1), which=[2, 0])
        results[i] = [stepped, block, both[:, 0], both[:, 1], prefixes(model, x[i], precision=precision)]

    in_threads(32, work)
    for i in range(32):
        for y in results[i]:
            assert same_bits(y, expected[i])


@pytest.mark.parametrize("kind", ["one", "one with a helper", "many"])
def test_a_stream_in_use_refuses_every_other_call(kind):
    """While one thread is inside run, each method raises RuntimeError elsewhere, and run's results are undisturbed."""
    model, x = large()
    if kind == "many":
        served, x = model.streams(4), np.stack([x[:1000]] * 4, 1)
    else:
        served = model.stream(threads=1 if kind == "one" else 2)
    expected = served.run(x)
    end, zero = served.state, [np.zeros_like(a) for a in served.state]
    calls = {
        "step": lambda: served.step(x[0]),
        "step into out": lambda: served.step(x[0], out=np.empty_like(expected[0])),
        "run": lambda: served.run(x[:2]),
        "reset": served.reset,
        "copy": served.copy,
        "set state": lambda: setattr(served, "state", zero),
    }
    refusals = dict.fromkeys(calls, 0)
    results = []

    def work():
        while True:
            try:
                results.append(served.run(x))
                return
            except RuntimeError:  # came while the other thread was reading the state, below
                pass

    for _ in range(20):  # until every one of them has met the run
        served.reset()
        results.clear()
        thread = threading.Thread(target=work)
        thread.start()
        busy, answered = False, 0
        while thread.is_alive() and not busy:
            try:
                _ = served.state
            except RuntimeError as error:
                busy = "in use by another thread" in str(error)
        if busy:
            for name, call in calls.items():
                try:
                    call()
                    answered += 1
                except RuntimeError as error:
                    assert "in use by another thread" in str(error)
                    refusals[name] += 1
        thread.join()
        assert same_bits(results[0], expected)
        assert answered or same_bits(served.state, end)
        if all(refusals.values()):
            break
    assert all(refusals.values()), refusals
    served.reset()
    assert same_bits(served.run(x[:5]), expected[:5])


def test_two_threads_that_step_one_stream():
    """Steps that were refused did nothing, the others everything: the end is that of so many steps."""
    model, x = large()
    stream, row = model.stream(), x[0]
    done, refused = [0] * 2, [0] * 2
    rounds = 0

    def work(i):
        for _ in range(150):
            try:
                stream.step(row)
                done[i] += 1
            except RuntimeError:
                refused[i] += 1

    while rounds < 20 and not sum(refused):
        in_threads(2, work)
        rounds += 1
    single = model.stream()
    single.run(np.repeat(row[None], sum(done), 0))
    assert sum(done) + sum(refused) == 300 * rounds and sum(done) > 0 and sum(refused) > 0
    assert same_bits(stream.state, single.state)


@pytest.mark.parametrize("call", ["predict", "run", "many", "step", "report"])
def test_other_threads_run_meanwhile(call):
    """The GIL is free inside long calls: another thread runs dozens of times."""
    seqcore.set_num_threads(1)
    model, x = large()
    stream, many = model.stream(), model.streams(4)
    block, batch = np.stack([x[:2000]] * 4, 1), np.stack([x[:100]] * 64)
    work = {
        "predict": lambda: model.predict(batch, batch_size=64, verbose=0),
        "run": lambda: stream.run(x),
        "many": lambda: many.run(block),
        "step": lambda: [stream.step(row) for row in x[:2000]],
        "report": lambda: model.quantization_report(batch[:16]),
    }[call]
    model.predict(batch[:1], verbose=0)
    times = []

    def body():
        times.append(time.perf_counter())
        work()
        times.append(time.perf_counter())

    thread, beats = threading.Thread(target=body), []
    thread.start()
    while thread.is_alive():
        beats.append(time.perf_counter())
        time.sleep(0.001)
    inside = [b for b in beats if times[0] < b < times[1]]
    print(f"{len(inside)} beats in {times[1] - times[0]:.2f} s")
    assert len(inside) >= 10


# --------------------------------------------------------------------------------------------------------------- fork


FORK = """
import os, signal, sys, warnings
import numpy as np
import seqcore
from seqcore import layers, models
warnings.simplefilter("ignore")
seqcore.set_num_threads(2)
model = models.Sequential([layers.Input((None, 16)), layers.LSTM(units, return_sequences=True), layers.Dense(3)])
x = np.random.default_rng(0).normal(size=(42, 16)).astype(np.float32)
batch = np.stack([x] * 8)
expected = model.predict(batch, verbose=0)
one, two, many = model.stream(), model.stream(threads=2), model.streams(3, threads=2)
def same(y, *place):
    return y.tobytes() == np.ascontiguousarray(expected[place]).tobytes()
def steps(t):
    ok = same(one.step(x[t]), 0, t) and same(two.step(x[t]), 0, t)
    return ok and all(same(y, 0, t) for y in many.step(np.stack([x[t]] * 3)))
assert steps(0)
for i in range(1, 41, 2):
    assert steps(i)
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        ok = steps(i + 1)
        ok = ok and same(two.copy().run(x[i + 2 :]), 0, slice(i + 2, None))
        ok = ok and same(model.stream(threads=2).run(x), 0)
        ok = ok and same(model.stream().step(x[0]), 0, 0)
        ok = ok and same(model.streams(2, threads=2).run(np.stack([x, x], 1))[:, 1].copy(), 0)
        ok = ok and model.predict(batch, verbose=0).tobytes() == expected.tobytes()
        seqcore.set_num_threads(2)
        ok = ok and model.predict(batch, verbose=0).tobytes() == expected.tobytes()
        ok = ok and same(model.stream(threads=2).run(x), 0)
        os._exit(0 if ok else 3)
    _, status = os.waitpid(pid, 0)
    assert status == 0, (i, status)
    assert steps(i + 1)
print("all answered")
"""


@pytest.mark.parametrize("units", [16, 160])
def test_forked_children_go_on_with_the_streams_of_their_parent(units):
    assert "all answered" in run_python(f"units = {units}\n" + FORK, timeout=120)


def test_exit_with_streams_alive():
    """The helpers of a stream end with the process, in use or not."""
    run_python(
        """
import threading
import numpy as np
from seqcore import layers, models
model = models.Sequential([layers.Input((None, 8)), layers.LSTM(400)])
idle, used = model.stream(threads=3), model.stream(threads=2)
idle.step(np.zeros(8))
inside = threading.Event()
def work():
    while True:
        inside.set()
        used.run(np.zeros((1000, 8), np.float32))
threading.Thread(target=work, daemon=True).start()
inside.wait()
""",
        timeout=60,
    )


def test_the_helpers_of_a_stream_end_with_it():
    out = run_python(
        """
import os
import numpy as np
from seqcore import layers, models
count = lambda: len(os.listdir("/proc/self/task"))
model = models.Sequential([layers.Input((None, 8)), layers.LSTM(16)])
model.stream().step(np.zeros(8))
before = count()
streams = [model.stream(threads=3) for _ in range(5)]
for s in streams:
    s.step(np.zeros(8))
during = count()
del s, streams
print(before, during, count())
"""
    )
    before, during, after = map(int, out.split())
    assert during == before + 10 and after == before


# ------------------------------------------------------------------------------------------ memory, subnormals, files


MEMORY = """
import numpy as np
from seqcore import layers, models
def rss():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])
model = models.Sequential([layers.Input((None, 4)), layers.LSTM(16, return_sequences=True), layers.Dense(2)])
stream, many, rng = model.stream(), model.streams(7), np.random.default_rng(0)
ids = models.Sequential([layers.Embedding(9, 4, input_shape=(None,)), layers.GRU(8)]).stream()
row, rows, out = rng.random(4, np.float32), rng.random(4).tolist(), np.empty(2, np.float32)
def steps(n):
    for i in range(n // 4):
        stream.step(row), stream.step(row, out=out), stream.step(rows), ids.step(i % 9)
def calls(n):
    for _ in range(n):
        a, b = int(rng.integers(1, 64)), int(rng.integers(1, 100))
        stream.run(rng.random((a * b, 4), np.float32))
        model.predict(rng.random((a, b, 4), np.float32), verbose=0, precision=["float32", "bfloat16", "int8"][a % 3])
        which = rng.permutation(7)[: 1 + a % 7]
        many.run(rng.random((b, len(which), 4), np.float32), which)
def others(n):
    for _ in range(n):
        copy = stream.copy()
        copy.state = stream.state
        model.stream("int8").step(row)
        for bad in ((row, row), (None,), (row[:3],), (row, out, out)):
            try:
                stream.step(*bad)
            except (TypeError, ValueError):
                continue
            raise AssertionError(bad)
        try:
            ids.step(9)
        except ValueError:
            pass
def grown(f, warm, n):
    f(warm)
    before = rss()
    f(n)
    return rss() - before
stream.run(rng.random((6300, 4), np.float32)), model.predict(rng.random((63, 99, 4), np.float32), verbose=0)
print(grown(steps, 20_000, 100_000), grown(calls, 400, 2_000), grown(others, 500, 2_000))
"""


def test_memory_is_flat():
    """Over steps, blocks and predictions of varying shapes, streams made and dropped, errors."""
    grown = list(map(int, run_python(MEMORY, timeout=300).split()))
    print(f"grew by {grown} KiB")
    assert len(grown) == 3 and max(grown) < 4096


def test_the_floating_point_environment_is_the_hosts():
    """Subnormals count as zero inside seqcore and stay what they were outside, also where a call raises."""
    small, tiny, least = np.float32(1e-40), np.float64(1e-310), np.float32(0.5)

    def unchanged():
        return small * least != 0 and tiny * 0.5 != 0 and np.float32(1) / np.float32(3) == np.float32(0.33333334)

    assert unchanged()
    model = network()
    words = models.Sequential([layers.Embedding(9, 4, input_shape=(None,)), layers.GRU(8)])
    x = np.full((40, 8), 1e-40, np.float32)
    for precision in PRECISIONS:
        for threads in (1, 2):
            stream, many = model.stream(precision, threads), model.streams(3, precision, threads)
            assert unchanged()
            for call in (
                lambda s=stream: s.step(x[0]),
                lambda s=stream: s.run(x),
                lambda s=stream: s.copy(),
                lambda s=stream: s.reset(),
                lambda m=many: m.step(x[:3]),
                lambda m=many: m.run(x[:, None], which=[1]),
            ):
                call()
                assert unchanged()
            with pytest.raises(ValueError, match="`x`"):
                stream.step(x)
            with pytest.raises(ValueError, match="which"):
                many.step(x[:1], which=[9])
            with pytest.raises(ValueError, match="ids"):
                words.stream(precision, threads).run([1, 9])
            assert unchanged()
        model.predict(x[None], verbose=0, precision=precision)
        assert unchanged()
    model.quantization_report(x[None, :3])
    assert unchanged()


@pytest.mark.parametrize("harm", ["truncate", "overwrite", "replace", "remove"])
def test_a_file_that_changes_after_loading_harms_no_stream(tmp_path, harm):
    path, x = tmp_path / "model.safetensors", rows(6, 8)
    network(130).save(path)
    model = models.load_model(path)
    stream, early = model.stream(), model.stream("int8")
    expected = stream.run(x[:3])
    if harm == "truncate":
        with open(path, "r+b") as file:
            file.truncate(10)
    elif harm == "overwrite":
        path.write_bytes(b"\xff" * path.stat().st_size)
    elif harm == "replace":
        network(130).save(path)
    else:
        path.unlink()
    late = model.stream("int8")
    stream.reset()
    assert same_bits(stream.run(x[:3]), expected)
    assert same_bits(stream.run(x[3:]), prefixes(model, x)[3:])
    assert same_bits(late.run(x), early.run(x)) and same_bits(early.state, late.state)


# --------------------------------------------------------------------------------------------------------- precisions


@pytest.mark.parametrize("precision, off", [("float32", 0), ("bfloat16", 4e-3), ("int8", 8e-3)])
def test_predict_in_a_precision(precision, off):
    """Outputs of the same shape, near float32's, not the same; the same bits for any batches and threads."""
    model, x = network(), rows(37, 9, 8)
    exact = model.predict(x, verbose=0)
    y = model.predict(x, verbose=0, precision=precision)
    assert y.shape == exact.shape and y.dtype == np.float32
    assert np.abs(y - exact).max() <= off
    assert np.array_equal(y, exact) == (precision == "float32")
    seqcore.set_num_threads(2)
    for size in (1, 5, 64):
        assert same_bits(model.predict(x, batch_size=size, verbose=0, precision=precision), y)
        parts = [model.predict(x[i : i + size], verbose=0, precision=precision) for i in range(0, len(x), size)]
        assert same_bits(np.concatenate(parts), y)
    assert same_bits(model.predict(x, verbose=0), exact)


@pytest.mark.parametrize("name", ["float64", "INT8", "", None, 8, ["int8"]])
def test_names_of_precisions(name):
    with pytest.raises(ValueError, match="`precision`: expected one of"):
        network().predict(rows(1, 2, 8), verbose=0, precision=name)


def test_several_outputs_are_float32s():
    model = models.Sequential([layers.Input((None, 8)), layers.LSTM(3, return_state=True)])
    with pytest.raises(ValueError, match="several outputs predicts in float32 only, got 'int8'"):
        model.predict(rows(1, 2, 8), verbose=0, precision="int8")
    with pytest.raises(ValueError, match="several outputs"):
        model.quantization_report(rows(1, 2, 8))
    stream, x = model.stream(), rows(3, 8)  # of the first one
    assert same_bits(stream.run(x)[-1], model.predict(x[None], verbose=0)[0][0])


@pytest.mark.parametrize("kind", ["sequences", "one", "ids", "cannot stream"])
def test_quantization_report(kind):
    model, x = network(), rows(20, 9, 8)
    if kind == "one":
        model = models.Sequential([layers.Input((None, 8)), layers.LSTM(20), layers.Dense(4)])
    elif kind == "ids":
        model = models.Sequential([layers.Embedding(11, 6, input_shape=(None,)), layers.GRU(20), layers.Dense(4)])
        x = RNG.integers(0, 11, (20, 9))
    elif kind == "cannot stream":
        model = models.Sequential(
            [layers.Input((None, 8)), layers.Bidirectional(layers.LSTM(20)), layers.Dense(4, activation="softmax")]
        )
    report = model.quantization_report(x, batch_size=7)
    assert [r.precision for r in report] == PRECISIONS
    assert report[0][1:4] == (0.0, 0.0, 1.0)
    exact = model.predict(x, verbose=0)
    for r in report:
        y = model.predict(x, verbose=0, precision=r.precision)
        assert r.max_error == np.abs(y.astype(np.float64) - exact).max()
        assert r.mean_error == np.abs(y.astype(np.float64) - exact).mean()
        assert r.argmax_agreement == (y.argmax(-1) == exact.argmax(-1)).mean()
        assert 0 <= r.mean_error <= r.max_error and 0 <= r.argmax_agreement <= 1
        assert r.step_us is None if kind == "cannot stream" else 0 < r.step_us < 1e5
    assert report[1].max_error > 0 and report[2].max_error > 0
    lines = str(report).splitlines()
    assert [line.split()[0] for line in lines] == ["precision", *PRECISIONS]
    assert all(line.endswith(" -" if kind == "cannot stream" else " us") for line in lines[1:])


def test_rows_without_a_largest_output_agree_with_nothing():
    model = network()
    model.set_weights([np.full_like(w, np.nan) for w in model.get_weights()])
    report = model.quantization_report(rows(2, 3, 8))
    assert [r.argmax_agreement for r in report] == [0.0] * 3


def test_reports_of_what_does_not_fit():
    model = network()
    for x, match in [(rows(2, 3, 9), "shape"), (rows(3, 8), "shape"), (np.zeros((0, 3, 8)), "empty")]:
        with pytest.raises(ValueError, match=match):
            model.quantization_report(x)
    for size in (-1, 0, 1.5, True, "a"):
        with pytest.raises(ValueError, match="batch_size"):
            model.quantization_report(rows(2, 3, 8), batch_size=size)
    with pytest.raises(TypeError, match="`x`"):
        model.quantization_report(None)
