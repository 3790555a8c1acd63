"""Streams by bits: a step, a block of steps, many streams give what predict gives; what is refused changes nothing."""

import contextlib
import copy
import gc
import re
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqcore
from seqcore import layers, models
from support import (
    Case,
    assert_close,
    chain,
    instance,
    model_of,
    nudge,
    prefixes,
    random_case,
    random_window_case,
    rng_pick,
    run_python,
    same_bits,
    spec,
)

RNG = np.random.default_rng(0)
PRECISIONS = ["float32", "bfloat16", "int8"]
MSE = spec("MeanSquaredError")


def network(*middle, features=4, outputs=3):
    """Any number of steps; LSTM and GRU unless told otherwise."""
    middle = middle or (layers.LSTM(7, return_sequences=True), layers.GRU(5, return_sequences=True))
    return models.Sequential([layers.Input((None, features)), *middle, layers.Dense(outputs)])


def words(ids=7):
    return models.Sequential([layers.Embedding(ids, 3, input_shape=(None,)), layers.LSTM(5), layers.Dense(2)])


def rows(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@contextlib.contextmanager
def refused(served, error, match=None):
    """The call raises such an error, and the states are, bit for bit, as before."""
    before = served.state
    with pytest.raises(error, match=match):
        yield
    assert same_bits(served.state, before)


# --------------------------------------------------------------------------------------------------- one like predict


def check_stream(model, x, precision="float32", threads=1):
    """step, step(out=), run in one block, in two blocks, into `out`: what predict gives for each prefix."""
    expected = prefixes(model, x, precision=precision)
    stream = model.stream(precision=precision, threads=threads)
    assert (stream.precision, stream.threads, stream.outputs) == (precision, threads, expected.shape[1])
    assert stream.features == (None if x.ndim == 1 else x.shape[1])
    assert same_bits(np.stack([stream.step(row) for row in x]), expected)
    end = stream.state
    stream.reset()
    out = np.empty(stream.outputs, np.float32)
    for row, y in zip(x, expected):
        assert stream.step(row, out=out) is out
        assert same_bits(out, y)
    assert same_bits(stream.state, end)
    stream.reset()
    assert same_bits(stream.run(x), expected) and same_bits(stream.state, end)
    stream.reset()
    whole, cut = np.empty_like(expected), len(x) // 2
    if cut:
        assert same_bits(stream.run(x[:cut]), expected[:cut])
    assert stream.run(x[cut:], out=whole[cut:]) is not None
    assert same_bits(whole[cut:], expected[cut:]) and same_bits(stream.state, end)


def check_streams(case, model, n, precision, threads, rng):
    """Steps and blocks of random subsets, and what as many single streams give."""
    single, many = [model.stream(precision) for _ in range(n)], model.streams(n, precision, threads)
    assert len(many) == n
    tail = case.x.shape[2:]
    for turn in range(6):
        which = None if turn % 3 == 0 else rng.permutation(n)[: rng.integers(1, n + 1)]
        chosen = range(n) if which is None else which
        x = case.inputs((int(rng.integers(1, 6)), len(chosen), *tail), rng)
        expected = np.stack([single[s].run(x[:, i]) for i, s in enumerate(chosen)], axis=1)
        if turn % 2:
            out = np.empty_like(expected) if turn == 1 else None
            y = many.run(x, which, out)
            assert out is None or y is out
        else:
            y = np.stack([many.step(row, which=which) for row in x])
        assert same_bits(y, expected)
        for i, whole in enumerate(many.state):
            assert same_bits(whole, np.stack([s.state[i] for s in single]))


def check_seed(seed):
    """Both, for the random model of a seed."""
    rng = np.random.default_rng(seed)
    case = (random_window_case if seed % 4 == 0 else random_case)(rng_pick(seed), causal=True)
    model = model_of(case)
    for precision in PRECISIONS:
        check_stream(model, case.x[0], precision, int(rng.integers(1, 4)))
        check_streams(case, model, int(rng.integers(1, 6)), precision, 1, rng)


@given(st.data())
def test_a_stream_is_predict(data):
    def pick(options):
        return data.draw(st.sampled_from(options))

    case = pick([random_case, random_case, random_window_case])(pick, causal=True)
    check_stream(model_of(case), case.x[0], pick(PRECISIONS), pick([1, 1, 2, 3]))


@given(st.data())
def test_streams_are_so_many_streams(data):
    def pick(options):
        return data.draw(st.sampled_from(options))

    case = pick([random_case, random_case, random_window_case])(pick, causal=True)
    rng = np.random.default_rng(pick(list(range(100))))
    check_streams(case, model_of(case), pick([1, 2, 3, 5, 16, 17, 33]), pick(PRECISIONS), pick([1, 2, 3]), rng)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU", "GRU before"])
def test_sizes(kind, precision, threads):
    """Vectors with and without tails, and so large that a block goes layer by layer and threads share units."""
    cell = {"reset_after": False} if "before" in kind else {}
    for units, features, steps in [(1, 1, 3), (16, 17, 5), (33, 16, 5), (97, 13, 2), (211, 67, 7)]:
        case = Case(
            chain(
                (None, steps, features),
                spec(kind.split()[0], units=units, return_sequences=True, **cell),
                spec("LayerNormalization"),
                spec(kind.split()[0], units=17, return_sequences=units < 90, **cell),
                spec("Dense", units=33, activation="softmax"),
            ),
            MSE, batch=1, seed=units,
        )  # fmt: skip
        check_stream(model_of(case), case.x[0], precision, threads)


@pytest.mark.parametrize(
    "chosen",
    [
        [spec("Dense", units=3, activation="gelu")],
        [spec("TimeDistributed", layer=spec("Dense", units=3)), spec("GRU", units=2)],
        [spec("LSTM", units=3, return_sequences=True), spec("Activation", activation="softmax")],
        [spec("LSTM", units=3), spec("Dense", units=4), spec("Dropout", rate=0.5), spec("Flatten")],
        [spec("Dropout", rate=0.5)],
        [spec("Masking", mask_value=0.0), spec("LSTM", units=3, zero_output_for_mask=True, return_sequences=True)],
    ],
    ids=lambda items: "-".join(item["class_name"] for item in items),
)
def test_particular_chains(chosen):
    """No recurrent layer, none after it, one that ends its sequence before Dense, masked steps from the first on."""
    model = models.Sequential([layers.Input((None, 3)), *(instance(seqcore, item) for item in chosen)])
    x = rows(6, 3)
    x[[0, 1, 4]] = 0
    check_stream(model, x)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    "config",
    [
        {"filters": 1, "kernel_size": 1},
        {"filters": 5, "kernel_size": 4, "use_bias": False},
        {"filters": 36, "kernel_size": 9, "groups": 3, "activation": "gelu"},
        {"filters": 130, "kernel_size": 2, "dilation_rate": 8, "activation": "softmax"},
        {"filters": 211, "kernel_size": 6, "dilation_rate": 2, "activation": "relu"},
    ],
    ids=str,
)
def test_convolutions(config, threads):
    """A causal one remembers what its windows still see: fewer steps than those, and more; a mask ends there."""
    causal = layers.Conv1D(**config, padding="causal")
    model = models.Sequential([layers.Input((None, 6)), layers.Masking(), causal, layers.LSTM(67), layers.Dense(3)])
    for steps in (1, 3, 23):
        x = rows(steps, 6)
        x[1::3] = 0
        check_stream(model, x, "float32", threads)
    history = (config["kernel_size"] - 1) * config.get("dilation_rate", 1)
    stream = model.stream()
    assert [a.shape for a in stream.state] == [(history * 6,)] * (history > 0) + [(67,), (67,)]
    stream.run(x)
    if history:
        assert same_bits(stream.state[0], x[len(x) - history :].reshape(-1))


