"""The law of one order, by bits: threads, batches, instruction sets, runs."""

import hashlib
import json

import numpy as np
import pytest

import seqcore
from seqcore import _core
from support import Case, chain, compiling, random_case, random_window_case, rng_pick, run_python, spec

ENTROPY = spec("SparseCategoricalCrossentropy")


def cases():
    """One of everything, at sizes that split unevenly over threads, panels and blocks, then some random models."""
    sequence = {"return_sequences": True, "dropout": 0.2}
    yield Case(
        chain(
            (None, 9),
            spec("Embedding", input_dim=30, output_dim=19, mask_zero=True),
            spec("LSTM", units=37, **sequence, recurrent_dropout=0.3),
            spec("Bidirectional", layer=spec("GRU", units=21, **sequence), merge_mode="concat"),
            spec("LayerNormalization"),
            spec("BatchNormalization"),
            spec("Dropout", rate=0.3),
            spec("TimeDistributed", layer=spec("Dense", units=50, activation="gelu")),
            spec("GRU", units=18, reset_after=False, recurrent_activation="softmax"),
            spec("Dense", units=7, activation="softmax"),
            dtype="int32",
        ),
        ENTROPY, batch=67, seed=1,
    )  # fmt: skip
    yield Case(
        chain(
            (None, 10, 8),
            spec("SimpleRNN", units=64, activation="relu"),
            spec("Dense", units=2, activation="softmax"),
        ),
        ENTROPY, batch=300, seed=2,
    )  # fmt: skip
    yield Case(
        chain((None, 3, 5), spec("LSTM", units=300), spec("Dense", units=1)), spec("MeanSquaredError"), 2, seed=3
    )
    yield Case(
        chain(
            (None, 50, 6),
            spec("Conv1D", filters=51, kernel_size=7, activation="gelu"),
            spec("MaxPooling1D", pool_size=3, strides=2, padding="same"),
            spec("Conv1D", filters=36, kernel_size=5, strides=3, padding="same", groups=3),
            spec("AveragePooling1D", pool_size=2),
            spec("Conv1D", filters=7, kernel_size=3, dilation_rate=2, padding="causal", activation="softmax"),
        ),
        ENTROPY, batch=67, seed=4,
    )  # fmt: skip
    yield Case(
        chain(
            (None, 5, 40),
            spec("GaussianNoise", stddev=0.2),
            spec("Dense", units=130, activation="selu", kernel_regularizer=spec("OrthogonalRegularizer", factor=0.1)),
            spec("AlphaDropout", rate=0.2, noise_shape=[None, 1, None]),
            spec("GaussianDropout", rate=0.3),
            spec("ActivityRegularization", l1=0.01, l2=0.02),
            spec("Softmax", axis=1),
            spec("LSTM", units=33, recurrent_regularizer=spec("OrthogonalRegularizer", mode="columns")),
            spec("Dense", units=7, activation="sparsemax"),
        ),
        spec("MeanSquaredError"), batch=67, seed=5,
    )  # fmt: skip
    for seed in range(100, 112):
        yield random_case(rng_pick(seed))
        yield random_window_case(rng_pick(seed))


def results(case):
    """What is promised to the bit: initial weights, outputs, loss and gradients, ten Adam steps."""
    model = _core.Model(json.dumps(case.description), 5)
    yield from (model.get_weight(i) for i in range(len(case.weights)))
    for i, w in enumerate(case.weights):
        model.set_weight(i, w)
    metrics = [spec("MeanAbsoluteError")] if case.y.dtype == np.float32 else []
    model.compile(compiling(case.loss, spec("Adam", learning_rate=0.01, global_clipnorm=1.0), metrics))
    yield model.predict(case.x, 32)
    loss, gradients = model.gradients(case.x, case.y, case.sample_weight)
    yield np.float64(loss)
    yield from gradients
    for _ in range(10):
        yield np.float64(model.train_on_batch(case.x, case.y, case.sample_weight, None))
    yield np.float64(model.metric_results())
    yield from (model.get_weight(i) for i in range(len(case.weights)))


def digest():
    """One hash of all results."""
    h = hashlib.sha256()
    for case in cases():
        for value in results(case):
            h.update(np.ascontiguousarray(value).tobytes())
    case = Case(chain((None, 3, 5), spec("GRU", units=18), spec("Dense", units=1)), spec("MeanSquaredError"), 9, seed=4)
    for name in ("Nadam", "Adamax", "Adagrad", "Adadelta", "Ftrl", "Lion", "RMSprop"):
        model = _core.Model(json.dumps(case.description), 5)
        model.compile(compiling(case.loss, spec(name, learning_rate=0.01, weight_decay=0.01)))
        for _ in range(10):
            h.update(np.float64(model.train_on_batch(case.x, case.y, case.sample_weight, None)).tobytes())
        for _, slot in model.optimizer_variables():
            h.update(slot.tobytes())
    for name in _core.ACTIVATIONS:
        h.update(_core.activation(name, np.linspace(-20, 20, 9999, dtype=np.float32).reshape(-1, 3)).tobytes())
    return h.hexdigest()


