"""The engine against the float64 reference: every layer, activation and mask; random models; finite differences."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqcore
from reference.activations import ACTIVATIONS, activate, activate_backward
from reference.recurrent import GATES
from seqcore import _core
from support import ELEMENTWISE, Case, assert_close, chain, compiling, nudge, random_case, spec

MSE = spec("MeanSquaredError")


def engine(case, optimizer=None):
    """The core model of a case, with its weights and its loss."""
    model = _core.Model(json.dumps(case.description), 0)
    for i, w in enumerate(case.weights):
        model.set_weight(i, w)
    model.compile(compiling(case.loss, optimizer))
    return model


def check_layer(case, sample_weight=None):
    """Weights' names and shapes, forward, loss and gradients of a model against the reference."""
    model, reference = engine(case), case.reference()
    assert [(w.layer, w.name, tuple(w.shape)) for w in model.weights] == [
        (*key, tuple(shape)) for key, shape in zip(reference.names, reference.shapes)
    ]
    nearby = case.reference(nudge(case.weights))
    loss, gradients = reference.loss_and_gradients(case.loss, case.x, case.y, sample_weight)
    near_loss, near_gradients = nearby.loss_and_gradients(case.loss, case.x, case.y, sample_weight)

    (y,), mask = model.forward(case.x, False, None, None)
    assert_close(y, reference.values[-1], nearby.values[-1], what="forward")
    assert np.array_equal(model.predict(case.x, 32), y)
    assert (mask is None) == (reference.mask is None)
    if mask is not None:
        assert np.array_equal(mask, reference.mask)
    value, actual = model.gradients(case.x, case.y, sample_weight)
    assert_close(value, loss, near_loss, what="loss")
    # One scale for all weights: a gradient that vanishes beside the others may be made of their rounding.
    scale = max(np.abs(g).max(initial=0.0) for g in gradients)
    for weight, a, g, near in zip(model.weights, actual, gradients, near_gradients):
        allowed = max(1e-5 * np.abs(g).max(initial=0.0), 2e-6 * scale, 1e-8) + 4 * np.abs(near - g).max(initial=0.0)
        error = np.abs(a - g).max(initial=0.0)
        assert a.shape == g.shape and error <= allowed, f"{weight.layer}/{weight.name}: {error:.3g} > {allowed:.3g}"


# --------------------------------------------------------------------------------------------------------- activations


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    """Within a few roundings of the value, and of x where the value is what is left of it (squareplus, gelu)."""
    x = np.concatenate([np.linspace(-30, 30, 2000), np.geomspace(1e-8, 1, 100), -np.geomspace(1e-8, 1, 100)])
    x = x.astype(np.float32).reshape(-1, 5)
    expected = activate(name, x.astype(np.float64))
    y = _core.activation(name, x)
    assert y.dtype == np.float32 and y.shape == x.shape
    assert (np.abs(y - expected) <= 2e-6 * np.abs(expected) + 2e-7 * np.abs(x)).all()
    dy = np.linspace(-1, 1, x.size).astype(np.float32).reshape(x.shape)
    dx = _core.activation_gradient(name, x, dy)
    expected = activate_backward(name, x.astype(np.float64), dy.astype(np.float64))
    largest = np.abs(dy).max(-1, keepdims=True)
    assert (np.abs(dx - expected) <= 4e-6 * np.maximum(np.abs(expected), largest)).all()


def test_activations_are_all_there():
    assert sorted(_core.ACTIVATIONS) == sorted(ACTIVATIONS)


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_ranges_and_specials(name):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40], np.float32)
    y = _core.activation(name, x)
    low = {"tanh": -1.0, "sigmoid": 0.0}[name]
    assert y[2] == y[5] == 1.0 and y[3] == y[6] == low and np.isnan(y[4])
    assert (np.abs(y[[0, 1]]) == (0.0 if name == "tanh" else 0.5)).all()


# -------------------------------------------------------------------------------------------------------------- layers

RECURRENT = {
    "SimpleRNN": spec("SimpleRNN", units=7),
    "LSTM": spec("LSTM", units=7),
    "GRU": spec("GRU", units=7),
    "GRU reset before": spec("GRU", units=7, reset_after=False),
}


def recurrent(name, **config):
    item = RECURRENT[name]
    return spec(item["class_name"], **{**item["config"], **config})