def test_every_number_that_a_convolution_remembers_matters():
    convolution = layers.Conv1D(5, 3, dilation_rate=2, padding="causal")
    stream, x = models.Sequential([layers.Input((None, 6)), convolution]).stream(), rows(9, 6)
    stream.run(x[:5])
    start, expected = stream.state, stream.run(x[5:])
    for i in range(4 * 6):
        stream.state = [start[0] + (np.arange(4 * 6) == i).astype(np.float32)]
        moved = np.any(stream.run(x[5:]) != expected, axis=-1)
        oldest = i // 6
        assert moved.tolist() == [t in (oldest, oldest - 2) for t in range(4)]


def test_the_reference_in_float64():
    for seed in range(8):
        case = random_case(rng_pick(seed), causal=True)
        stream = model_of(case).stream()
        expected, nearby = (case.reference(w).forward(case.x[:1])[0] for w in (case.weights, nudge(case.weights)))
        y = stream.run(case.x[0])
        assert_close(y if expected.ndim == 2 else y[-1], expected, nearby, what=repr(case))


@pytest.mark.parametrize("isa", seqcore.show_config()["available_isas"])
def test_instruction_sets(isa):
    code = "import seqcore, test_stream as t; [t.check_seed(s) for s in range(12)]; print(seqcore.show_config()['isa'])"
    assert run_python(code, SEQCORE_ISA=isa).strip() == isa


