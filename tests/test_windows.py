"""Conv1D, MaxPooling1D and AveragePooling1D: against the reference, in their shapes, beside each other, refused."""

import json

import numpy as np
import pytest

import seqcore
from seqcore import _core, layers
from support import Case, assert_close, chain, random_window_case, rng_pick, same_bits, spec
from test_layers import MSE, check_layer

PADDINGS = ["valid", "same", "causal"]


@pytest.mark.parametrize("seed", range(60))
def test_random_windows(seed):
    case = random_window_case(rng_pick(seed))
    check_layer(case)
    check_layer(case, case.sample_weight)


@pytest.mark.parametrize("activation", [None, "relu", "silu", "softmax"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("filters", [1, 17, 130])
@pytest.mark.parametrize("features", [1, 19])
def test_conv1d_shapes(features, filters, padding, activation):
    """One feature, odd widths, more taps than a product has segments, more rows than a block of gradients."""
    config = {"activation": activation} if activation else {}
    conv = spec("Conv1D", filters=filters, kernel_size=10, padding=padding, **config)
    check_layer(Case(chain((None, 37, features), spec("Dense", units=features), conv), MSE, 11, seed=1))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("size", "stride", "dilation"), [(1, 1, 1), (2, 1, 9), (3, 2, 1), (2, 5, 1), (9, 4, 1), (5, 1, 3)]
)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_conv1d_windows(groups, size, stride, dilation, padding):
    """Windows that lie apart, and some that see padding alone."""
    conv = spec("Conv1D", filters=51 if groups == 3 else 34, kernel_size=size, strides=stride, dilation_rate=dilation,
                groups=groups, padding=padding)  # fmt: skip
    steps = max((size - 1) * dilation + 1, 5) if padding == "valid" else 5
    for more in (0, 1, 2):
        description = chain((None, steps + more, 6), spec("Dense", units=6), conv, spec("LSTM", units=2))
        check_layer(Case(description, MSE, 3, seed=more))


@pytest.mark.parametrize("kind", ["Max", "Average"])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, None), (3, 1), (2, 3), (5, 2)])
def test_pooling(kind, padding, size, stride):
    """Steps that share the maximum among them."""
    items = [spec("Dense", units=19, activation="relu"), spec(f"{kind}Pooling1D", pool_size=size, strides=stride,
             padding=padding), spec("Dense", units=2)]  # fmt: skip
    for steps in (5, 6, 7, 12):
        case = Case(chain((None, steps, 3), *items), MSE, 4, seed=steps)
        case.x[:, 1::2] = case.x[:, :1]
        check_layer(case)


def test_the_largest_is_nan_where_there_is_one():
    x = np.array([[[1.0], [np.nan], [3.0], [2.0], [2.0], [np.nan]]], np.float32)
    y = layers.MaxPool1D(3)(x)
    assert np.isnan(y).all()
    assert layers.AvgPool1D(2)(x)[0, 1] == 2.5


@pytest.mark.parametrize("first", ["Embedding", "Masking", "LSTM"])
def test_a_mask_ends(first):
    """As in Keras: what lies in masked steps counts, and no layer behind knows of them."""
    begin = {
        "Embedding": layers.Embedding(5, 4, mask_zero=True),
        "Masking": layers.Masking(0.0),
        "LSTM": layers.LSTM(4, return_sequences=True),
    }[first]
    x = np.array([[1, 2, 0, 3, 0, 0]]) if first == "Embedding" else np.array([[1.0, 2, 0, 3, 0, 0]])[..., None]
    for layer in (layers.Conv1D(3, 2), layers.MaxPooling1D(2), layers.AveragePooling1D(2)):
        model = seqcore.Sequential([begin, layer, layers.LSTM(2, return_sequences=True)])
        y = model(x)
        alone = seqcore.Sequential([layer, model.layers[2]])(begin(x))
        assert not layer.supports_masking and np.array_equal(y, alone)
        mask = np.arange(6)[None] < 3
        assert begin.compute_mask(x, mask) is not None and layer.compute_mask(begin(x), mask) is None