def cell_case(item, steps=5, features=6, batch=3, head=True):
    layers = [item, spec("Dense", units=3)] if head else [item]
    return Case(chain((None, steps, features), *layers), MSE, batch, seed=4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("slot", ["activation", "recurrent_activation"])
@pytest.mark.parametrize("name", RECURRENT)
def test_every_activation_in_every_slot(name, slot, activation):
    if (name, slot) == ("SimpleRNN", "recurrent_activation"):
        with pytest.raises(ValueError, match="recurrent_activation"):
            engine(cell_case(recurrent(name, recurrent_activation=activation)))
    else:
        check_layer(cell_case(recurrent(name, **{slot: activation}), steps=2 if activation == "exponential" else 5))


@pytest.mark.parametrize("name", RECURRENT)
def test_saturated_gates(name):
    """Pre-activations of any size, in all combinations: results like the reference's, never beyond 1."""
    case = cell_case(recurrent(name, units=500, return_sequences=True), head=False)
    rng = np.random.default_rng(5)
    bias = case.weights[2]
    bias[...] = rng.choice(np.float32([-3e38, -88.5, -87, -69, -50, -17, -1, 0, 1, 17, 50, 69, 88.5, 3e38]), bias.shape)
    if bias.ndim == 2:
        bias[1] = 0  # of the two that are added, one
    check_layer(case)
    (y,), _ = engine(case).forward(case.x, False, None, None)
    assert np.abs(y).max() <= 1


@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_bias": False},
        {"go_backwards": True},
        {"unroll": True},
        {"zero_output_for_mask": True},
        {"kernel_regularizer": spec("L1", l1=0.1), "recurrent_regularizer": spec("L2", l2=0.1)},
        {"bias_regularizer": spec("L1L2", l1=0.1, l2=0.2), "activity_regularizer": spec("L2", l2=0.1)},
        {"kernel_constraint": spec("NonNeg"), "dropout": 0.5, "recurrent_dropout": 0.5},
        {"units": 1},
        {"units": 64, "activation": "relu"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent(name, config, sequences):
    check_layer(cell_case(recurrent(name, **config, return_sequences=sequences)))


@pytest.mark.parametrize("steps", [1, 2, 37])
@pytest.mark.parametrize("features", [1, 17])
@pytest.mark.parametrize("batch", [1, 2, 65])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_shapes(name, batch, features, steps):
    check_layer(cell_case(recurrent(name, units=17, return_sequences=steps == 2), steps, features, batch))


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", RECURRENT)
def test_bidirectional(name, merge_mode, sequences, masked):
    layer = recurrent(name, return_sequences=sequences, activity_regularizer=spec("L2", l2=0.1))
    first = [spec("Masking", mask_value=0.0)] if masked else []
    layers = [*first, spec("Bidirectional", layer=layer, merge_mode=merge_mode), spec("Dense", units=2)]
    check_layer(Case(chain((None, 6, 3), *layers), MSE, 4, seed=9))


def test_bidirectional_of_two_different_layers():
    forward = spec("LSTM", units=5, return_sequences=True)
    backward = spec("GRU", units=5, return_sequences=True, go_backwards=True)
    check_layer(cell_case(spec("Bidirectional", layer=forward, backward_layer=backward, merge_mode="sum")))


L1, L2 = spec("L1", l1=0.1), spec("L2", l2=0.1)


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((4,), [spec("Dense", units=3, use_bias=False)]),
        ((1,), [spec("Dense", units=1)]),
        ((2, 3, 5), [spec("Dense", units=33, activation="softmax")]),
        ((40,), [spec("Dense", units=130, activation="gelu", kernel_regularizer=L1, bias_regularizer=L2)]),
        ((3, 4), [spec("Dense", units=5, activity_regularizer=L1), spec("Flatten"), spec("Dense", units=2)]),
        (
            (3, 4),
            [spec("TimeDistributed", layer=spec("Dense", units=5, activity_regularizer=L2, kernel_regularizer=L1))],
        ),
        ((3, 4, 2), [spec("TimeDistributed", layer=spec("Flatten")), spec("Dense", units=2)]),
        ((12,), [spec("Reshape", target_shape=[4, 3]), spec("LSTM", units=3)]),
        ((7, 6), [spec("GRU", units=8, return_sequences=True), spec("Reshape", target_shape=[-1, 7]), spec("Flatten")]),
        ((5, 3, 4), [spec("Dense", units=6), spec("Reshape", target_shape=[2, 9, -1]), spec("Dense", units=2)]),
        ((5, 4), [spec("Dense", units=3), spec("Reshape", target_shape=[15]), spec("Reshape", target_shape=[15])]),
        ((5, 6), [spec("TimeDistributed", layer=spec("Reshape", target_shape=[2, 3])), spec("Dense", units=2)]),
        ((5, 4), [spec("Dense", units=17), spec("Permute", dims=[2, 1]), spec("SimpleRNN", units=3)]),
        ((2, 3, 5), [spec("Dense", units=4), spec("Permute", dims=[3, 1, 2]), spec("Dense", units=2)]),
        ((3, 2, 3, 4), [spec("Dense", units=5), spec("Permute", dims=[2, 4, 1, 3]), spec("Flatten")]),
        ((3,), [spec("Dense", units=4), spec("Permute", dims=[1]), spec("Dense", units=2)]),
        ((3,), [spec("Dense", units=17), spec("RepeatVector", n=1), spec("LSTM", units=2)]),
        (
            (5, 3),
            [spec("LSTM", units=4), spec("RepeatVector", n=7), spec("GRU", units=5, return_sequences=True)],
        ),
        ((4, 3), [spec("TimeDistributed", layer=spec("RepeatVector", n=2)), spec("Dense", units=2)]),
        *(
            ((5, 3), [*first, spec("GRU", units=17, return_sequences=True), spec(f"Global{kind}Pooling1D", **more)])
            for kind in ("Average", "Max")
            for first in ([], [spec("Masking", mask_value=0.5)])
            for more in ({}, {"keepdims": True})
        ),
        ((3, 4, 2), [spec("TimeDistributed", layer=spec("LSTM", units=3)), spec("Dense", units=2)]),
        ((5, 33), [spec("LayerNormalization"), spec("Dense", units=2)]),
        ((33,), [spec("Dense", units=17), spec("LayerNormalization", center=False, epsilon=0.1, gamma_regularizer=L2)]),
        ((3,), [spec("Dense", units=4), spec("LayerNormalization", scale=False, beta_regularizer=L1)]),
        ((5, 33), [spec("BatchNormalization"), spec("Dense", units=2)]),
        ((33,), [spec("Dense", units=17), spec("BatchNormalization", center=False, epsilon=0.1, gamma_regularizer=L2)]),
        ((2, 3, 4), [spec("Dense", units=5), spec("BatchNormalization", scale=False, beta_regularizer=L1)]),
        ((4, 3), [spec("Masking", mask_value=0.5), spec("Dense", units=5), spec("BatchNormalization")]),
        ((4, 3), [spec("Dense", units=4), spec("TimeDistributed", layer=spec("BatchNormalization"))]),
        ((3,), [spec("Dense", units=4), spec("Dropout", rate=0.5), spec("Activation", activation="softmax")]),
        *(
            ((6,), [spec("Dense", units=4), spec("Activation", activation=a), spec("Dense", units=2)])
            for a in ELEMENTWISE
        ),
    ],
    ids=lambda v: str(v) if isinstance(v, tuple) else "-".join(i["class_name"] for i in v),
)
def test_layer(shape, layers):
    check_layer(Case(chain((None, *shape), *layers), MSE, 5, seed=2))


