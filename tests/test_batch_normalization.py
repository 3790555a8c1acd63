"""BatchNormalization in training against the float64 reference: statistics, gradients through them, masks, steps that
are batches of their own; when the moving statistics move and who leaves them alone."""

import copy
import json
import math

import numpy as np
import pytest

import seqcore
from seqcore import _core, layers, models
from support import Case, assert_close, chain, compiling, nudge, prefixes, run_python, same_bits, spec

MSE = spec("MeanSquaredError")
SGD = spec("SGD", learning_rate=1.0)
BARE = {"center": False, "scale": False}


def norm(**config):
    return spec("BatchNormalization", **config)


def distributed(layer):
    return spec("TimeDistributed", layer=layer)


def check_training(case, optimizer=SGD, steps=1, trainable=None, rtol=2e-5):
    """Losses and all weights, moving statistics among them, after some updates, against the reference: with SGD of rate
    1 these are the gradients."""
    more = {} if trainable is None else {"trainable": trainable}
    model = _core.Model(json.dumps(case.description), 0)
    for i, w in enumerate(case.weights):
        model.set_weight(i, w)
    model.compile(compiling(case.loss, optimizer, **more))
    pair = [case.reference(), case.reference(nudge(case.weights))]
    for reference in pair:
        reference.compile(json.loads(compiling(case.loss, optimizer, **more)))
    for step in range(steps):
        losses = [r.train_step(case.x, case.y, case.sample_weight) for r in pair]
        assert_close(
            model.train_on_batch(case.x, case.y, case.sample_weight, None), *losses, rtol, f"loss of step {step}"
        )
    assert model.skipped_steps == 0
    names = [f"{w.layer}/{w.name}" for w in model.weights]
    assert names == ["/".join(map(str, key)) for key in pair[0].names]
    for i, (expected, nearby) in enumerate(zip(*(r.get_weights() for r in pair), strict=True)):
        assert_close(model.get_weight(i), expected, nearby, rtol, names[i])
    return model


