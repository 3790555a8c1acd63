"""The reference against central differences of itself: its backward is the derivative of its forward."""

import numpy as np
import pytest

from reference import penalties
from reference.activations import ACTIVATIONS
from reference.layers import STATISTICS
from reference.model import Model
from support import chain, random_case, random_window_case, rng_pick, spec, target

RNG = np.random.default_rng
STENCIL = {1: 8, -1: -8, 2: -1, -2: 1}


def check_gradients(description, loss, x, y, mask=None, sample_weight=None, noise=None):
    """Fourth-order central differences along a random direction of every weight."""
    rng = RNG(5)
    model = Model(description)
    names = [name.rpartition("/")[2] for _, name in model.names]
    weights = [0.4 * rng.normal(size=s) for s in model.shapes]
    weights = [np.abs(w) if name == "moving_variance" else w for w, name in zip(weights, names)]

    def value(w):
        model.set_weights(w)
        return model.loss_and_gradients(loss, x, y, sample_weight, mask, noise)

    _, gradients = value(weights)
    for k, w in enumerate(weights):
        if names[k] in STATISTICS:  # no gradient's business
            assert (gradients[k] == 0).all()
            continue
        direction = rng.normal(size=w.shape)
        direction /= np.sqrt((direction**2).sum())
        step = 1e-4
        f = {s: value([v + s * step * direction if j == k else v for j, v in enumerate(weights)])[0] for s in STENCIL}
        numeric = sum(c * f[s] for s, c in STENCIL.items()) / (12 * step)
        analytic = (gradients[k] * direction).sum()
        assert abs(numeric - analytic) <= 1e-6 * max(abs(numeric), 1e-2), (model.names[k], numeric, analytic)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    x = RNG(0).normal(size=(50, 4)) * 2
    value, gradient = ACTIVATIONS[name]
    dy, direction, step = RNG(1).normal(size=x.shape), RNG(2).normal(size=x.shape), 1e-6
    numeric = (dy * (value(x + step * direction) - value(x - step * direction))).sum() / (2 * step)
    assert numeric == pytest.approx((gradient(x, value(x), dy) * direction).sum(), rel=1e-6)


@pytest.mark.parametrize("sigma", ["sigmoid", "silu", "softmax"])
@pytest.mark.parametrize("phi", ["tanh", "relu", "gelu", "softmax"])
@pytest.mark.parametrize("cell", ["SimpleRNN", "LSTM", "GRU", "GRU reset before"])
@pytest.mark.parametrize("variant", range(4))
def test_cell(cell, phi, sigma, variant):
    kind = cell.split()[0]
    rng = RNG(variant)
    config = {
        "units": 3, "activation": phi, "return_sequences": True, "use_bias": variant != 1,
        "go_backwards": variant == 2, "zero_output_for_mask": variant == 3,
    }  # fmt: skip
    if kind != "SimpleRNN":
        config["recurrent_activation"] = sigma
    if kind == "GRU":
        config["reset_after"] = "before" not in cell
    gates = {"SimpleRNN": 1, "LSTM": 4, "GRU": 3}[kind]
    noise = {"input": (rng.random((gates, 2, 2)) > 0.3) / 0.7, "recurrent": (rng.random((gates, 2, 3)) > 0.3) / 0.7}
    description = chain((None, 4, 2), spec(kind, **config), spec("Dense", units=2))
    x, y = rng.normal(size=(2, 4, 2)), rng.normal(size=(2, 4, 2))
    check_gradients(description, spec("MeanSquaredError"), x, y, rng.random((2, 4)) > 0.3, rng.random(2), {0: noise})


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize(
    ("name", "activation", "config"),
    [
        ("MeanSquaredError", "linear", {}),
        ("MeanAbsoluteError", "tanh", {}),
        ("Huber", "linear", {"delta": 0.7}),
        ("BinaryCrossentropy", "sigmoid", {"label_smoothing": 0.1}),
        ("BinaryCrossentropy", "hard_sigmoid", {}),
        ("CategoricalCrossentropy", "softmax", {"label_smoothing": 0.1}),
        ("CategoricalCrossentropy", "sigmoid", {}),
        ("CategoricalCrossentropy", "linear", {"from_logits": True}),
        ("SparseCategoricalCrossentropy", "softmax", {}),
    ],
)
def test_losses_and_layers(name, activation, config, reduction):
    """Every layer, with penalties on weights and outputs, a mask from Embedding and weights per step."""
    rng = RNG(3)
    l2 = spec("L2", l2=0.1)
    mode = ["concat", "sum", "mul", "ave"][len(name + reduction) % 4]
    gru = spec("GRU", units=3, return_sequences=True, activity_regularizer=l2)
    description = chain(
        (None, 4),
        spec("Embedding", input_dim=5, output_dim=4, mask_zero=True, embeddings_regularizer=l2),
        spec("Bidirectional", layer=gru, merge_mode=mode),
        spec("LayerNormalization"),
        spec("TimeDistributed", layer=spec("Dense", units=4, activation="tanh", activity_regularizer=l2)),
        spec("Dropout", rate=0.3),
        spec("Activation", activation="tanh"),
        spec("Dense", units=3, activation=activation, activity_regularizer=spec("L1", l1=0.1),
             kernel_regularizer=spec("L1L2", l1=0.01, l2=0.02)),
        dtype="int32",
    )  # fmt: skip
    loss = spec(name, reduction=reduction, **config)
    noise = {4: (rng.random((3, 4, 4)) > 0.3) / 0.7}
    x = rng.integers(0, 5, (3, 4))
    check_gradients(description, loss, x, target(loss, (3, 4, 3), rng), None, rng.random((3, 4)), noise)