@pytest.mark.parametrize("kind", ["Average", "Max"])
@pytest.mark.parametrize("masked", [False, True])
def test_global_pooling(kind, masked):
    """With masks, one of them over a whole sample, and with steps that share the maximum."""
    layers = [
        *([spec("Masking", mask_value=0.0)] if masked else []),
        spec("SimpleRNN", units=19, activation="relu", return_sequences=True),
        spec(f"Global{kind}Pooling1D"),
        spec("Dense", units=2),
    ]
    case = Case(chain((None, 7, 3), *layers), MSE, 6, seed=3)
    case.x[np.random.default_rng(0).random(case.x.shape[:2]) < 0.5] = 0
    case.x[2] = 0
    check_layer(case)


def test_steps_of_any_number_reshaped():
    model = seqcore.Sequential([seqcore.Input((None, 6)), seqcore.layers.Reshape((-1, 2, 3))])
    assert model.output_shape == (None, None, 2, 3)
    for steps in (1, 8):
        x = np.random.default_rng(0).normal(size=(3, steps, 6)).astype(np.float32)
        np.testing.assert_array_equal(model.predict(x, verbose=0), x.reshape(3, steps, 2, 3))
    reshape, permute = seqcore.layers.Reshape, seqcore.layers.Permute
    for layer in (reshape((6, -1)), reshape((-1,)), reshape((2, 3, -1)), permute((2, 1))):
        with pytest.raises(ValueError, match="known"):
            seqcore.Sequential([seqcore.Input((None, 6)), layer, seqcore.layers.Dense(1)]).predict(np.ones((2, 4, 6)))
        own = {k: v for k, v in layer.get_config().items() if k in ("target_shape", "dims")}
        layers = [spec(type(layer).__name__, **own)]
        with pytest.raises(ValueError, match="known"):
            _core.Model(json.dumps({"input": {"shape": [None, None, 6], "dtype": "float32"}, "layers": layers}), 0)