@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}, BARE], ids=str)
@pytest.mark.parametrize("features", [1, 3, 16, 17, 37])
@pytest.mark.parametrize("shape", [(2,), (7,), (65,), (3, 1), (5, 7), (67, 11)], ids=str)
def test_statistics_of_the_batch(shape, features, options):
    batch, *steps = shape
    items = [spec("Dense", units=features, activation="tanh"), norm(**options, momentum=0.75), spec("Dense", units=2)]
    case = Case(chain((None, *steps, 3), *items), MSE, batch, seed=features)
    check_training(case)
    check_training(case, spec("Adam", learning_rate=0.01, epsilon=1e-3), steps=3, rtol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("item", [norm(), distributed(norm(momentum=0.5)), norm(**BARE)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_between_recurrent_layers(item, masked, seed):
    layers_ = [
        *([spec("Masking", mask_value=0.0)] if masked else []),
        spec("GRU", units=19, return_sequences=True),
        item,
        spec("LSTM", units=5, return_sequences=seed == 0),
        norm(gamma_regularizer=spec("L2", l2=0.1), beta_regularizer=spec("L1", l1=0.1)),
        spec("Dense", units=3, activation="softmax"),
    ]
    case = Case(chain((None, 6, 4), *layers_), spec("SparseCategoricalCrossentropy"), 9, seed=seed)
    if masked:
        case.x[0], case.x[1, 2:], case.x[:, 5] = 0, 0, 0  # a sample, a tail, a step
    check_training(case)
    check_training(case, spec("SGD", learning_rate=0.1, momentum=0.9), steps=4, rtol=1e-4)


def test_masked_rows_are_normalised_and_their_gradient_arrives():
    """Flatten reads them; the statistics are not of them. Nor are they of rows that only a later mask leaves out."""
    first, second = spec("Masking", mask_value=0.0), spec("Masking", mask_value=0.0)
    flat = [first, spec("Dense", units=5), norm(), spec("Flatten"), spec("Dense", units=2)]
    case = Case(chain((None, 6, 4), *flat), MSE, 9, seed=1)
    check_training(case)
    relu, gru = spec("Activation", activation="relu"), spec("GRU", units=4, return_sequences=True)
    for item in (norm(), distributed(norm())):
        for before in ([], [first]):
            dense = [*before, spec("Dense", units=5), spec("Dense", units=1), item, relu, second, gru]
            case = Case(chain((None, 6, 4), *dense), MSE, 9, seed=1)
            model = check_training(case)
            mask = model.forward(case.x, False, None, None)[1]
            assert 0.1 < mask.mean() < 0.9


@pytest.mark.parametrize("steps", [1, 4])
def test_each_step_of_time_distributed_is_a_call(steps):
    for item, shape in [
        (distributed(norm(momentum=0.5)), (steps, 3)),
        (distributed(norm(momentum=0.5)), (steps, 2, 3)),
        (distributed(distributed(norm(momentum=0.5))), (steps, 2, 3)),
        (distributed(distributed(norm(momentum=0.5))), (steps, 2, 3, 2)),
    ]:
        items = [spec("Dense", units=17), item, spec("Dense", units=2)]
        check_training(Case(chain((None, *shape), *items), MSE, 5, seed=3))
    x = np.random.default_rng(0).normal(size=(6, 3, 2)).astype(np.float32)
    layer = layers.TimeDistributed(layers.BatchNormalization(momentum=0.5, epsilon=0.0))
    y = layer(x, training=True)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-5)
    expected = 0
    for t in range(3):
        expected = 0.5 * expected + 0.5 * x[:, t].mean(0)
    np.testing.assert_allclose(layer.layer.moving_mean.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("masked", [False, True])
def test_frozen_ones_use_the_moving_statistics(masked, frozen):
    """And hand on the gradient that belongs to that."""
    first = [spec("Masking", mask_value=0.0)] if masked else []
    dense = spec("Dense", units=7, use_bias=False)  # a bias before batch statistics has no gradient
    items = [*first, dense, norm(), spec("LSTM", units=3), norm(), spec("Dense", units=2)]
    case = Case(chain((None, 5, 4), *items), MSE, 6, seed=2)
    flags = [w.layer != len(first) + 1 or not frozen for w in _core.Model(json.dumps(case.description), 0).weights]
    model = check_training(case, trainable=flags)
    for i, trains in enumerate(flags):
        assert np.array_equal(model.get_weight(i), case.weights[i]) != trains


def test_nan_in_masked_rows_reaches_nothing():
    """An embedding of padding that is no number."""
    items = [spec("Embedding", input_dim=7, output_dim=5, mask_zero=True), norm(), spec("GRU", units=4), norm()]
    case = Case(chain((None, 6), *items, dtype="int32"), MSE, 8, seed=1)
    for item in (items[1], distributed(items[1])):
        case.description["layers"][1] = item
        found = []
        for padding in (np.nan, 1.0):
            case.weights[0][0] = padding
            model = check_training(case) if padding == 1 else None
            if model is None:
                model = _core.Model(json.dumps(case.description), 0)
                for i, w in enumerate(case.weights):
                    model.set_weight(i, w)
                model.compile(compiling(MSE, SGD))
                model.train_on_batch(case.x, case.y, case.sample_weight, None)
            found.append([model.get_weight(i)[i == 0 :] for i in range(len(case.weights))])
        assert same_bits(*found)


def test_nothing_valid_counts_as_zeros():
    """As in Keras: a batch that is all padding has mean 0 and variance 0."""
    layer = layers.BatchNormalization(momentum=0.75)
    layer.build((None, 4, 3))
    layer.set_weights([np.ones(3), np.zeros(3), np.full(3, 8.0), np.full(3, 4.0)])
    y = layer(np.ones((2, 4, 3)), training=True, mask=np.zeros((2, 4), bool))
    np.testing.assert_allclose(y, 1 / math.sqrt(1e-3), rtol=1e-5)
    assert layer.moving_mean.numpy().tolist() == [6.0] * 3 and layer.moving_variance.numpy().tolist() == [3.0] * 3


def test_variance_far_from_zero():
    """The mean of squared deviations, not a difference of large squares."""
    x = (np.random.default_rng(0).normal(size=(1000, 7, 3)) + 1e3).astype(np.float32)
    layer = layers.BatchNormalization(momentum=0.0)
    y = layer(x, training=True)
    np.testing.assert_allclose(layer.moving_variance.numpy(), x.astype(np.float64).var((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(y.std((0, 1)), 1, rtol=1e-3)


def test_threads_and_sizes_give_the_same_bits():
    """So large that threads share columns, rows and steps."""
    for item in (norm(), distributed(norm())):
        items = [spec("Masking", mask_value=0.0), spec("Dense", units=261), item, spec("Dense", units=3)]
        case = Case(chain((None, 40, 5), *items), MSE, 70, seed=4)
        found = []
        for threads in (1, 2, 3, 7):
            seqcore.set_num_threads(threads)
            model = _core.Model(json.dumps(case.description), 0)
            for i, w in enumerate(case.weights):
                model.set_weight(i, w)
            model.compile(compiling(MSE, spec("SGD", learning_rate=0.1)))
            losses = [model.train_on_batch(case.x, case.y, None, None) for _ in range(3)]
            found.append([np.float64(losses), *map(model.get_weight, range(len(case.weights)))])
        assert all(same_bits(f, found[0]) for f in found)


def digest():
    """What `test_instruction_sets` compares: training, predict and a stream as one hash."""
    import hashlib

    h = hashlib.sha256()
    for masked in (False, True):
        first = [spec("Masking", mask_value=0.0)] if masked else []
        items = [*first, spec("GRU", units=37, return_sequences=True), norm(), distributed(norm())]
        items += [spec("LSTM", units=5), norm(), spec("Dense", units=2)]
        case = Case(chain((None, 33, 4), *items), MSE, 19, seed=4)
        model = _core.Model(json.dumps(case.description), 0)
        for i, w in enumerate(case.weights):
            model.set_weight(i, w)
        model.compile(compiling(MSE, spec("Adam", learning_rate=0.01)))
        for _ in range(5):
            h.update(np.float64(model.train_on_batch(case.x, case.y, None, None)).tobytes())
        h.update(b"".join(model.get_weight(i).tobytes() for i in range(len(case.weights))))
        h.update(model.predict(case.x, 7).tobytes())
        h.update(np.concatenate([g.ravel() for g in model.gradients(case.x, case.y, None)[1]]).tobytes())
    return h.hexdigest()


@pytest.mark.parametrize("isa", seqcore.show_config()["available_isas"])
def test_instruction_sets(isa):
    assert run_python("import test_batch_normalization as t; print(t.digest())", SEQCORE_ISA=isa).strip() == digest()


# ------------------------------------------------------------------------------------------------------------ the layer


def small(**config):
    model = models.Sequential([
        layers.Input((5, 3)), layers.LSTM(4, return_sequences=True), layers.BatchNormalization(**config),
        layers.GRU(3), layers.Dense(2),
    ])  # fmt: skip
    model.compile(seqcore.optimizers.Adam(0.01), "mse")
    return model


def data(n=40):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 5, 3)).astype(np.float32), rng.normal(size=(n, 2)).astype(np.float32)


def moving(model):
    return np.concatenate([v.numpy() for v in model.weights if v.statistic])


def test_weights_their_order_and_who_trains_them():
    layer = layers.BatchNormalization(name="bn")
    assert layer.gamma_initializer is not None
    layer.build((None, 7, 3))
    assert [v.path for v in layer.weights] == ["bn/gamma", "bn/beta", "bn/moving_mean", "bn/moving_variance"]
    assert [v.name for v in layer.trainable_weights] == ["gamma", "beta"]
    assert [v.name for v in layer.non_trainable_weights] == ["moving_mean", "moving_variance"]
    assert [v.trainable for v in layer.weights] == [True, True, False, False]
    assert [w.tolist() for w in layer.get_weights()] == [[1.0] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3]
    assert layer.count_params() == 12
    layer.trainable = False
    assert not layer.trainable_weights and len(layer.non_trainable_weights) == 4
    bare = layers.BatchNormalization(center=False, scale=False, moving_mean_initializer="ones",
                                     moving_variance_initializer=lambda s, dtype=None: np.full(s, 4.0))  # fmt: skip
    assert bare.gamma is None and bare.beta is None
    np.testing.assert_allclose(bare(np.full((1, 2), 3.0)), 2 / math.sqrt(4.001), rtol=1e-6)
    assert [v.name for v in bare.weights] == ["moving_mean", "moving_variance"]
    model = small()
    assert [v.name for v in model.non_trainable_weights] == ["moving_mean", "moving_variance"]
    assert len(model.trainable_weights) == len(model.weights) - 2
    lines = []
    model.summary(print_fn=lines.append)
    total = model.count_params()
    assert any(f"Trainable params: {total - 8:,}" in line for line in lines)
    assert " Non-trainable params: 8 (32.00 B)" in lines
    wrapped = layers.TimeDistributed(layers.BatchNormalization())
    wrapped.build((None, 4, 3))
    assert [v.name for v in wrapped.trainable_weights] == ["gamma", "beta"] and len(wrapped.non_trainable_weights) == 2


def test_optimizers_know_nothing_of_statistics():
    x, y = data()
    model = small()
    before = moving(model)
    model.compile(seqcore.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.5, clipnorm=0.1, weight_decay=0.5), "mse")
    model.fit(x, y, batch_size=10, epochs=2, verbose=0)
    assert not np.array_equal(moving(model), before)
    slots = len(model.trainable_weights) * 3
    assert len(model.optimizer.variables) == slots + 2
    statistics = [i for i, v in enumerate(model.weights) if v.statistic]
    names = [name for name, _ in model._network.core.optimizer_variables()]
    assert len(names) == slots and not {int(n.rpartition("/")[2]) for n in names} & set(statistics)
    gradients = model._network.core.gradients(x, y, None)[1]
    assert all((gradients[i] == 0).all() for i in statistics)
    # No decay and no average reaches them: they are what the batches gave.
    plain = small(momentum=0.0)
    plain.set_weights(model.get_weights())
    plain.compile(seqcore.optimizers.SGD(0.0, weight_decay=0.5, use_ema=True), "mse")
    plain.fit(x, y, batch_size=40, verbose=0)
    h = models.Sequential([layers.Input((5, 3)), *plain.layers[:1]]).predict(x, verbose=0).astype(np.float64)
    np.testing.assert_allclose(moving(plain), [*h.mean((0, 1)), *h.var((0, 1))], rtol=1e-4, atol=1e-6)


def test_constraints_of_gamma_and_beta():
    model = small(gamma_constraint="non_neg", beta_constraint=seqcore.constraints.UnitNorm())
    model.layers[1].gamma.assign([-1.0, -1.0, 1.0, 1.0])
    model.train_on_batch(*data())
    gamma, beta = model.layers[1].get_weights()[:2]
    assert (gamma[:2] == 0).all() and (gamma[2:] > 0).all()
    assert np.sqrt((beta**2).sum()) == pytest.approx(1, rel=1e-5)


def test_they_move_with_every_batch_that_trains_and_with_no_other():
    x, y = data()
    model = small()
    for call in (lambda: model.predict(x, verbose=0), lambda: model.evaluate(x, y, verbose=0), lambda: model(x),
                 lambda: model.test_on_batch(x, y), lambda: model.layers[1](np.ones((2, 5, 4)))):  # fmt: skip
        before = moving(model)
        call()
        assert np.array_equal(moving(model), before)
    for call in (lambda: model.train_on_batch(x, y), lambda: model(x, training=True),
                 lambda: model.layers[1](np.ones((2, 5, 4)), training=True)):  # fmt: skip
        before = model.get_weights()
        call()
        assert not np.array_equal(moving(model), np.concatenate(before[5:7]))
    # With accumulation weights wait for the last batch; the statistics do not.
    model.compile(seqcore.optimizers.SGD(0.1, gradient_accumulation_steps=3), "mse")
    for batch in range(3):
        before = model.get_weights()
        model.train_on_batch(x[batch * 10 : batch * 10 + 10], y[batch * 10 : batch * 10 + 10])
        changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
        assert changed == [batch == 2 or v.statistic for v in model.weights]


def test_moving_by_momentum():
    x = np.random.default_rng(0).normal(2, 3, size=(50, 4)).astype(np.float32)
    layer = layers.BatchNormalization(momentum=0.9)
    y = layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.9 + 0.1 * x.var(0), rtol=1e-5)
    np.testing.assert_allclose(y, (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3), rtol=1e-4, atol=1e-5)
    quiet = layer(x)
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    np.testing.assert_allclose(quiet, (x - mean) / np.sqrt(variance + 1e-3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("what", ["layer", "model", "wrapper"])
def test_frozen(what):
    """Inference mode in training, eagerly and in fit; thawed it moves again."""
    x, y = data()
    model = small()
    wrapped = layers.TimeDistributed(layers.BatchNormalization())
    if what == "wrapper":
        model = models.Sequential([layers.Input((5, 3)), layers.Dense(4), wrapped, layers.GRU(3), layers.Dense(2)])
    chosen = {"layer": lambda: model.layers[1], "model": lambda: model, "wrapper": lambda: wrapped}[what]()
    model.fit(x, y, verbose=0) if model.compiled else model.compile("sgd", "mse")
    chosen.trainable = False
    model.compile("sgd", "mse")
    before, expected = model.get_weights(), model.predict(x, verbose=0)
    statistics = moving(model)
    assert np.array_equal(model(x, training=True), expected)
    loss = model.evaluate(x, y, verbose=0, batch_size=40)
    assert model.train_on_batch(x, y) == pytest.approx(loss, rel=1e-6)
    assert np.array_equal(moving(model), statistics)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
    assert changed == [what != "model" and v in model.trainable_weights for v in model.weights]
    chosen.trainable = True
    model.compile("sgd", "mse")
    model.train_on_batch(x, y)
    assert not np.array_equal(moving(model), statistics)


def test_a_batch_that_is_refused_moves_nothing():
    x, y = data()
    model = small()
    model.train_on_batch(x, y)
    before = model.get_weights()
    bad = x.copy()
    bad[3, 2] = np.nan
    with pytest.warns(RuntimeWarning, match="not finite"):
        model.train_on_batch(bad, y)
    with pytest.raises(ValueError, match="y"):
        model.train_on_batch(x, y[:, :1])
    assert same_bits(model.get_weights(), before)
    alone = models.Sequential([layers.Input((2,)), layers.BatchNormalization(center=False, scale=False)])
    alone.compile("sgd", "mse")
    with pytest.warns(RuntimeWarning, match="not finite"):
        alone.train_on_batch(np.full((3, 2), np.nan), np.ones((3, 2)))
    assert np.isfinite(moving(alone)).all()
    alone.train_on_batch(np.ones((3, 2)), np.ones((3, 2)))
    np.testing.assert_allclose(moving(alone), [0.01, 0.01, 0.99, 0.99], rtol=1e-5)


def test_layers_that_models_share():
    """A layer called by itself, and two models of one layer, move the same statistics."""
    x, y = data()
    shared = layers.BatchNormalization(momentum=0.5)
    first = models.Sequential([layers.Input((5, 3)), shared, layers.GRU(2)])
    second = models.Sequential([layers.Input((5, 3)), shared, layers.LSTM(2)])
    for model in (first, second):
        model.compile("sgd", "mse")
    mean, expected = np.zeros(3), x.astype(np.float64).mean((0, 1))
    for call in (lambda: first.train_on_batch(x, y), lambda: second.train_on_batch(x, y),
                 lambda: shared(x, training=True), lambda: first(x, training=True), lambda: second.fit(
                     x, y, batch_size=40, verbose=0)):  # fmt: skip
        call()
        mean = 0.5 * mean + 0.5 * expected
        for model in (first, second):
            np.testing.assert_allclose(moving(model)[:3], mean, rtol=1e-4)
    for model in (first, second):
        fresh = models.Sequential.from_config(model.get_config())
        fresh.set_weights(model.get_weights())
        assert np.array_equal(model.predict(x, verbose=0), fresh.predict(x, verbose=0))


def test_training_goes_on_from_a_file_to_the_bit(tmp_path):
    x, y = data()
    for make in (small, lambda: models.Sequential(
        [layers.Input((5, 3)), layers.TimeDistributed(layers.BatchNormalization(scale=False, center=False)),
         layers.GRU(2)])):  # fmt: skip
        model = make()
        model.compile("rmsprop", "mse")
        model.fit(x, y, batch_size=16, verbose=0)
        model.save(tmp_path / "m.safetensors")
        model.save_weights(tmp_path / "w.safetensors")
        others = [models.load_model(tmp_path / "m.safetensors"), copy.deepcopy(model)]
        only = make()
        only.load_weights(tmp_path / "w.safetensors")
        assert same_bits(only.get_weights(), model.get_weights())
        model.fit(x, y, batch_size=16, verbose=0)
        for other in others:
            assert not np.array_equal(moving(other), moving(model))
            other.fit(x, y, batch_size=16, verbose=0)
            assert same_bits(other.get_weights(), model.get_weights())


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_streams(precision):
    """A step is predict's, to the bit in float32; weights and statistics that change later do not reach it."""
    for wrapped in (False, True):
        one = layers.BatchNormalization(scale=not wrapped)
        model = models.Sequential([
            layers.Input((None, 3)), layers.BatchNormalization(), layers.LSTM(19, return_sequences=True),
            layers.TimeDistributed(one) if wrapped else one, layers.GRU(5), layers.BatchNormalization(),
            layers.Dense(2),
        ])  # fmt: skip
        rng = np.random.default_rng(1)
        model.set_weights([rng.uniform(0.2, 1, w.shape) for w in model.get_weights()])
        x = rng.normal(size=(9, 3)).astype(np.float32)
        expected = prefixes(model, x, precision=precision)
        for threads in (1, 2):
            stream, several = model.stream(precision, threads=threads), model.streams(3, precision, threads=threads)
            steps = np.stack([stream.step(row) for row in x])
            together = np.stack([several.step(np.stack([row] * 3)) for row in x])
            assert all(np.array_equal(together[:, i], together[:, 0]) for i in range(3))
            if precision == "float32":
                assert np.array_equal(steps, expected) and np.array_equal(together[:, 0], expected)
            else:
                np.testing.assert_allclose(steps, expected, rtol=0.1, atol=0.1)
        later = model.stream(precision)
        model.compile("sgd", "mse")
        model.fit(np.ones((4, 2, 3)), np.ones((4, 2)), verbose=0)
        assert np.array_equal(np.stack([later.step(row) for row in x]), steps)


CTRL_C = """
import os, signal, threading
import numpy as np
from seqcore import layers, models
signal.signal(signal.SIGINT, signal.default_int_handler)
lstm = layers.LSTM(512, return_sequences=True)
model = models.Sequential([layers.Input((100, 256)), layers.BatchNormalization(), lstm, layers.BatchNormalization(),
                           layers.Dense(4)])
model.compile("adam", "mse")
x, y = np.ones((640, 100, 256), np.float32), np.ones((640, 100, 4), np.float32)
before = model.get_weights()
threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    CALL
    print("finished early")
except KeyboardInterrupt:
    print("interrupted")
assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
model.train_on_batch(x[:2], y[:2])
assert not np.array_equal(before[2], model.get_weights()[2])
"""


@pytest.mark.parametrize("call", ["model.fit(x, y, batch_size=640, verbose=0)", "model(x, training=True)"])
def test_ctrl_c_moves_nothing(call):
    assert run_python(CTRL_C.replace("CALL", call), timeout=300).strip() == "interrupted"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.BatchNormalization(axis=None), "`axis` of BatchNormalization"),
        (lambda: layers.BatchNormalization(axis=[1, 2]), "`axis` of BatchNormalization"),
        (lambda: layers.BatchNormalization(axis=True), "`axis` of BatchNormalization"),
        (lambda: layers.BatchNormalization(axis=1)(np.ones((2, 3, 4))), "`axis` of BatchNormalization.* got 1"),
        (lambda: layers.BatchNormalization(axis=-2)(np.ones((2, 3, 4))), "`axis` of BatchNormalization.* got -2"),
        (lambda: layers.BatchNormalization(axis=3)(np.ones((2, 3, 4))), "`axis` of BatchNormalization.* got 3"),
        (lambda: layers.BatchNormalization(momentum=1.5), "`momentum` of BatchNormalization"),
        (lambda: layers.BatchNormalization(epsilon=-1e-3), "`epsilon` of BatchNormalization"),
        (lambda: layers.BatchNormalization(synchronized=True), "`synchronized` of BatchNormalization: expected False"),
        (lambda: layers.BatchNormalization(renorm=True), "`renorm` of BatchNormalization: expected False"),
        (lambda: layers.BatchNormalization(fused=True), "fused"),
        (lambda: layers.BatchNormalization()(np.ones(3)), "last axis after the batch"),
        (lambda: layers.BatchNormalization()(np.ones((2, 3, 4, 5)), mask=np.ones((2, 3), bool)), "mask"),
        (lambda: layers.TimeDistributed(layers.BatchNormalization())(
            np.ones((2, 3, 4, 5)), mask=np.ones((2, 3), bool)), "mask"),
    ],
)  # fmt: skip
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_taken():
    for axis, shape in [(-1, (2, 3)), (1, (2, 3)), (2, (2, 3, 4)), ([2], (2, 3, 4)), (np.int64(3), (2, 2, 3, 4))]:
        layer = layers.BatchNormalization(axis=axis, synchronized=False, renorm=False, renorm_momentum=0.9)
        assert layer(np.ones(shape)).shape == shape and layer.get_config()["axis"] == np.ravel(axis)[0]
    for bad, message in [
        ({"axis": 1}, r"axis must be the last one \(-1\), got 1"), ({"axis": [1, 2]}, "axis must be the last axis"),
        ({"renorm": True}, "unknown key 'renorm'"),
        ({"moving_mean_initializer": spec("Nothing")}, "initializer: unknown class_name 'Nothing'"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            _core.Model(json.dumps(chain((None, 3, 4), norm(**bad))), 0)
    model = _core.Model(json.dumps(chain((None, 3), norm())), 0)
    with pytest.raises(ValueError, match="trainable"):
        model.forward(np.ones((2, 3), np.float32), True, None, None, [True])