@pytest.mark.parametrize("seed", range(20))
def test_random_models(seed):
    case = random_case(rng_pick(seed))
    check_gradients(case.description, case.loss, case.x.astype(np.float64), case.y)


@pytest.mark.parametrize("seed", range(40))
def test_random_windows(seed):
    case = random_window_case(rng_pick(seed))
    check_gradients(case.description, case.loss, case.x.astype(np.float64), case.y)


@pytest.mark.parametrize("kind", ["Average", "Max"])
def test_global_pooling(kind):
    description = chain(
        (None, 4, 3), spec("Masking"), spec("GRU", units=3, return_sequences=True),
        spec(f"Global{kind}Pooling1D", keepdims=True), spec("Flatten"),
    )  # fmt: skip
    rng = RNG(5)
    x = rng.normal(size=(3, 4, 3))
    x[0, 1:3] = x[1, 0] = 0
    check_gradients(description, spec("MeanSquaredError"), x, rng.normal(size=(3, 3)))


def test_layers_that_move_numbers():
    description = chain(
        (None, 4, 3), spec("Dense", units=2), spec("Permute", dims=[2, 1]), spec("Reshape", target_shape=[4, -1]),
        spec("GRU", units=3), spec("RepeatVector", n=3), spec("LSTM", units=2, return_sequences=True), spec("Flatten"),
    )  # fmt: skip
    rng = RNG(4)
    check_gradients(description, spec("MeanSquaredError"), rng.normal(size=(3, 4, 3)), rng.normal(size=(3, 6)))


@pytest.mark.parametrize("masked", [False, True])
def test_softmax_over_steps(masked):
    description = chain(
        (None, 4, 3), *([spec("Masking")] if masked else []), spec("Dense", units=2), spec("Softmax", axis=1),
        spec("GRU", units=3),
    )  # fmt: skip
    rng = RNG(5)
    x = rng.normal(size=(3, 4, 3))
    x[0, 1:3] = x[1] = 0
    check_gradients(description, spec("MeanSquaredError"), x, rng.normal(size=(3, 3)))


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_penalties_of_directions_and_outputs(mode):
    penalty = spec("OrthogonalRegularizer", factor=0.7, mode=mode)
    description = chain(
        (None, 4, 3), spec("Dense", units=5, kernel_regularizer=penalty), spec("ActivityRegularization", l2=0.2),
        spec("LSTM", units=3, recurrent_regularizer=penalty),
    )  # fmt: skip
    rng = RNG(5)
    check_gradients(description, spec("MeanSquaredError"), rng.normal(size=(3, 4, 3)), rng.normal(size=(3, 3)))