def test_another_number_of_steps_of_an_unknown_one():
    """Trained and run as with that number; numbers that do not come out even are refused with the data."""
    both = [
        chain((None, steps, 6), spec("Dense", units=6), spec("Reshape", target_shape=[-1, 4]), spec("LSTM", units=3),
              spec("RepeatVector", n=2), spec("Reshape", target_shape=[-1, 2]), spec("Dense", units=1))
        for steps in (None, 4)
    ]  # fmt: skip
    for description in both:
        case = Case(chain((None, 4, 6), *description["layers"]), MSE, 5, seed=1)
        case.description = description
        check_layer(case)
    model = seqcore.Sequential([seqcore.Input((None, 6)), seqcore.layers.Reshape((-1, 4))])
    assert model.output_shape == (None, None, 4)
    for steps in (2, 8):
        x = np.random.default_rng(0).normal(size=(3, steps, 6)).astype(np.float32)
        assert np.array_equal(model.predict(x, verbose=0), x.reshape(3, -1, 4))
    with pytest.raises(ValueError, match=r"Reshape: the total size must stay.*4.*3, 6"):
        model.predict(np.ones((3, 3, 6)), verbose=0)
    model = seqcore.Sequential([seqcore.Input((None, 6)), seqcore.layers.Reshape((4, 3)), seqcore.layers.Flatten()])
    assert model.output_shape == (None, 12)
    assert np.array_equal(model.predict(x[:, :2], verbose=0), x[:, :2].reshape(3, 12))
    with pytest.raises(ValueError, match="Reshape: the total size must stay"):
        model.predict(x, verbose=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("axis", [1, -2])
def test_softmax_over_steps(axis, masked):
    """Masked steps are 0, whatever they hold, and the others add up to 1."""
    item = spec("Softmax", axis=axis)
    begin = [spec("Masking", mask_value=0.5)] if masked else []
    for last in ([spec("LSTM", units=3)], [], [spec("Dense", units=2), item]):
        layers = [*begin, spec("Dense", units=19), item, *last]
        for batch in (5, 70):
            check_layer(Case(chain((None, 7, 3), *layers), MSE, batch, seed=batch))
    layer = seqcore.layers.Softmax(axis=axis)
    assert layer.named_activation() is None and layer.compute_output_shape((None, None, 3)) == (None, None, 3)
    x = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    x[~mask] = np.nan
    y = layer(x, mask=mask)
    assert (y[~mask] == 0).all() and np.array_equal(layer.compute_mask(x, mask), mask)
    np.testing.assert_allclose(y.sum(1), np.repeat([[1], [1], [0], [1]], 3, 1), atol=1e-6)


def test_softmax_over_steps_of_any_rank():
    item = spec("Softmax", axis=1)
    check_layer(Case(chain((None, 5, 3, 2), spec("Dense", units=4), item, spec("Dense", units=2)), MSE, 3, seed=1))
    inside = spec("TimeDistributed", layer=spec("Softmax", axis=-2))
    check_layer(Case(chain((None, 5, 3, 2), spec("Dense", units=4), inside, spec("Dense", units=2)), MSE, 3, seed=1))
    for axis, shape in ((2, (None, 4, 3, 2)), (0, (None, 4, 3)), (3, (None, 4, 3)), (-3, (None, 4, 3))):
        with pytest.raises(ValueError, match=r"`axis` of Softmax: expected -1 \(the last axis\) or 1 \(the steps\)"):
            seqcore.layers.Softmax(axis=axis).compute_output_shape(shape)
        with pytest.raises(ValueError, match="Softmax: axis must be the last one"):
            _core.Model(json.dumps(chain(shape, spec("Softmax", axis=axis))), 0)
    model = seqcore.Sequential([seqcore.Input((None, 3)), seqcore.layers.Softmax(axis=1)])
    with pytest.raises(ValueError, match=r"Softmax\).*the whole sequence"):
        model.stream()


def test_orthogonal_regularizer():
    """Of every kind of weight with two axes, rows and columns, more of them than elements in each and fewer."""
    for mode in ("rows", "columns"):
        penalty = spec("OrthogonalRegularizer", factor=0.7, mode=mode)
        more = {"kernel_regularizer": penalty, "recurrent_regularizer": penalty}
        for units in (2, 33):
            layers = [spec("Dense", units=17, kernel_regularizer=penalty), spec("LSTM", units=units, **more)]
            check_layer(Case(chain((None, 4, 5), *layers, spec("Dense", units=2)), MSE, 5, seed=units))
        table = spec("Embedding", input_dim=11, output_dim=6, embeddings_regularizer=penalty)
        check_layer(Case(chain((None, 4), table, spec("GRU", units=2), dtype="int32"), MSE, 5, seed=1))
    call = seqcore.regularizers.OrthogonalRegularizer(0.5)
    assert call(np.ones((1, 4))) == 0 and call(np.zeros((3, 4))) == 0
    assert call([[1.0, 1.0], [-2.0, -2.0]]) == pytest.approx(0.5)
    assert seqcore.regularizers.get("orthogonal_regularizer").get_config() == {"factor": 0.01, "mode": "rows"}
    with pytest.raises(ValueError, match="OrthogonalRegularizer: expected a weight of 2 axes, got one of 1"):
        call(np.ones(3))
    with pytest.raises(ValueError, match="OrthogonalRegularizer: expected a weight of 2 axes, got one of 1"):
        seqcore.layers.Dense(3, bias_regularizer=call).build((None, 2))
    with pytest.raises(ValueError, match="activity_regularizer must be L1, L2 or L1L2"):
        seqcore.layers.Dense(3, activity_regularizer=call).build((None, 2))
    with pytest.raises(ValueError, match="`mode` of OrthogonalRegularizer: expected one of"):
        seqcore.regularizers.OrthogonalRegularizer(mode="both")
    with pytest.raises(ValueError, match="`factor` of OrthogonalRegularizer: expected a number >= 0"):
        seqcore.regularizers.OrthogonalRegularizer(-1)
    seen = set()
    for threads in (1, 2, 3):
        seqcore.set_num_threads(threads)
        seen.add(call(np.random.default_rng(0).normal(size=(700, 300))))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: seqcore.layers.Reshape(()), "`target_shape` of Reshape: expected positive integers"),
        (lambda: seqcore.layers.Reshape((-1, -1)), "at most one -1"),
        (lambda: seqcore.layers.Reshape((2, 0)), "got \\(2, 0\\)"),
        (lambda: seqcore.layers.Reshape((2, 5))(np.ones((3, 4))), "the total size must stay"),
        (lambda: seqcore.layers.Reshape((3, -1))(np.ones((3, 4))), "the total size must stay"),
        (lambda: seqcore.layers.Permute((0, 1)), "`dims` of Permute: expected the numbers from 1"),
        (lambda: seqcore.layers.Permute((1, 1)), "each once"),
        (lambda: seqcore.layers.Permute((2, 1))(np.ones((3, 4))), "expected 3 axes"),
        (lambda: seqcore.layers.RepeatVector(0), "`n` of RepeatVector"),
        (lambda: seqcore.layers.RepeatVector(2)(np.ones((3, 4, 5))), "expected shape \\(batch, features\\)"),
        (lambda: seqcore.layers.GlobalMaxPool1D()(np.ones((3, 4))), "expected 3 axes"),
        (lambda: seqcore.layers.GlobalAvgPool1D("channels_first"), "`data_format`"),
    ],
)
def test_shapes_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (spec("Reshape", target_shape=[]), "target_shape"),
        (spec("Reshape", target_shape=[-1, -1]), "at most one -1"),
        (spec("Reshape", target_shape=[2.5]), "target_shape"),
        (spec("Reshape", target_shape=[1] * 9), "too many dimensions"),
        (spec("Reshape", target_shape=[7]), "the total size must stay"),
        (spec("Permute", dims=[1, 3]), "dims"),
        (spec("Permute", dims=2), "dims"),
        (spec("Permute", dims=[2, 1, 3]), "expected input of 4 axes"),
        (spec("RepeatVector", n=0), "n"),
        (spec("RepeatVector", n=2), "expected input of shape"),
    ],
    ids=str,
)
def test_shapes_that_the_core_refuses(layer, message):
    description = {"input": {"shape": [None, 3, 4], "dtype": "float32"}, "layers": [layer]}
    with pytest.raises(ValueError, match=message):
        _core.Model(json.dumps(description), 0)