def test_a_mask_begins_behind():
    """Masking of what a convolution makes: its gradient comes with a mask of fewer steps than the input has."""
    items = [
        spec("Conv1D", filters=5, kernel_size=3, activation="relu"),
        spec("MaxPooling1D", pool_size=2),
        spec("Masking", mask_value=0.0),
        spec("GRU", units=4, return_sequences=True),
        spec("Dense", units=2),
    ]
    case = Case(chain((None, 14, 3), spec("Dense", units=4), *items), MSE, 6, seed=1)
    case.weights[3][:] = -0.6
    reference = case.reference()
    reference.forward(case.x)
    assert reference.mask.any() and not reference.mask.all()
    check_layer(case)


# ------------------------------------------------------------------------------------------------- the number of steps


def windows_model(steps, kind="valid"):
    """Embedding → Conv1D → MaxPooling1D → LSTM → Dense, for any number of steps or a fixed one."""
    return seqcore.Sequential([
        layers.Input((steps,), dtype="int32"),
        layers.Embedding(20, 12),
        layers.Conv1D(16, 5, padding=kind, activation="relu"),
        layers.MaxPooling1D(3),
        layers.LSTM(8),
        layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip


def test_shapes_of_steps_unknown_and_known():
    model = windows_model(None)
    assert model.layer_shapes() == [(None, None, 12), (None, None, 16), (None, None, 16), (None, 8), (None, 1)]
    assert model.compute_output_shape((4, 30)) == (4, 1)
    assert windows_model(30).layer_shapes()[1:3] == [(None, 26, 16), (None, 8, 16)]
    conv = layers.Conv1D(7, 3, strides=2, padding="same")
    assert conv.compute_output_shape((2, 9, 4)) == (2, 5, 7)
    assert conv.compute_output_shape((2, None, 4)) == (2, None, 7)
    lines = []
    model.summary(print_fn=lines.append)
    assert "(None, None, 16)" in lines[1] and "conv1d" in lines[1] and "(Conv1D)" in lines[1]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("stride", [1, 3])
def test_any_number_of_steps_is_that_number(padding, stride):
    """A model for any number of steps has the bits of one for each number, targets and losses of each step included."""

    def make(steps):
        seqcore.utils.set_random_seed(3)
        model = seqcore.Sequential([
            layers.Input((steps, 5)),
            layers.Conv1D(9, 4, strides=stride, padding=padding, activation="tanh"),
            layers.AveragePooling1D(2, padding="same"),
            layers.Bidirectional(layers.GRU(6, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(3)),
        ])  # fmt: skip
        model.compile("sgd", "mse", metrics=["mae"])
        return model

    free, rng = make(None), np.random.default_rng(0)
    for steps in (4, 11, 23):
        fixed = make(steps)
        x = rng.normal(size=(70, steps, 5)).astype(np.float32)
        y = rng.normal(size=(70, *fixed.output_shape[1:])).astype(np.float32)
        assert fixed.output_shape[1] == free.compute_output_shape(x.shape)[1]
        free.set_weights(fixed.get_weights())
        assert same_bits(free.predict(x, batch_size=7, verbose=0), fixed(x))
        weights = rng.uniform(0.5, 2, y.shape[:2])
        for given in (None, weights, weights[:, 0]):
            assert free.evaluate(x, y, sample_weight=given, verbose=0) == fixed.evaluate(
                x, y, sample_weight=given, verbose=0
            )
            assert free.train_on_batch(x, y, given) == fixed.train_on_batch(x, y, given)
        assert all(map(same_bits, free.get_weights(), fixed.get_weights()))
        with pytest.raises(ValueError, match="y"):
            free.train_on_batch(x, np.zeros((70, fixed.output_shape[1] + 1, 3)))


def test_windows_in_every_step():
    """TimeDistributed: its axis of steps stays, the one behind it gets shorter."""
    inner = spec("Conv1D", filters=7, kernel_size=3, activation="tanh")
    items = [spec("TimeDistributed", layer=inner), spec("TimeDistributed", layer=spec("MaxPooling1D", pool_size=2)),
             spec("TimeDistributed", layer=spec("Flatten")), spec("LSTM", units=3)]  # fmt: skip
    check_layer(Case(chain((None, 4, 9, 2), *items), MSE, 5, seed=2))


def test_a_model_that_learns():
    """Whether two tokens follow each other: for a convolution, nothing."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, 20, (512, 24)).astype(np.int32)
    y = ((x[:, :-1] == 7) & (x[:, 1:] > 9)).any(1).astype(np.float32)
    model = windows_model(None, "same")
    model.compile(seqcore.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=30, batch_size=32, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.97


def test_files_and_configs(tmp_path):
    model = windows_model(None)
    model.compile("adam", "binary_crossentropy")
    x = np.random.default_rng(0).integers(0, 20, (9, 30))
    model.fit(x, np.ones(9), verbose=0)
    model.save(tmp_path / "m.safetensors")
    again = seqcore.models.load_model(tmp_path / "m.safetensors")
    assert same_bits(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert again.train_on_batch(x, np.ones(9)) == model.train_on_batch(x, np.ones(9))
    assert all(map(same_bits, again.get_weights(), model.get_weights()))
    conv = layers.deserialize(layers.serialize(layers.Conv1D(4, [3], strides=(2,), padding="SAME", groups=2)))
    assert (conv.kernel_size, conv.strides, conv.dilation_rate, conv.padding) == ((3,), (2,), (1,), "same")
    assert layers.MaxPool1D is layers.MaxPooling1D and layers.AvgPool1D(3).strides == (3,)
    assert layers.Conv1D(4, 3, use_bias=False).bias is None
    assert [w.shape for w in again.layers[1].weights] == [(5, 12, 16), (16,)]


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_reduced_precisions(precision):
    """A convolution's weights stay float32: alone, it has predict's bits; before other layers, their error."""
    x = np.random.default_rng(0).normal(size=(5, 12, 3)).astype(np.float32)
    conv = seqcore.Sequential([layers.Input((None, 3)), layers.Conv1D(20, 3, padding="same", activation="gelu")])
    assert same_bits(conv.predict(x, verbose=0, precision=precision), conv.predict(x, verbose=0))
    both = seqcore.Sequential([*conv.layers, layers.LSTM(9)])
    assert_close(both.predict(x, verbose=0, precision=precision), both.predict(x, verbose=0), rtol=0.05)


# ---------------------------------------------------------------------------------------------------------- what is not


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Conv1D(0, 3), "`filters` of Conv1D: expected a positive integer, got 0"),
        (lambda: layers.Conv1D(4, 0), "`kernel_size` of Conv1D: expected a positive integer, got 0"),
        (lambda: layers.Conv1D(4, (3, 3)), "`kernel_size` of Conv1D"),
        (lambda: layers.Conv1D(4, 3, strides=0), "`strides` of Conv1D"),
        (lambda: layers.Conv1D(4, 3, padding="full"), "`padding` of Conv1D: expected one of"),
        (lambda: layers.Conv1D(4, 3, data_format="channels_first"), "`data_format` of Conv1D"),
        (lambda: layers.Conv1D(4, 3, dilation_rate=2, strides=2), "`dilation_rate` of Conv1D: expected 1 beside"),
        (lambda: layers.Conv1D(4, 3, groups=3), "`groups` of Conv1D: expected a number that divides filters=4, got 3"),
        (lambda: layers.Conv1D(4, 3, lora_rank=2), "lora_rank"),
        (lambda: layers.Conv1D(4, 3, groups=2)(np.ones((2, 5, 3))), "groups=2 divides, got shape"),
        (lambda: layers.Conv1D(4, 3)(np.ones((2, 2, 3))), "expected at least 3 steps"),
        (lambda: layers.Conv1D(4, 3, dilation_rate=3)(np.ones((2, 6, 3))), "expected at least 7 steps"),
        (lambda: layers.Conv1D(4, 3)(np.ones((2, 5))), "expected 3 axes"),
        (lambda: layers.MaxPooling1D(0), "`pool_size` of MaxPooling1D"),
        (lambda: layers.MaxPooling1D(2, strides=0), "`strides` of MaxPooling1D"),
        (lambda: layers.AveragePooling1D(2, padding="causal"), "`padding` of AveragePooling1D"),
        (lambda: layers.AveragePooling1D(2, data_format="channels_first"), "`data_format` of AveragePooling1D"),
        (lambda: layers.MaxPooling1D(4)(np.ones((2, 3, 3))), "expected at least 4 steps"),
        (lambda: layers.MaxPooling1D(2)(np.ones((2, 3, 3, 3))), "expected 3 axes"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (spec("Conv1D", filters=4, kernel_size=[3, 3]), "kernel_size must be a positive integer"),
        (spec("Conv1D", filters=4), "kernel_size must be a positive integer"),
        (spec("Conv1D", filters=4, kernel_size=3, strides=0), "strides must be"),
        (spec("Conv1D", filters=4, kernel_size=3, padding="full"), "padding must be valid, same or causal"),
        (spec("Conv1D", filters=4, kernel_size=3, strides=2, dilation_rate=2), "dilation_rate must be 1 where"),
        (spec("Conv1D", filters=4, kernel_size=3, groups=3), "groups must be a positive integer that divides filters"),
        (spec("Conv1D", filters=4, kernel_size=3, groups=4), "that groups 4 divide"),
        (spec("Conv1D", filters=4, kernel_size=3, data_format="channels_first"), "data_format"),
        (spec("Conv1D", filters=4, kernel_size=8), "need at least 8 steps, got 7"),
        (spec("Conv1D", filters=4, kernel_size=3, rate=1), "unknown key 'rate'"),
        (spec("MaxPooling1D", pool_size=8), "need at least 8 steps, got 7"),
        (spec("MaxPooling1D", pool_size=2, padding="causal"), "padding must be valid or same"),
        (spec("AveragePooling1D", pool_size=[]), "pool_size must be"),
    ],
    ids=str,
)
def test_what_the_core_refuses(layer, message):
    description = {"input": {"shape": [None, 7, 6], "dtype": "float32"}, "layers": [layer]}
    with pytest.raises(ValueError, match=message):
        _core.Model(json.dumps(description), 0)
    flat = {"input": {"shape": [None, 6], "dtype": "float32"}, "layers": [spec("Conv1D", filters=2, kernel_size=1)]}
    with pytest.raises(ValueError, match="expected input of shape"):
        _core.Model(json.dumps(flat), 0)


def test_too_short_an_input_of_any_length():
    """Found before anything is computed, and where layers before have shortened it too."""
    model = windows_model(None)
    model.compile("adam", "binary_crossentropy")
    before = model.get_weights()
    for steps, message in [(4, "windows need at least 5 steps, got 4"), (6, "windows need at least 3 steps, got 2")]:
        x = np.ones((3, steps), np.int32)
        for call in (
            lambda x=x: model.predict(x, verbose=0),
            lambda x=x: model(x),
            lambda x=x: model.fit(x, np.ones(3), verbose=0),
            lambda x=x: model.evaluate(x, np.ones(3), verbose=0),
        ):
            with pytest.raises(ValueError, match=rf"x: shape \(3, {steps}\) is too short: .*{message}"):
                call()
    assert all(map(same_bits, model.get_weights(), before))
    assert model.predict(np.ones((3, 7), np.int32), verbose=0).shape == (3, 1)