@pytest.mark.parametrize("name", ["GaussianNoise", "GaussianDropout", "AlphaDropout"])
def test_noise(name):
    item = spec(name, stddev=0.5) if name == "GaussianNoise" else spec(name, rate=0.4)
    rng = RNG(5)
    noise = {1: rng.random((3, 4, 5)) > 0.4 if name == "AlphaDropout" else rng.normal(size=(3, 4, 5))}
    description = chain((None, 4, 3), spec("Dense", units=5), item, spec("LSTM", units=3))
    x, y = rng.normal(size=(3, 4, 3)), rng.normal(size=(3, 3))
    check_gradients(description, spec("MeanSquaredError"), x, y, noise=noise)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", [{}, {"center": False, "scale": False}, {"gamma_regularizer": spec("L2", l2=0.1)}])
@pytest.mark.parametrize("distributed", [False, True])
def test_batch_normalization(distributed, options, masked, training):
    """Through the statistics of the batch, to what they were made of; also from masked rows, which Flatten reads."""
    norm = spec("BatchNormalization", **options)
    description = chain(
        (None, 4, 3), *([spec("Masking")] if masked else []), spec("Dense", units=5, activation="tanh"),
        spec("TimeDistributed", layer=norm) if distributed else norm, spec("LSTM", units=3, return_sequences=True),
        spec("BatchNormalization"), spec("Flatten"), spec("Dense", units=2), spec("BatchNormalization"),
    )  # fmt: skip
    rng = RNG(6)
    x, first = rng.normal(size=(6, 4, 3)), 2 if masked else 1
    x[0, 1:3] = x[1, 0] = 0
    noise = {i: True for i in (first, first + 2, first + 5)} if training else None
    check_gradients(description, spec("MeanSquaredError"), x, rng.normal(size=(6, 2)), noise=noise)


def test_moving_statistics_by_hand():
    model = Model(chain((None, 2, 1), spec("TimeDistributed", layer=spec("BatchNormalization", momentum=0.75))))
    model.set_weights([np.ones(1), np.zeros(1), np.array([2.0]), np.array([4.0])])
    x = np.array([[[1.0], [5.0]], [[3.0], [9.0]]])
    model.forward(x, noise={0: True})  # means 2 and 7, variances 1 and 4
    np.testing.assert_allclose(model.get_weights()[2:], [[0.75 * 2 + 0.25 * 7], [0.75 * 3.25 + 0.25 * 4]])


@pytest.mark.parametrize("name", ["MeanSquaredError", "SparseCategoricalCrossentropy"])
def test_nothing_valid_gives_zero(name):
    loss = spec(name)
    description = chain(
        (None, 3, 2), spec("Masking"), spec("LSTM", units=2, return_sequences=True), spec("Dense", units=2)
    )
    model = Model(description)
    model.set_weights([np.ones(s) for s in model.shapes])
    y = target(loss, (2, 3, 2), RNG(0))
    value, gradients = model.loss_and_gradients(loss, np.zeros((2, 3, 2)), y)
    assert value == 0 and all((g == 0).all() for g in gradients)


def test_constraints_by_hand():
    w = np.array([[3.0, 0.3], [4.0, -0.4]])
    close = lambda actual, expected: np.testing.assert_allclose(actual, expected, rtol=1e-6)  # noqa: E731
    close(penalties.constrain(spec("MaxNorm", max_value=1.0), w), [[0.6, 0.3], [0.8, -0.4]])
    close(penalties.constrain(spec("UnitNorm"), w), [[0.6, 0.6], [0.8, -0.8]])
    close(penalties.constrain(spec("NonNeg"), w), [[3.0, 0.3], [4.0, 0.0]])
    close(
        penalties.constrain(spec("MinMaxNorm", min_value=1.0, max_value=2.0, rate=0.5), w), [[2.1, 0.45], [2.8, -0.6]]
    )