@pytest.mark.parametrize("mask_zero", [False, True])
@pytest.mark.parametrize("shape", [(1,), (9,)])
def test_embedding(shape, mask_zero):
    embedding = spec("Embedding", input_dim=11, output_dim=5, mask_zero=mask_zero, embeddings_regularizer=L2)
    layers = [embedding, spec("LSTM", units=4, return_sequences=True), spec("Dense", units=3)]
    check_layer(Case(chain((None, *shape), *layers, dtype="int32"), MSE, 20, seed=1))
    check_layer(
        Case(chain((None, *shape), embedding, spec("Flatten"), spec("Dense", units=1), dtype="int32"), MSE, 3, seed=1)
    )


@given(st.data())
def test_random_models(data):
    case = random_case(lambda options: data.draw(st.sampled_from(options)))
    check_layer(case)
    check_layer(case, case.sample_weight)


@given(st.data())
def test_gradient_is_the_derivative_of_the_loss(data):
    """Along the gradient, the reference's loss changes as the engine's gradient says."""
    case = random_case(lambda options: data.draw(st.sampled_from(options)))
    gradients = [g.astype(np.float64) for g in engine(case).gradients(case.x, case.y, None)[1]]
    norm = np.sqrt(sum((g * g).sum() for g in gradients))
    step = 1e-6 / max(norm, 1.0)

    def loss(s):
        moved = [w + s * step * g for w, g in zip(case.weights, gradients)]
        return case.reference(moved).loss_and_gradients(case.loss, case.x, case.y)[0]

    slope = [(loss(s) - loss(-s)) / (2 * s * step) for s in (1, 2)]
    kink = abs(slope[0] - slope[1])  # a kink inside the step
    assert abs(slope[0] - norm**2) <= 1e-3 * norm**2 + 2 * kink + 1e-6


# --------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("name", RECURRENT)
def test_what_stands_in_masked_steps_reaches_nothing(name, zero_output):
    """NaN in masked steps: outputs are those without them, row by row; a fully masked row keeps its initial state."""
    rng = np.random.default_rng(0)
    layer = recurrent(name, return_sequences=True, zero_output_for_mask=zero_output)
    case = Case(chain((None, 9, 6), layer), MSE, 6, seed=4)
    case.description["input"]["shape"][1] = None
    model, reference = engine(case), case.reference()
    mask = rng.random((6, 9)) < 0.6
    mask[0], mask[1] = False, True
    poisoned = np.where(mask[..., None], case.x, np.float32(np.nan))
    (y,), _ = model.forward(poisoned, False, mask, None)
    assert_close(y, reference.forward(case.x, mask))
    assert (y[0] == 0).all()
    for row in range(1, 6):
        (alone,), _ = model.forward(np.ascontiguousarray(case.x[row : row + 1, mask[row]]), False, None, None)
        assert np.array_equal(y[row, mask[row]], alone[0])