def test_a_stateful_model():
    """Its own states are not the stream's."""
    shape = {"batch_shape": (1, 4, 3)}
    model = models.Sequential([layers.Input(**shape), layers.LSTM(5, stateful=True, return_sequences=True)])
    x = rows(8, 3)
    first = model.predict(x[None, :4], verbose=0)[0]
    stream = model.stream()
    assert same_bits(stream.run(x[:4]), first)
    assert same_bits(stream.run(x[4:]), model.predict(x[None, 4:], verbose=0)[0])


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "shape, chosen, reason",
    [
        ((None, 4), [layers.Bidirectional(layers.LSTM(2))], "Bidirectional.*backward half needs the whole sequence"),
        ((None, 4), [layers.LSTM(2, go_backwards=True)], r"layer 0 \(LSTM\).*backwards in time"),
        ((None, 4), [layers.GRU(2, return_sequences=True), layers.GRU(3, go_backwards=True)], r"layer 1 \(GRU\)"),
        ((3, 4), [layers.GRU(2, return_sequences=True), layers.Flatten()], r"Flatten\).*needs the whole sequence"),
        ((3, 4), [layers.GRU(2, return_sequences=True), layers.Permute((2, 1))], r"Permute\).*the whole sequence"),
        ((3, 4), [layers.GRU(2, return_sequences=True), layers.Reshape((2, 3))], r"Reshape\).*the whole sequence"),
        ((None, 4), [layers.Conv1D(2, 3)], r"layer 0 \(Conv1D\).*padding=\"causal\" and strides of 1"),
        ((None, 4), [layers.Conv1D(2, 2, dilation_rate=2**30, padding="causal")], r"Conv1D\).*more than 2\^30 numbers"),
        ((None, 4), [layers.Conv1D(2, 3, padding="same")], r"Conv1D\).*padding=\"causal\""),
        ((None, 4), [layers.Conv1D(2, 3, padding="causal", strides=2)], r"Conv1D\).*strides of 1"),
        (
            (None, 4),
            [layers.LSTM(2, return_sequences=True), layers.MaxPooling1D()],
            r"layer 1 \(MaxPooling1D\).*windows",
        ),
        ((None, 4), [layers.AveragePooling1D()], r"AveragePooling1D\).*its windows need several steps"),
        ((None, 3, 4), [layers.TimeDistributed(layers.LSTM(2))], "a model of sequences.*got one of input shape"),
        ((None, 3, 4), [layers.TimeDistributed(layers.Dense(2))], "a model of sequences.*got one of input shape"),
        ((4,), [layers.Dense(2)], "a model of sequences.*got one of input shape"),
    ],
)
def test_models_that_need_the_whole_sequence(shape, chosen, reason):
    model = models.Sequential([layers.Input(shape), *chosen])
    for make in (model.stream, lambda: model.streams(3), lambda: model.stream("int8", threads=2)):
        with pytest.raises(ValueError, match=reason):
            make()


def test_a_recurrent_layer_without_sequences_ends_the_chain():
    with pytest.raises(ValueError, match=r"expected 3 axes \(batch, steps, features\), got 2"):
        network(layers.LSTM(2), layers.LSTM(3)).stream()


def test_a_model_without_an_input_shape():
    model = models.Sequential([layers.LSTM(3)])
    for make in (model.stream, lambda: model.streams(2)):
        with pytest.raises(ValueError, match="no input shape yet"):
            make()
    model.predict(np.zeros((1, 2, 4)), verbose=0)
    check_stream(model, rows(3, 4))


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, True, "2", None, 10**6, 10**12, np.float32(2)])
def test_counts(value):
    model = network()
    with pytest.raises(ValueError, match="threads"):
        model.stream(threads=value)
    with pytest.raises(ValueError, match="threads"):
        model.streams(2, threads=value)
    if value != 10**6:
        with pytest.raises(ValueError, match="`n`"):
            model.streams(value)
    with pytest.raises(ValueError, match="streams"):
        model.streams(10**9)
    assert len(model.streams(np.int64(2), threads=np.int32(1))) == 2