@pytest.fixture(scope="module")
def here():
    return digest()


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads(threads, here):
    seqcore.set_num_threads(threads)
    assert digest() == here


def check_grids(recurrent, batches):
    head = [spec("Dense", units=3, activation="softmax")]
    for batch in batches:
        case = Case(chain((None, 6, 64), recurrent, *head), ENTROPY, batch, seed=batch)
        seqcore.set_num_threads(1)
        alone = list(results(case))
        for threads in (2, 4, 6, 9):
            seqcore.set_num_threads(threads)
            assert all(np.array_equal(a, b) for a, b in zip(results(case), alone, strict=True))


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_grids(kind):
    """Layers so wide that threads share their units, and batches so large that teams of them share the rows."""
    check_grids(spec(kind, units=290), (2, 24))


@pytest.mark.parametrize("backward", [("LSTM", 290), ("GRU", 203), ("SimpleRNN", 700)])
def test_grids_of_two_directions(backward):
    """Threads share the rows of both halves as one list: of one row each, or with a border within a thread's rows."""
    kind, units = backward
    other = None if kind == "LSTM" else spec(kind, units=units, go_backwards=True)
    check_grids(
        spec("Bidirectional", layer=spec("LSTM", units=290), backward_layer=other, merge_mode="concat"), (1, 3, 24)
    )


@pytest.mark.parametrize("isa", seqcore.show_config()["available_isas"])
def test_instruction_sets(isa, here):
    out = run_python(
        "import test_one_order, seqcore; print(seqcore.show_config()['isa'], test_one_order.digest())", SEQCORE_ISA=isa
    )
    assert out.split() == [isa, here]


def test_a_wrong_isa_is_refused():
    with pytest.raises(AssertionError, match="SEQCORE_ISA"):
        run_python("import seqcore; seqcore.show_config()", SEQCORE_ISA="avx1024")
    assert run_python("import seqcore; print(seqcore.show_config()['isa'])", SEQCORE_ISA="").strip()


@pytest.mark.parametrize("seed", range(30))
def test_batch_of_64_is_64_batches_of_one(seed):
    case = random_case(rng_pick(seed)) if seed % 3 else random_window_case(rng_pick(seed))
    rng = np.random.default_rng(seed)
    x = case.x[rng.integers(0, len(case.x), 64)]
    model = _core.Model(json.dumps(case.description), 5)
    whole = model.predict(x, 64)
    for size in (1, 7, 32):
        assert np.array_equal(model.predict(x, size), whole)  # may put batches together
        parts = [model.predict(x[i : i + size], size) for i in range(0, 64, size)]
        assert np.array_equal(np.concatenate(parts), whole)
    rows = [model.forward(x[i : i + 1], False, None, None)[0][0][0] for i in range(64)]
    assert np.array_equal(np.stack(rows), whole)


def test_a_sequence_whole_or_in_pieces():
    items = [spec("LSTM", units=20, return_sequences=True, return_state=True)]
    model = _core.Model(json.dumps(chain((None, None, 6), *items)), 5)
    x = np.random.default_rng(0).normal(size=(3, 40, 6)).astype(np.float32)
    (whole, *_), _ = model.forward(x, False, None, None)
    states, pieces = None, []
    for t in range(0, 40, 8):
        (y, *states), _ = model.forward(np.ascontiguousarray(x[:, t : t + 8]), False, None, states)
        pieces.append(y)
    assert np.array_equal(np.concatenate(pieces, 1), whole)


def fit(seed):
    """A short fit with dropout and shuffling; the weights and the history as bytes."""
    from seqcore import layers, models

    seqcore.utils.set_random_seed(seed)
    model = models.Sequential()
    model.add(layers.LSTM(9, dropout=0.3, recurrent_dropout=0.2, input_shape=(5, 4)))
    model.add(layers.Dropout(0.4))
    model.add(layers.Dense(3, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    history = model.fit(rng.random((50, 5, 4)), rng.integers(0, 3, 50), epochs=3, batch_size=16, verbose=0)
    return b"".join(w.tobytes() for w in model.get_weights()) + repr(history.history).encode()


def test_set_random_seed_repeats_a_run_to_the_bit():
    assert fit(3) == fit(3)
    assert fit(3) != fit(4)
    other = run_python("import test_one_order; print(test_one_order.fit(3).hex())", PYTHONHASHSEED=5, OMP_NUM_THREADS=3)
    assert other.strip() == fit(3).hex()


def test_without_a_seed_runs_differ():
    code = "from seqcore.layers import Dense; print(Dense(2)([[1.0, 2.0, 3.0]]).tobytes())"
    assert run_python(code) != run_python(code)