def test_fully_masked_batch_has_no_loss_and_no_gradient():
    layers = [spec("Masking", mask_value=0.0), spec("GRU", units=4, return_sequences=True), spec("Dense", units=2)]
    case = Case(chain((None, 3, 2), *layers), MSE, 3, seed=0)
    loss, gradients = engine(case).gradients(np.zeros_like(case.x), case.y, None)
    assert loss == 0 and all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_long_batch_with_steps_that_nobody_has(name):
    """Steps masked for the whole batch, in a batch whose caches are fetched ahead: gradients are those without them."""
    steps, padded = 500, 30  # more than 2 MB of caches, from where on they are
    case = Case(chain((None, steps, 3), spec("Masking", mask_value=0.0), recurrent(name, units=129)), MSE, 9, seed=1)
    case.description["input"]["shape"][1] = None
    x = np.concatenate([np.abs(case.x) + 1, np.zeros((9, padded, 3), np.float32)], axis=1)
    loss, gradients = engine(case).gradients(x, case.y, None)
    want, expected = engine(case).gradients(np.ascontiguousarray(x[:, :steps]), case.y, None)
    assert loss == want
    for got, g in zip(gradients, expected, strict=True):
        assert_close(got, g)


def test_masked_targets_are_not_read():
    layers = [spec("Masking", mask_value=0.0), spec("LSTM", units=4, return_sequences=True), spec("Dense", units=2)]
    case = Case(chain((None, 4, 2), *layers), MSE, 3, seed=0)
    x = case.x.copy()
    x[:, 2] = 0
    y = case.y.copy()
    y[:, 2] = 1e30
    expected, actual = (engine(case).gradients(x, target, None) for target in (np.where(y > 1e20, 0, y), y))
    assert expected[0] == actual[0]
    assert all(np.array_equal(a, b) for a, b in zip(expected[1], actual[1]))


# -------------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize("name", RECURRENT)
def test_initial_and_returned_states(name):
    kind = RECURRENT[name]["class_name"]
    rng = np.random.default_rng(1)
    case = cell_case(recurrent(name, return_sequences=True, return_state=True), head=False)
    model, reference = engine(case), case.reference()
    states = [rng.normal(size=(3, 7)).astype(np.float32) for _ in range(2 if kind == "LSTM" else 1)]
    mask = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1]], bool)
    outputs, _ = model.forward(case.x, False, mask, states)
    reference.layers[0].state = [s.astype(np.float64) for s in states]
    assert_close(outputs[0], reference.forward(case.x, mask), what="sequence")
    for actual, expected in zip(outputs[1:], reference.layers[0].states, strict=True):
        assert_close(actual, expected, what="state")
    assert np.array_equal(outputs[1][1], states[0][1]) and np.array_equal(outputs[0][1, 0], states[0][1])


@pytest.mark.parametrize("name", RECURRENT)
def test_stateful_is_one_long_sequence(name):
    whole = cell_case(recurrent(name, return_sequences=True), steps=12, head=False)
    description = json.loads(json.dumps(whole.description))
    description["input"]["shape"] = [3, 4, 6]
    description["layers"][0]["config"]["stateful"] = True
    model = _core.Model(json.dumps(description), 0)
    for i, w in enumerate(whole.weights):
        model.set_weight(i, w)
    expected = engine(whole).predict(whole.x, 3)
    parts = [np.ascontiguousarray(whole.x[:, t : t + 4]) for t in (0, 4, 8)]
    for _ in range(2):
        model.reset_states(-1)
        assert np.array_equal(np.concatenate([model.predict(p, 3) for p in parts], 1), expected)
    states = model.get_states(0)
    model.reset_states(0)
    again = model.predict(parts[0], 3)
    model.set_states(0, states)
    carried = model.predict(parts[0], 3)
    assert not np.array_equal(again, carried)
    assert np.array_equal(again, expected[:, :4])
    with pytest.raises(ValueError, match="batch"):
        model.predict(parts[0][:2].copy(), 2)


# ------------------------------------------------------------------------------------------------------------- dropout