@pytest.mark.parametrize("name", ["float16", "INT8", "", None, 8, ["int8"], b"int8", np.array(["int8"])])
def test_precisions(name):
    model = network()
    for make in (model.stream, lambda precision: model.streams(2, precision)):
        with pytest.raises(ValueError, match=r"`precision`.*'float32', 'bfloat16', 'int8'.*" + re.escape(repr(name))):
            make(precision=name)


# ----------------------------------------------------------------------------------------------------------- snapshot


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_stream_is_a_snapshot(precision):
    """Compiled or not, trained, given other weights, gone: the stream keeps the weights it was made from."""
    model, x = network(), rows(5, 4)
    before = prefixes(model, x, precision=precision)
    stream, many = model.stream(precision), model.streams(2, precision)

    def check():
        stream.reset()
        many.reset()
        assert same_bits(stream.run(x), before)
        assert same_bits(many.run(np.stack([x, x], 1))[:, 1], before)

    model.compile("sgd", "mse")
    model.fit(rows(8, 5, 4), rows(8, 5, 3), epochs=2, verbose=0)
    check()
    trained = prefixes(model, x, precision=precision)
    assert not np.array_equal(trained, before)
    check_stream(model, x, precision)
    model.set_weights([w * 2 for w in model.get_weights()])
    check()
    model.layers[0].set_weights([w + 1 for w in model.layers[0].get_weights()])
    check()
    check_stream(model, x, precision)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    check()


# ------------------------------------------------------------------------------------------------------------- states


def test_states_of_one_stream():
    stream, x = network().stream(), rows(9, 4)
    assert [a.shape for a in stream.state] == [(7,), (7,), (5,)] and not any(a.any() for a in stream.state)
    stream.run(x[:4])
    middle = stream.state
    expected = stream.run(x[4:])
    end = stream.state
    for given_as in (list, tuple, lambda arrays: [a.astype(np.float64) for a in arrays], lambda s: [[*a] for a in s]):
        stream.state = given_as(middle)
        assert same_bits(stream.state, middle)
        assert same_bits(stream.run(x[4:]), expected)
    assert same_bits(stream.state, end)
    # What is read, and what was assigned, is nobody else's.
    mine = stream.state
    stream.state = mine
    for a in mine:
        a.fill(9)
    assert same_bits(stream.state, end)
    stream.reset()
    assert not any(a.any() for a in stream.state)
    stream.run(x[:4])
    assert same_bits(stream.state, middle)