def drawn_noise(name, rate, recurrent_rate, batch, features, counter):
    """The multipliers that a recurrent layer draws, read through one linear step whose weights copy one gate's dropped
    input or state to the output: x = h0 = c0 = 1, and biases of 1 at the gates that must let it pass."""
    kind = RECURRENT[name]["class_name"]
    gates, n = GATES[kind], features
    config = {"units": n, "activation": "linear", "dropout": rate, "recurrent_dropout": recurrent_rate}
    if kind != "SimpleRNN":
        config["recurrent_activation"] = "linear"
    open_gates = {
        "SimpleRNN": [[]],
        "LSTM": [[2, 3], [3], [0, 3], [1]],  # h = o (f c0 + i g)
        "GRU": [[], [5], [1]],  # h = z h0 + (1 - z) (x_h + r (rec_h + bias[5]))
    }[kind]
    model = _core.Model(json.dumps(chain((None, 1, n), recurrent(name, **config))), 11)

    def read(gate, source):
        weights = [np.zeros((n, gates * n), np.float32), np.zeros((n, gates * n), np.float32)]
        weights[source][:, gate * n : (gate + 1) * n] = np.eye(n)
        bias = np.zeros((6 if kind == "GRU" else gates, n), np.float32)
        bias[open_gates[gate]] = 1
        weights.append(bias.reshape(2, -1) if kind == "GRU" else bias.reshape(-1))
        for i, w in enumerate(weights):
            model.set_weight(i, w)
        model.rng_counter = counter
        states = [np.ones((batch, n), np.float32)] * (2 if kind == "LSTM" else 1)
        (y, *_), _ = model.forward(np.ones((batch, 1, n), np.float32), True, None, states)
        return y

    inputs, states = (np.stack([read(g, source) for g in range(gates)]) for source in (0, 1))
    return {"input": inputs, "recurrent": states}


def test_dropout_layer_multiplies_by_zero_or_the_inverse():
    case = Case(chain((None, 50), spec("Dropout", rate=0.2)), MSE, 200, seed=0)
    model = engine(case)
    ones = np.ones((200, 50), np.float32)
    (y,), _ = model.forward(ones, True, None, None)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(1 - np.float32(0.2))}
    assert abs((y == 0).mean() - 0.2) < 0.02  # five standard deviations of 10,000 draws
    assert abs(np.corrcoef((y[:, :-1] == 0).ravel(), (y[:, 1:] == 0).ravel())[0, 1]) < 0.05
    (again,), _ = model.forward(ones, True, None, None)
    assert not np.array_equal(y, again)
    (quiet,), _ = model.forward(ones, False, None, None)
    assert np.array_equal(quiet, ones)
    model.rng_counter -= 1
    (repeated,), _ = model.forward(ones, True, None, None)
    assert np.array_equal(repeated, again)


@pytest.mark.parametrize("noise_shape", [None, [None] * 4, [None, 1, None, None], [1, None, 1, 3], [None, 5, 4, 1],
                                         [1, 1, None, 1], [1, 1, 1, 1]])  # fmt: skip
def test_dropout_noise_shape(noise_shape):
    """The draws are broadcast, and the gradient goes back through them; no noise_shape is one without a 1."""
    items = [spec("Dense", units=3), spec("Dropout", rate=0.5, noise_shape=noise_shape), spec("Dense", units=2)]
    case = Case(chain((None, 5, 4, 3), *items), MSE, 6, seed=0)
    alone = _core.Model(json.dumps(chain((None, 5, 4, 3), spec("Dropout", **{**items[1]["config"], "seed": 7}))), 0)
    (noise,), _ = alone.forward(np.ones((6, 5, 4, 3), np.float32), True, None, None)
    assert set(np.unique(noise)) <= {0.0, 2.0}
    shared = tuple(i for i, n in enumerate(noise_shape or [None]) if n == 1)
    one = noise[tuple(slice(0, 1) if i in shared else slice(None) for i in range(4))]
    assert np.array_equal(noise, np.broadcast_to(one, noise.shape))
    if one.size > 10:
        assert 0 < one.mean() < 2 and all(np.unique(one, axis=i).shape[i] > 1 for i in range(4) if i not in shared)
    items[1]["config"]["seed"] = 7
    model = _core.Model(json.dumps(chain((None, 5, 4, 3), *items)), 0)
    for i, w in enumerate(case.weights):
        model.set_weight(i, w)
    model.compile(compiling(MSE, spec("SGD", learning_rate=1.0)))
    reference = case.reference()
    loss, gradients = reference.loss_and_gradients(MSE, case.x, case.y, None, noise={1: noise})
    assert_close(model.train_on_batch(case.x, case.y, None, None), loss)
    for i, (w, g) in enumerate(zip(case.weights, gradients, strict=True)):
        assert_close(w - model.get_weight(i), g, rtol=1e-4)


def test_spatial_dropout():
    """The bits of Dropout with one draw for all steps: outputs, and weights after some updates."""
    found = []
    for first in (
        spec("SpatialDropout1D", rate=0.5, seed=7),
        spec("Dropout", rate=0.5, seed=7, noise_shape=[None, 1, None]),
    ):
        description = chain((None, 9, 3), spec("Dense", units=20), first, spec("Dense", units=2))
        case = Case(description, MSE, 6, seed=0)
        model = engine(case, spec("SGD", learning_rate=0.1))
        losses = [model.train_on_batch(case.x, case.y, None, None) for _ in range(3)]
        found.append((losses, *(model.get_weight(i).tobytes() for i in range(4))))
    assert found[0] == found[1]
    noise = seqcore.layers.SpatialDropout1D(0.5)(np.ones((4, 9, 50)), training=True)
    assert set(np.unique(noise)) == {0.0, 2.0} and (noise == noise[:, :1]).all() and (noise[0] != noise[1]).any()
    for refused in (np.ones((4, 9)), np.ones((4, 9, 2, 2))):
        with pytest.raises(ValueError, match="expected 3 axes"):
            seqcore.layers.SpatialDropout1D(0.5)(refused)
    with pytest.raises(ValueError, match="SpatialDropout1D: expected input of shape"):
        _core.Model(json.dumps(chain((None, 9), spec("SpatialDropout1D", rate=0.5))), 0)


def test_dropout_noise_shape_through_fit_and_what_it_refuses():
    model = seqcore.Sequential([seqcore.Input((3, 4)), seqcore.layers.Dropout(0.5, noise_shape=(None, 1, 4))])
    model.compile("sgd", "mse")
    assert np.isfinite(model.fit(np.ones((2, 3, 4)), np.ones((2, 3, 4)), verbose=0).history["loss"][0])
    for bad in [(None, 1), (None, 2, None), (2, 1, None), (None, 1, 5), (None, 1, 1, 1)]:
        with pytest.raises(ValueError, match=r"noise_shape of Dropout: expected .* \(None, 3, 4\)"):
            seqcore.layers.Dropout(0.5, noise_shape=bad)(np.ones((2, 3, 4)))


@pytest.mark.parametrize("rates", [(0.4, 0.0), (0.0, 0.4), (0.3, 0.4)])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_dropout_gradients(name, rates):
    """With the random state held, the loss along each weight's step of SGD falls as the gradient's norm says."""
    case = cell_case(recurrent(name, dropout=rates[0], recurrent_dropout=rates[1], units=8), steps=6, batch=16)
    model = engine(case, spec("SGD", learning_rate=1.0))
    start = [w.astype(np.float64) for w in case.weights]

    def train(weights):
        for i, w in enumerate(weights):
            model.set_weight(i, w.astype(np.float32))
        model.rng_counter = 5
        loss = model.train_on_batch(case.x, case.y, None, None)
        return loss, [model.get_weight(i).astype(np.float64) for i in range(len(weights))]

    loss, after = train(start)
    assert loss != engine(case).gradients(case.x, case.y, None)[0]
    gradient = [b - a for a, b in zip(after, start)]
    for k, g in enumerate(gradient):
        norm = np.sqrt((g * g).sum())
        step = 0.01 / norm
        up, down = (train([w + s * step * g if i == k else w for i, w in enumerate(start)])[0] for s in (1, -1))
        assert (up - down) / (2 * step) == pytest.approx(norm**2, rel=1e-3)


@pytest.mark.parametrize("rates", [(0.5, 0.0), (0.0, 0.25), (0.5, 0.25)])
@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_recurrent_dropout_against_the_reference(name, rates):
    """One mask for all steps; one input mask for all gates, or with recurrent_dropout masks of their own per gate."""
    noise = drawn_noise(name, *rates, batch=4, features=6, counter=9)
    for key, rate in zip(("input", "recurrent"), rates):
        inverse = np.float32(1) / (np.float32(1) - np.float32(rate))
        assert set(np.unique(noise[key])) == ({np.float32(0), inverse} if rate else {np.float32(1)})
    gates = len(noise["input"])
    same = [
        np.array_equal(noise[k][i], noise[k][j])
        for k, r in zip(noise, rates)
        if r
        for i in range(gates)
        for j in range(i)
    ]
    assert not any(same) if rates[1] else all(same)
    check_noise(name, {"dropout": rates[0], "recurrent_dropout": rates[1]}, noise, counter=9)


def check_noise(name, rates, noise, counter):
    """A sequence in training mode against the reference with these multipliers."""
    case = Case(chain((None, 5, 6), recurrent(name, units=6, return_sequences=True, **rates)), MSE, 4, seed=3)
    model = _core.Model(json.dumps(case.description), 11)
    for i, w in enumerate(case.weights):
        model.set_weight(i, w)
    model.rng_counter = counter
    (y,), _ = model.forward(case.x, True, None, None)
    assert_close(y, case.reference().forward(case.x, noise={0: noise}))


@pytest.mark.parametrize(
    "item",
    [
        spec("ReLU", negative_slope=0.5), spec("LeakyReLU"), spec("ELU"), spec("Softmax"), spec("Dropout", rate=0.5),
        spec("Activation", activation="tanh"), spec("Activation", activation="softmax"),
        spec("GaussianNoise", stddev=1.0),
    ],
    ids=json.dumps,
)  # fmt: skip
def test_vectors_of_layers_without_weights(item):
    layer = seqcore.layers.deserialize(item)
    assert layer.built and layer.weights == [] and layer.count_params() == 0
    x = np.float32([-2.0, 0.5, 3.0])
    assert np.array_equal(layer(x), layer(x[None])[0])
    assert layer(x, training=True).shape == (3,)
    with pytest.raises(ValueError, match=r"entries with the batch|known last axis"):
        layer(x, mask=[True] * 3)