def test_every_state_matters():
    """Each array of the state, moved, moves the output after it: none is a copy beside the real one."""
    stream, x = network().stream(), rows(6, 4)
    stream.run(x[:4])
    start = stream.state
    expected = stream.run(x[4:])
    for i in range(len(start)):
        stream.state = [a + (i == k) for k, a in enumerate(start)]
        assert not np.array_equal(stream.run(x[4:]), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_copies_are_independent(threads):
    stream, x = network().stream("int8", threads), rows(9, 4)
    stream.run(x[:4])
    other = stream.copy()
    assert (other.precision, other.threads, other.features, other.outputs) == ("int8", threads, 4, 3)
    at = stream.state
    expected = stream.run(x[4:])
    assert same_bits(other.state, at)
    assert same_bits(other.run(x[4:]), expected)
    other.reset()
    del stream
    assert not any(a.any() for a in other.state)


def test_states_of_many_streams():
    model, x = network(), rows(5, 3, 4)
    many, single = model.streams(3), [model.stream() for _ in range(3)]
    assert [a.shape for a in many.state] == [(3, 7), (3, 7), (3, 5)]
    many.run(x)
    for i, s in enumerate(single):
        s.run(x[:, i])
    middle = many.state
    assert same_bits(middle, [np.stack(arrays) for arrays in zip(*(s.state for s in single))])
    other = many.copy()
    assert len(other) == 3
    expected = many.run(x)
    assert same_bits(other.run(x), expected)
    many.state = middle
    assert same_bits(many.run(x), expected)
    end = many.state
    many.reset([2, 0])
    for a, b in zip(many.state, end):
        assert not a[[0, 2]].any() and same_bits(a[1], b[1])
    many.reset([])
    assert all(a[1].any() for a in many.state)
    many.reset()
    assert not any(a.any() for a in many.state)
    assert same_bits(many.run(x), model.streams(3).run(x))


ZERO = np.zeros
STATE_SHAPES = r"`state`: expected arrays of shapes \[\(7,\), \(7,\), \(5,\)\], got \["
BAD_STATES = {
    "none": ([], ValueError, STATE_SHAPES),
    "too few": ([ZERO(7), ZERO(7)], ValueError, STATE_SHAPES),
    "too many": ([ZERO(7), ZERO(7), ZERO(5), ZERO(5)], ValueError, STATE_SHAPES),
    "the last's shape": ([ZERO(7), ZERO(7), ZERO(7)], ValueError, STATE_SHAPES),
    "the first's shape": ([ZERO(5), ZERO(7), ZERO(5)], ValueError, STATE_SHAPES),
    "a batch": ([ZERO((1, 7)), ZERO((1, 7)), ZERO((1, 5))], ValueError, STATE_SHAPES),
    "scalars": ([1.0, 2.0, 3.0], (ValueError, TypeError, IndexError), None),
    "complex": ([ZERO(7), ZERO(7), ZERO(5, complex)], TypeError, "`state`"),
    "objects": ([ZERO(7), ZERO(7), ZERO(5, object)], TypeError, "`state`"),
    "strings": ([ZERO(7), ZERO(7), "abcde"], TypeError, "`state`"),
    "a None": ([ZERO(7), None, ZERO(5)], TypeError, "`state`"),
    "None": (None, TypeError, "`state`"),
    "a number": (3, TypeError, "`state`"),
}


@pytest.mark.parametrize("name", BAD_STATES)
def test_bad_states_leave_everything_as_before(name):
    value, error, match = BAD_STATES[name]
    stream = network().stream()
    stream.run(rows(3, 4))
    with refused(stream, error, match):
        stream.state = value
    many = network().streams(2)
    many.run(rows(3, 2, 4))
    if name not in ("scalars", "a batch"):
        value = [np.stack([a, a]) if isinstance(a, np.ndarray) else a for a in value] if type(value) is list else value
    with refused(many, error, "`state`" if match else None):
        many.state = value


# -------------------------------------------------------------------------------------------------------------- input


def lists(a):
    return a.tolist()


def strided(a):
    return np.repeat(a, 3, axis=-1)[..., ::3]


def backwards(a):
    return a[..., ::-1].copy()[..., ::-1]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    view = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


LAYOUTS = [
    lists, strided, backwards, read_only, unaligned, np.asfortranarray, np.ma.asarray, lambda a: a.astype(">f4"),
    lambda a: a.astype(">f8"), lambda a: a.astype(np.float64), lambda a: a.astype(np.float16),
    lambda a: a.astype(np.int8), lambda a: a.astype(np.int64),
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    x = RNG.integers(-9, 9, (5, 3, 4)).astype(np.float32)  # whole numbers, so that integers hold them too
    model = network()
    a, b, many, others = model.stream(), model.stream(), model.streams(3), model.streams(3)
    for row in x[:, 0]:
        assert same_bits(a.step(layout(row)), b.step(row))
    assert same_bits(a.run(layout(x[:, 1])), b.run(x[:, 1]))
    assert same_bits(many.step(layout(x[0])), others.step(x[0]))
    assert same_bits(many.run(layout(x)), others.run(x))
    assert same_bits(a.state, b.state) and same_bits(many.state, others.state)


@pytest.mark.parametrize("features", [1, 7, 1024, 1025])
def test_rows_of_doubles(features):
    """What a step narrows itself, what NumPy does for it, and what neither takes."""
    model = models.Sequential([layers.Input((None, features)), layers.SimpleRNN(3)])
    a, b = model.stream(), model.stream()
    row = RNG.standard_normal(features)
    row[0] = 1e300  # infinite in float32
    mixed = [2, *row[1:]]
    for x, plain in [(row, row), (row.tolist(), row), (mixed, mixed), ([np.float64(v) for v in row], row)]:
        with np.errstate(over="ignore"):
            expected = b.step(np.array(plain).astype(np.float32))
        assert same_bits(a.step(x), expected)
    for bad in (np.append(row, 0.0), [*row, 0.0], row[None], [row]):
        with pytest.raises(ValueError, match="`x`"):
            a.step(bad)
    assert same_bits(a.state, b.state)


@pytest.mark.parametrize("which", [[2, 0], (2, 0), np.array([2, 0], np.uint8), np.array([2, 9, 0], ">i4")[::2]])
def test_layouts_of_which(which):
    model, x = network(), rows(4, 2, 4)
    a, b = model.streams(3), model.streams(3)
    expected = b.run(x, np.array([2, 0]))
    assert same_bits(a.run(x, which=which), expected)
    assert same_bits(a.state, b.state)
    a.reset(which)
    assert not any(s[[0, 2]].any() for s in a.state)


@pytest.mark.parametrize("of", [int, np.int64, np.uint8, np.float32, float, np.array, lambda i: np.array(i, ">i2")])
def test_kinds_of_ids(of):
    model, ids = words(), [3, 0, 6, 1]
    a, b = model.stream(), model.stream()
    assert same_bits(np.stack([a.step(of(i)) for i in ids]), b.run(np.array(ids, np.int32)))
    a.reset()
    b.reset()
    assert same_bits(a.run([of(i) for i in ids]), b.run(np.array(ids, np.int32)))


@pytest.mark.parametrize("threads", [1, 2])
def test_out_may_share_memory_with_the_input(threads):
    model, x = network(outputs=4), rows(9, 4)
    stream = model.stream(threads=threads)
    expected = stream.run(x)
    stream.reset()
    for row, y in zip(x.copy(), expected):
        assert stream.step(row, out=row) is row
        assert same_bits(row, y)
    stream.reset()
    same = x.copy()
    assert stream.run(same, out=same) is same and same_bits(same, expected)
    for shift in (1, -1):  # each result lies on a later, or an earlier, row of input
        stream.reset()
        base = np.concatenate([x[:1], x, x[:1]])
        stream.run(base[1:-1], out=base[1 + shift : len(base) - 1 + shift])
        assert same_bits(base[1 + shift : len(base) - 1 + shift], expected)
    many, block = model.streams(3, threads=threads), x.reshape(3, 3, 4).copy()
    wanted = model.streams(3).run(block)
    assert many.run(block, out=block) is block and same_bits(block, wanted)


def frozen(*shape):
    return read_only(ZERO(shape, np.float32))


HUGE = 10**30
# What step takes in place of a row of 4 numbers.
BAD_ROWS = {
    "short": (ZERO(3, np.float32), ValueError),
    "long": (ZERO(5, np.float32), ValueError),
    "empty": (ZERO(0, np.float32), ValueError),
    "a batch": (ZERO((1, 4), np.float32), ValueError),
    "a number": (1.0, ValueError),
    "ragged": ([[1], [2, 3]], ValueError),
    "complex": (ZERO(4, complex), TypeError),
    "objects": (ZERO(4, object), TypeError),
    "strings": (np.array(["a"] * 4), TypeError),
    "a string": ("1234", TypeError),
    "None": (None, TypeError),
    "dates": (ZERO(4, "M8[s]"), TypeError),
    "a dict": ({0: 1.0}, TypeError),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows(name):
    value, error = BAD_ROWS[name]
    model = network()
    stream, many = model.stream(), model.streams(2)
    stream.run(rows(3, 4))
    many.run(rows(3, 2, 4))
    with refused(stream, error, "`x`"):
        stream.step(value)
    with refused(stream, error, "`xs?`"):
        stream.run([value] if isinstance(value, np.ndarray) else value)
    for call in (many.step, many.run, lambda v: many.run(v, [1, 0]), lambda v: many.step(v, which=[1, 0])):
        with refused(many, error if name != "a string" else (TypeError, ValueError), "`xs?`"):
            call([value, value])


@pytest.mark.parametrize("shape", [(), (4,), (2, 5), (2, 4, 1), (1, 2, 4)])
def test_bad_blocks(shape):
    stream = network().stream()
    stream.run(rows(3, 4))
    with refused(stream, ValueError, r"`xs`: expected shape \(None, 4\)"):
        stream.run(ZERO(shape, np.float32))


@pytest.mark.parametrize("shape", [(4,), (1, 4), (3, 4), (2, 3), (0, 4), (1, 2, 4)])
def test_bad_rows_of_many(shape):
    """Too few, too many, too short."""
    many = network().streams(2)
    many.run(rows(3, 2, 4))
    with refused(many, ValueError, r"`x`: expected shape \(2, 4\)"):
        many.step(ZERO(shape, np.float32))
    with refused(many, ValueError, r"`xs`: expected shape \(None, 2, 4\)"):
        many.run(ZERO((3, *shape), np.float32))
    if shape != (1, 4):
        with refused(many, ValueError, r"`x`: expected shape \(1, 4\)"):
            many.step(ZERO(shape, np.float32), which=[1])


BAD_OUTS = {
    "float64": (lambda *s: ZERO(s), TypeError),
    "big endian": (lambda *s: ZERO(s, ">f4"), TypeError),
    "int32": (lambda *s: ZERO(s, np.int32), TypeError),
    "a list": (lambda *s: ZERO(s).tolist(), TypeError),
    "a number": (lambda *s: 3, TypeError),
    "a string": (lambda *s: "out", TypeError),
    "read only": (frozen, ValueError),
    "short": (lambda *s: ZERO((*s[:-1], s[-1] - 1), np.float32), ValueError),
    "long": (lambda *s: ZERO((*s[:-1], s[-1] + 1), np.float32), ValueError),
    "deep": (lambda *s: ZERO((1, *s), np.float32), ValueError),
    "flat": (lambda *s: ZERO((), np.float32), ValueError),
    "strided": (lambda *s: ZERO((*s, 2), np.float32)[..., 0], (TypeError, ValueError)),
    "backwards": (lambda *s: ZERO(s, np.float32)[..., ::-1], (TypeError, ValueError)),
}


@pytest.mark.parametrize("name", BAD_OUTS)
def test_bad_outs(name):
    make, error = BAD_OUTS[name]
    model, x = network(), rows(5, 2, 4)
    stream, many = model.stream(), model.streams(2)
    stream.run(x[:, 0])
    many.run(x)
    with refused(stream, error, "`out`"):
        stream.step(x[0, 0], out=make(3))
    with refused(stream, error, "`out`"):
        stream.step(x[0, 0], make(3))
    for steps in (1, 5):
        with refused(stream, error, "`out`"):
            stream.run(x[:steps, 0], out=make(steps, 3))
        with refused(many, error, "`out`"):
            many.run(x[:steps], out=make(steps, 2, 3))
        with refused(many, error, "`out`"):
            many.run(x[:steps, :1], which=[1], out=make(steps, 1, 3))
    with refused(many, error, "`out`"):
        many.step(x[0], out=make(2, 3))


def test_an_out_with_gaps_is_told_so():
    with pytest.raises(TypeError, match=r"`out`: expected a C-contiguous .* got dtype float32 with strides \(8,\)"):
        network().stream().step(ZERO(4), out=ZERO(6, np.float32)[::2])


def test_an_out_that_is_not_aligned_is_written():
    stream, x = network().stream(), rows(2, 4)
    expected = stream.run(x)
    stream.reset()
    out = unaligned(ZERO(3, np.float32))
    assert stream.step(x[0], out) is out and same_bits(out, expected[0])


def test_calls_with_other_arguments():
    stream, x = network().stream(), ZERO(4, np.float32)
    out = ZERO(3, np.float32)
    stream.step(x)
    for call, match in [
        (lambda: stream.step(), "takes x"),
        (lambda: stream.step(out=out), "takes x"),
        (lambda: stream.step(x, out, out), "3 arguments"),
        (lambda: stream.step(x, y=1), "unexpected keyword argument 'y'"),
        (lambda: stream.step(x, Out=out), "unexpected keyword argument 'Out'"),
        (lambda: stream.step(x, x=x), "multiple values for argument 'x'"),
        (lambda: stream.step(x, out, out=out), "multiple values for argument 'out'"),
        (lambda: stream.run(x[None], y=1), "unexpected keyword argument 'y'"),
        (lambda: stream.run(), "xs"),
    ]:
        with refused(stream, TypeError, match):
            call()
    expected = stream.copy().step(x)
    assert stream.step(out=out, x=x) is out and same_bits(out, expected)


@pytest.mark.parametrize(
    "value, error",
    [(7, ValueError), (-1, ValueError), (1.5, ValueError), (float("nan"), ValueError), (float("inf"), ValueError),
     (2**32 + 1, ValueError), (-(2**63), ValueError), (np.uint64(2**63), ValueError), (HUGE, (ValueError, TypeError)),
     (-HUGE, (ValueError, TypeError)), ("1", TypeError), (None, TypeError), (1j, TypeError), ([1], ValueError),
     ([1, 2], ValueError), (np.array([2]), ValueError), (ZERO((0,), int), ValueError), (object, TypeError)],
    ids=repr,
)  # fmt: skip
def test_bad_ids(value, error):
    model = words()
    stream, many = model.stream(), model.streams(2)
    stream.run([1, 2])
    many.run([[1, 2], [3, 4]])
    with refused(stream, error, "x"):
        stream.step(value)
    with refused(stream, error, "x"):
        stream.run([3, 2, value])
    for call in (lambda: many.step([1, value]), lambda: many.run([[1, 2], [3, value]])):
        with refused(many, error, "x"):
            call()
    with refused(many, error, "x"):
        many.step([value], which=[1])


@pytest.mark.parametrize(
    "which, error",
    [([0, 0], ValueError), ([3], ValueError), ([0, 3], ValueError), ([-1], ValueError), ([0.0], ValueError),
     ([[0]], ValueError), (0, ValueError), ([True], ValueError), (["0"], TypeError), ("0", TypeError),
     ([None], TypeError), ([1j], TypeError), ([HUGE], TypeError), (np.array([2**64 - 1], np.uint64), ValueError),
     (np.array([2**63 + 1], np.uint64), ValueError), ({0}, TypeError)],
    ids=repr,
)  # fmt: skip
def test_bad_which(which, error):
    many = network().streams(3)
    many.run(rows(4, 3, 4))
    n = 2 if isinstance(which, list) and len(which) == 2 else 1
    for call in (
        lambda: many.step(ZERO((n, 4), np.float32), which=which),
        lambda: many.run(ZERO((5, n, 4), np.float32), which),
        lambda: many.reset(which),
    ):
        with refused(many, error, "which"):
            call()


def test_rows_that_do_not_fit_which():
    many = network().streams(3)
    many.run(rows(4, 3, 4))
    for which, n in [([0, 1], 1), ([0, 1], 3), ([2], 3), ([], 3)]:
        with refused(many, ValueError, "`x`"):
            many.step(ZERO((n, 4), np.float32), which=which)


def test_nothing_to_do():
    stream, many = network().stream(), network().streams(3)
    before = stream.run(rows(3, 4)), stream.state, many.run(rows(4, 3, 4)), many.state
    assert stream.run(ZERO((0, 4))).shape == (0, stream.outputs)
    assert many.step(ZERO((0, 4)), which=[]).shape == (0, many.outputs)
    assert many.run(ZERO((5, 0, 4)), which=[]).shape == (5, 0, many.outputs)
    assert many.run(ZERO((0, 3, 4))).shape == (0, 3, many.outputs)
    assert same_bits(stream.state, before[1]) and same_bits(many.state, before[3])


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_by_the_standard_library(copied):
    stream = network().stream()
    stream.run(rows(3, 4))
    other = copied(stream)
    assert same_bits(other.state, stream.state)
    other.reset()
    assert not same_bits(other.state, stream.state)


# ---------------------------------------------------------------------------------------------------- NaN, subnormals


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_one_stream_is_fed_does_not_reach_the_others(precision, bad):
    """Nor does it stay after reset."""
    model = models.Sequential(
        [layers.Input((None, 4)), layers.LSTM(9, return_sequences=True, activation="relu"), layers.GRU(5)]
    )
    many, single, x = model.streams(7, precision), model.stream(precision), rows(5, 7, 4)
    clean = [x[:, i].copy() for i in range(7)]
    x[1, 3, 2] = bad
    y = many.run(x)
    x[1, 3, 2] = 0
    for i in set(range(7)) - {3}:
        single.reset()
        assert same_bits(single.run(clean[i]), y[:, i])
        assert all(same_bits(a[i], b) for a, b in zip(many.state, single.state))
    many.reset([3])
    single.reset()
    assert same_bits(many.run(clean[3][:, None], which=[3])[:, 0], single.run(clean[3]))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_states_that_fade_into_subnormals_are_zero(precision, threads):
    """h halves each step: below the smallest normal number it is zero, with predict and with streams."""
    model = models.Sequential([layers.Input((None, 1)), layers.SimpleRNN(17, activation="linear", use_bias=False)])
    model.set_weights([np.ones((1, 17)), np.eye(17) / 2])
    x = ZERO((140, 1), np.float32)
    x[0] = 1
    stream = model.stream(precision, threads)
    y = stream.run(x)
    last = 99 if precision == "int8" else 126  # a row below some 1e-30 is zero in int8
    assert np.isfinite(y).all() and y[last].all() and not y[127:].any()
    assert same_bits(y[[99, 126, 127, 139]], prefixes(model, x, precision=precision)[[99, 126, 127, 139]])
    stream.reset()
    assert same_bits(np.stack([stream.step(row) for row in x]), y)
    assert same_bits(model.streams(3, precision, threads).run(np.stack([x] * 3, 1))[:, 1], y)
    stream.state = [np.full(17, 1e-40)]
    assert not stream.step([0.0]).any()
