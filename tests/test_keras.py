"""Beside Keras 3, from the same weights: predictions, and the losses of 20 training steps.

Collected only where SEQCORE_TEST_KERAS holds the number of models (CI: 25):
`SEQCORE_TEST_KERAS=500 pytest tests/test_keras.py`.
"""

import inspect
import os
import warnings

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

import seqcore
from support import HOST_CASES, Case, chain, host_batches, random_case, random_window_case, rng_pick, sequential, spec
from test_activation_layers import ITEMS

COUNT = int(os.environ["SEQCORE_TEST_KERAS"])
FIRST = int(os.environ.get("SEQCORE_TEST_KERAS_FIRST", 0))

pytestmark = pytest.mark.filterwarnings("ignore")


def comparable(case):
    """Keras's SimpleRNN drops activity_regularizer (3.15): such models are not compared."""
    return not any(
        "SimpleRNN" in repr(item) and "activity_regularizer" in repr(item) for item in case.description["layers"]
    )


def both(case):
    models = [sequential(library, case.description) for library in (seqcore, keras)]
    for model in models:
        model.set_weights(case.weights)
    return models


def instance(library, item):
    return getattr(library, item["class_name"])(**item["config"])


def same_losses(case, optimizer, steps=20, rtol=1e-3, **arguments):
    ours, theirs = both(case)
    for library, model in ((seqcore, ours), (keras, theirs)):
        model.compile(optimizer=instance(library.optimizers, optimizer), loss=instance(library.losses, case.loss))
    losses = [
        [float(np.ravel(m.train_on_batch(case.x, case.y, **arguments))[0]) for _ in range(steps)]
        for m in (ours, theirs)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=rtol, atol=1e-6)
    return ours, theirs


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_random_model(seed):
    pick = rng_pick(seed)
    case = random_case(pick)
    while not comparable(case):
        case = random_case(pick)
    ours, theirs = both(case)
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]
    a, b = ours.predict(case.x, verbose=0), theirs.predict(case.x, verbose=0)
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(b).max()))
    same_losses(case, spec("Adam", epsilon=1e-3))


@pytest.mark.parametrize(
    "optimizer",
    [
        spec("Adam", learning_rate=0.02, amsgrad=True, weight_decay=0.01),
        spec("Adam", learning_rate=0.02, clipnorm=0.05),
        spec(
            "Adam", learning_rate=0.02, global_clipnorm=0.05, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=3
        ),
        spec("Adam", learning_rate=0.02, clipvalue=0.01, gradient_accumulation_steps=3),
        spec("SGD", learning_rate=0.1, momentum=0.9, nesterov=True),
        spec("RMSprop", learning_rate=0.005),
        spec("RMSprop", learning_rate=0.005, rho=0.8, momentum=0.5, weight_decay=0.01, epsilon=1e-5),
        spec("RMSprop", learning_rate=0.005, centered=True, epsilon=1e-3, clipnorm=0.05),
        spec("SGD", learning_rate=0.1, momentum=0.9, weight_decay=0.1, gradient_accumulation_steps=2),
        spec("Nadam", learning_rate=0.01),
        spec("Nadam", learning_rate=0.01, beta_1=0.7, epsilon=1e-3, weight_decay=0.01, use_ema=True),
        spec("Adamax", learning_rate=0.01, weight_decay=0.01),
        spec("Adagrad", learning_rate=0.05, clipvalue=0.01),
        spec("Adagrad", learning_rate=0.05, initial_accumulator_value=0.0, epsilon=1e-3),
        spec("Adadelta", learning_rate=1.0, weight_decay=0.01),
        spec("Adadelta", learning_rate=1.0, rho=0.8, epsilon=1e-4, gradient_accumulation_steps=2),
        spec("Ftrl", learning_rate=0.05),
        spec("Ftrl", learning_rate=0.05, learning_rate_power=-0.7, l1_regularization_strength=0.01, beta=0.1,
             l2_regularization_strength=0.02, l2_shrinkage_regularization_strength=0.1, weight_decay=0.1),
        spec("Lion", learning_rate=0.002, weight_decay=0.1),
    ],
    ids=str,
)
def test_optimizers(optimizer):
    items = [
        spec(
            "LSTM", units=6, kernel_constraint=spec("MaxNorm", max_value=0.8), recurrent_regularizer=spec("L2", l2=0.01)
        ),
        spec(
            "Dense", units=3, activation="softmax", kernel_constraint=spec("NonNeg"), bias_constraint=spec("UnitNorm")
        ),
    ]
    case = Case(chain((None, 4, 5), *items), spec("SparseCategoricalCrossentropy"), 8, seed=3)
    ours, theirs = same_losses(case, optimizer)
    for a, b in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_variables_and_configs_of_optimizers():
    """Their order and shapes, beside Keras's own names; the arguments and their defaults."""
    for name in ("SGD", "Adam", "AdamW", "RMSprop", "Nadam", "Adamax", "Adagrad", "Adadelta", "Ftrl", "Lion"):
        more = {"SGD": {"momentum": 0.5}, "Adam": {"amsgrad": True}, "RMSprop": {"momentum": 0.5, "centered": True}}
        for averaged in (False, True):
            own = []
            for library in (seqcore, keras):
                model = library.Sequential([library.Input((2,)), library.layers.Dense(3), library.layers.Dense(1)])
                model.compile(getattr(library.optimizers, name)(use_ema=averaged, **more.get(name, {})), "mse")
                model.train_on_batch(np.ones((4, 2)), np.zeros((4, 1)))
                own.append(model.optimizer)
            ours, theirs = ([(v.path, tuple(v.shape), np.asarray(v)) for v in o.variables] for o in own)
            assert len(ours) == len(theirs)
            for (slot, shape, value), (path, same, _) in zip(ours, theirs):
                assert shape == same
                assert path.endswith(slot.partition("/")[0]) or (slot == "u_product" and path.startswith("variable"))
                assert slot != "u_product" or value == pytest.approx(theirs[-1][2])
            a, b = (o.get_config() for o in own)
            assert set(a) == set(b)
            for key in set(a) - {"name"}:
                assert a[key] == (pytest.approx(b[key]) if isinstance(b[key], float) else b[key]), key


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_sample_weights_and_reductions(reduction):
    layers = [spec("GRU", units=4), spec("Dense", units=2, activation="sigmoid")]
    case = Case(chain((None, 3, 2), *layers), spec("BinaryCrossentropy", reduction=reduction), 6, seed=1)
    same_losses(case, spec("Adam"), sample_weight=case.sample_weight)


def test_fit_history():
    """validation_split, class_weight, metrics, regularization and the tail batch: the same History."""
    layers = [
        spec("GRU", units=4, kernel_regularizer=spec("L2", l2=0.01)),
        spec("Dense", units=3, activation="softmax"),
    ]
    case = Case(chain((None, 3, 2), *layers), spec("SparseCategoricalCrossentropy"), 47, seed=1)
    histories = []
    for library, model in zip((seqcore, keras), both(case)):
        model.compile(library.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"],
                      weighted_metrics=[library.metrics.SparseCategoricalCrossentropy(name="ce")]
                      if hasattr(seqcore.metrics, "SparseCategoricalCrossentropy") else None)  # fmt: skip
        fitted = model.fit(
            case.x, case.y, epochs=4, initial_epoch=1, batch_size=10, validation_split=0.2, validation_freq=2,
            class_weight={0: 2.0, 1: 0.5}, shuffle=False, verbose=0,
        )  # fmt: skip
        histories.append((fitted.epoch, fitted.params["steps"], fitted.history))
    assert histories[0][:2] == histories[1][:2] and list(histories[0][2]) == list(histories[1][2])
    for key, values in histories[1][2].items():
        np.testing.assert_allclose(histories[0][2][key], values, rtol=1e-4, err_msg=key)


def test_masked_metrics():
    layers = [
        spec("Embedding", input_dim=5, output_dim=4, mask_zero=True),
        spec("LSTM", units=4, return_sequences=True),
        spec("Dense", units=3, activation="softmax"),
    ]
    case = Case(chain((None, 6), *layers, dtype="int32"), spec("SparseCategoricalCrossentropy"), 9, seed=1)
    results = []
    for model in both(case):
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["accuracy"])
        results.append(model.evaluate(case.x, case.y, batch_size=4, verbose=0, return_dict=True))
    assert results[0] == pytest.approx(results[1], rel=1e-4)


@pytest.mark.parametrize(
    "name", ["MeanAbsolutePercentageError", "MeanSquaredLogarithmicError", "LogCosh", "Poisson", "KLDivergence"]
)
def test_losses_of_regression(name):
    """Twenty steps, and the loss and its metric as arrays; targets of 0 and below, too."""
    layers = [spec("GRU", units=4), spec("Dense", units=3, activation="sigmoid")]
    case = Case(chain((None, 3, 2), *layers), spec(name), 6, seed=1)
    case.y = np.random.default_rng(0).uniform(-0.2, 1.2, case.y.shape).astype(np.float32)
    rate = 0.001 if "Percentage" in name else 0.05
    same_losses(case, spec("SGD", learning_rate=rate), sample_weight=case.sample_weight)
    p = np.random.default_rng(1).uniform(0.01, 1.5, case.y.shape).astype(np.float32)
    ours, theirs = (getattr(library.losses, name)() for library in (seqcore, keras))
    assert float(ours(case.y, p)) == pytest.approx(float(theirs(case.y, p)), rel=1e-5)
    assert ours.name == theirs.name


FOCAL = [
    spec("BinaryFocalCrossentropy"),
    spec("BinaryFocalCrossentropy", apply_class_balancing=True, alpha=0.7, gamma=1.5, label_smoothing=0.1),
    spec("BinaryFocalCrossentropy", from_logits=True, gamma=3.0),
    spec("CategoricalFocalCrossentropy"),
    spec("CategoricalFocalCrossentropy", alpha=[0.5, 2.0, 1.0], gamma=1.5, label_smoothing=0.1),
    spec("CategoricalFocalCrossentropy", from_logits=True, gamma=1.0),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "item", [*map(spec, ("Hinge", "SquaredHinge", "CategoricalHinge", "CosineSimilarity")), *FOCAL], ids=str
)
def test_losses_of_classes_and_angles(item, masked):
    """Twenty steps with weights; every reduction; the function; the name."""
    name, config = item["class_name"], item["config"]
    activation = "linear"
    if "Focal" in name and not config.get("from_logits"):
        activation = "sigmoid" if "Binary" in name else "softmax"
    layers = [
        *([spec("Masking", mask_value=0.0)] if masked else []),
        spec("GRU", units=4, return_sequences=masked),
        spec("Dense", units=3, activation=activation),
    ]
    case = Case(chain((None, 4, 2), *layers), item, 6, seed=1)
    if masked:
        case.x[np.random.default_rng(0).random(case.x.shape[:2]) < 0.4] = 0
        case.x[:, 1] = 1
        same_losses(case, spec("SGD", learning_rate=0.05))
    else:
        same_losses(case, spec("SGD", learning_rate=0.05), sample_weight=case.sample_weight)
    p = both(case)[1].predict(case.x, verbose=0)
    for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight", "none"):
        ours, theirs = (getattr(library.losses, name)(**config, reduction=reduction) for library in (seqcore, keras))
        for weights in (None, np.linspace(0.5, 2, p[..., 0].size).reshape(p.shape[:-1])):
            a, b = (np.asarray(loss(case.y, p, sample_weight=weights)) for loss in (ours, theirs))
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
        a, b = ours.get_config(), theirs.get_config()
        assert {k: a[k] for k in b if k not in ("fn", "dtype")} == {k: b[k] for k in b if k not in ("fn", "dtype")}
    assert ours.name == theirs.name
    functions = [getattr(library.losses, ours.name)(case.y, p, **config) for library in (seqcore, keras)]
    np.testing.assert_allclose(*map(np.asarray, functions), rtol=2e-5, atol=1e-6)


def test_names_of_losses():
    """All that Keras's `get` knows, but for what is no loss of sequences of vectors."""
    from keras.src.losses import ALL_OBJECTS_DICT

    absent = ("CTC", "Circle", "Dice", "Tversky", "ctc", "circle", "dice", "tversky", "Loss", "LossFunctionWrapper")
    for name in sorted(set(ALL_OBJECTS_DICT) - set(absent)):
        ours, theirs = seqcore.losses.get(name), keras.losses.get(name)
        a, b = (f.name if hasattr(f, "name") else f.__name__ for f in (ours, theirs))
        assert a == b


def test_encoder_and_decoder():
    """The usual autoencoder of sequences, and its neighbours that move numbers."""
    layers = [
        spec("Reshape", target_shape=[6, 2]),
        spec("LSTM", units=5, return_sequences=True),
        spec("Permute", dims=[2, 1]),
        spec("GRU", units=4),
        spec("RepeatVector", n=6),
        spec("LSTM", units=5, return_sequences=True),
        spec("TimeDistributed", layer=spec("Dense", units=2)),
    ]
    case = Case(chain((None, 12), *layers), spec("MeanSquaredError"), 9, seed=1)
    ours, theirs = same_losses(case, spec("Adam"))
    np.testing.assert_allclose(ours.predict(case.x, verbose=0), theirs.predict(case.x, verbose=0), rtol=1e-3, atol=1e-4)


def same_in_torch(case):
    """On torch, Keras pads unevenly with copies of what is at the end: the same largest, but another mean than on
    TensorFlow."""
    return keras.backend.backend() != "torch" or not any(
        item["class_name"] == "AveragePooling1D" and item["config"]["padding"] == "same"
        for item in case.description["layers"]
    )


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_random_windows(seed, tmp_path):
    """Predictions, losses of 20 steps, and files, of models with convolutions and pooling."""
    pick = rng_pick(seed)
    case = random_window_case(pick)
    while not same_in_torch(case):
        case = random_window_case(pick)
    ours, theirs = both(case)
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]
    assert [w.path.split("/")[-1] for w in theirs.weights] == [w.name for w in ours.weights]
    a, b = ours.predict(case.x, verbose=0), theirs.predict(case.x, verbose=0)
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(b).max()))
    for suffix in (".keras", ".h5"):
        theirs.save(tmp_path / f"m{suffix}")
        assert np.array_equal(seqcore.models.load_model(tmp_path / f"m{suffix}").predict(case.x, verbose=0), a)
    theirs.save_weights(tmp_path / "m.weights.h5")
    other = sequential(seqcore, case.description)
    other.load_weights(tmp_path / "m.weights.h5")
    assert np.array_equal(other.predict(case.x, verbose=0), a)
    same_losses(case, spec("SGD", learning_rate=0.01))


def test_windows_in_words():
    """Configs, shapes and attributes, and what both refuse."""
    for name, config in [
        ("Conv1D", {"filters": 6, "kernel_size": 3}),
        ("Conv1D", {"filters": 6, "kernel_size": [3], "strides": (2,), "padding": "causal", "groups": 2}),
        ("Conv1D", {"filters": 6, "kernel_size": 3, "dilation_rate": 4, "padding": "same"}),
        *((f"{kind}Pooling1D", c) for kind in ("Max", "Average")
          for c in ({"pool_size": 2}, {"pool_size": 3, "padding": "same"}, {"pool_size": (3,), "strides": 2})),
    ]:  # fmt: skip
        ours, theirs = (getattr(library.layers, name)(**config) for library in (seqcore, keras))
        for shape in [(None, 13, 4), (2, 9, 4), (2, None, 4)]:
            assert ours.compute_output_shape(shape) == tuple(theirs.compute_output_shape(shape))
        for key in ("kernel_size", "strides", "dilation_rate", "groups", "pool_size", "padding"):
            assert getattr(ours, key, None) == getattr(theirs, key, None), key
        assert ours.supports_masking == theirs.supports_masking
        again = seqcore.layers.deserialize({"class_name": name, "config": ours.get_config()})
        assert again.get_config() == ours.get_config()
    for name, config in [
        ("Conv1D", {"filters": 0, "kernel_size": 3}), ("Conv1D", {"filters": 4, "kernel_size": 0}),
        ("Conv1D", {"filters": 4, "kernel_size": 3, "groups": 3}), ("Conv1D", {"filters": 4, "kernel_size": (3, 3)}),
        ("Conv1D", {"filters": 4, "kernel_size": 3, "strides": 2, "dilation_rate": 2}),
        ("Conv1D", {"filters": 4, "kernel_size": 3, "padding": "full"}), ("MaxPooling1D", {"pool_size": 0}),
    ]:  # fmt: skip
        for library in (seqcore, keras):
            with pytest.raises(ValueError):
                getattr(library.layers, name)(**config)
    for library in (seqcore, keras):
        for layer in (library.layers.Conv1D(4, 5), library.layers.MaxPooling1D(5)):
            with pytest.raises(ValueError):
                layer.compute_output_shape((None, 4, 2))


@pytest.mark.parametrize("kind", ["Average", "Max"])
@pytest.mark.parametrize("masked", [False, True])
def test_global_pooling(kind, masked):
    layers = [
        *([spec("Masking", mask_value=0.0)] if masked else []),
        spec("SimpleRNN", units=5, activation="relu", return_sequences=True),
        spec(f"Global{kind}Pooling1D"),
        spec("Dense", units=2),
    ]
    case = Case(chain((None, 6, 3), *layers), spec("MeanSquaredError"), 9, seed=1)
    case.x[np.random.default_rng(0).random(case.x.shape[:2]) < 0.4] = 0
    case.x[:, 2] = 1  # no sample is masked as a whole
    same_losses(case, spec("Adam"))


BATCH_NORM = spec("BatchNormalization", momentum=0.9)


@pytest.mark.parametrize("frozen", [None, "layer", "model"])
@pytest.mark.parametrize(
    ("shape", "items"),
    [
        ((3,), [spec("Dense", units=7, activation="relu"), BATCH_NORM]),
        ((3,), [spec("BatchNormalization", epsilon=0.1, scale=False), spec("Dense", units=5)]),
        ((5, 3), [spec("LSTM", units=6, return_sequences=True), BATCH_NORM, spec("GRU", units=4), BATCH_NORM]),
        ((5, 3), [spec("Masking", mask_value=0.0), BATCH_NORM, spec("LSTM", units=4)]),
        ((5, 3), [
            spec("Masking", mask_value=0.0), spec("GRU", units=4, return_sequences=True), BATCH_NORM, spec("Flatten"),
        ]),
        ((5, 3), [spec("TimeDistributed", layer=BATCH_NORM), spec("LSTM", units=4)]),
        ((5, 3), [spec("Masking", mask_value=0.0), spec("TimeDistributed", layer=BATCH_NORM), spec("LSTM", units=4)]),
        ((4, 2, 3), [spec("TimeDistributed", layer=BATCH_NORM), spec("Flatten")]),
        ((5, 3), [
            spec("SimpleRNN", units=4, return_sequences=True),
            spec("BatchNormalization", gamma_regularizer=spec("L2", l2=0.1), beta_regularizer=spec("L1", l1=0.01),
                 gamma_constraint=spec("MaxNorm", max_value=0.9), beta_constraint=spec("NonNeg"),
                 moving_mean_initializer=spec("Constant", value=0.5)),
            spec("Flatten"),
        ]),
    ],
    ids=str,
)  # fmt: skip
def test_batch_normalization(shape, items, frozen):
    """Some epochs with a tail batch, validated with the moving statistics: losses, weights, and what a batch gives."""
    case = Case(chain((None, *shape), *items, spec("Dense", units=2)), spec("MeanSquaredError"), 45, seed=1)
    case.x[np.random.default_rng(0).random(case.x.shape[:2]) < 0.3] = 0
    case.x[:, 0] += 1  # no sample is masked as a whole
    histories, models = [], both(case)
    for library, model in zip((seqcore, keras), models):
        if frozen:
            layer = next(part for part in model.layers if "BatchNorm" in repr(part.get_config()) + type(part).__name__)
            (layer if frozen == "layer" else model).trainable = False
        model.compile(library.optimizers.Adam(0.01, epsilon=1e-3, clipnorm=1.0, gradient_accumulation_steps=2), "mse")
        fitted = model.fit(case.x, case.y, epochs=5, batch_size=8, validation_split=0.2, shuffle=False, verbose=0)
        histories.append(fitted.history)
    for key, values in histories[1].items():
        np.testing.assert_allclose(histories[0][key], values, rtol=2e-3, err_msg=key)
    ours, theirs = models
    assert [len(w) for w in (ours.trainable_weights, ours.non_trainable_weights)] == [
        len(w) for w in (theirs.trainable_weights, theirs.non_trainable_weights)
    ]
    assert ours.count_params() == theirs.count_params()
    np.testing.assert_allclose(*(m.predict(case.x, verbose=0) for m in models), rtol=5e-3, atol=5e-3)
    for a, b in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_allclose(a, b, rtol=5e-3, atol=1e-3)


def test_batch_normalization_called_by_itself():
    rng = np.random.default_rng(0)
    x, mask = rng.normal(2, 3, size=(6, 4, 3)).astype(np.float32), rng.random((6, 4)) < 0.7
    x[~mask] = np.nan
    layers = [library.layers.BatchNormalization(momentum=0.7) for library in (seqcore, keras)]
    for training in (True, True, False):
        pair = [np.asarray(layer(x, mask=mask, training=training)) if layer is layers[0] else
                layer(x, mask=mask, training=training).detach().numpy() for layer in layers]  # fmt: skip
        np.testing.assert_allclose(pair[0][mask], pair[1][mask], rtol=1e-5, atol=1e-5)
        for a, b in zip(*(layer.get_weights() for layer in layers)):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for refused in ({"axis": 1}, {"renorm": True}, {"synchronized": True}):
        with pytest.raises(ValueError):
            seqcore.layers.BatchNormalization(**refused)(x)
    known = seqcore.layers.BatchNormalization().get_config()
    theirs = keras.layers.BatchNormalization().get_config()
    assert {k: theirs[k] for k in ("axis", "momentum", "epsilon", "center", "scale")} == {
        k: known[k] for k in ("axis", "momentum", "epsilon", "center", "scale")
    }
    assert set(theirs) - set(known) == {"synchronized", "renorm", "renorm_clipping", "renorm_momentum"}


@pytest.mark.parametrize("masked", [False, True])
def test_functions_as_metrics(masked):
    layers = [
        *([spec("Masking", mask_value=0.0)] if masked else []),
        spec("LSTM", units=4, return_sequences=True),
        spec("Dense", units=2),
    ]
    case = Case(chain((None, 5, 3), *layers), spec("MeanSquaredError"), 10, seed=1)
    case.x[np.random.default_rng(0).random(case.x.shape[:2]) < 0.4] = 0
    histories = []
    for library, model in zip((np, keras.ops), both(case)):

        def worst(y_true, y_pred, library=library):
            return library.max(library.abs(y_true - y_pred), -1)

        model.compile("sgd", "mse", metrics=[worst], weighted_metrics=[worst])
        fitted = model.fit(
            case.x, case.y, batch_size=4, epochs=2, shuffle=False, validation_split=0.2, verbose=0
        )  # fmt: skip
        histories.append(fitted.history)
    assert list(histories[0]) == list(histories[1]) and len(histories[0]) == 6
    for key, values in histories[1].items():
        np.testing.assert_allclose(histories[0][key], values, rtol=1e-4, err_msg=key)


def test_activity_of_states_and_dropout_rates_keep_the_mean():
    """Dropout draws differ; over many draws the mean of a dropped layer is Keras's own, the undropped value."""
    x = np.ones((4000, 8), np.float32)
    for library in (seqcore, keras):
        y = np.asarray(library.layers.Dropout(0.3, seed=1)(x, training=True))
        assert abs(y.mean() - 1) < 0.02 and set(np.round(np.unique(y), 4)) == {0.0, np.float32(1.4286)}


def test_schedule_with_accumulation():
    weights = []
    for library in (seqcore, keras):
        model = library.Sequential([library.Input((2,)), library.layers.Dense(1, kernel_initializer="ones")])
        schedule = library.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
        model.compile(library.optimizers.SGD(schedule, gradient_accumulation_steps=2), "mse")
        model.fit(np.arange(16.0).reshape(8, 2) / 16, np.zeros((8, 1)), batch_size=1, shuffle=False, verbose=0)
        weights.append(np.concatenate([np.ravel(w) for w in model.get_weights()]))
    np.testing.assert_allclose(*weights, rtol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_ignore_class(weighted):
    """In the loss, and in metrics, which without weights count ignored rows as 0.

    Accuracy is not among the weighted ones: on torch Keras's loss multiplies its mask into their weights, in place.
    """
    layers = [spec("GRU", units=4, return_sequences=True), spec("Dense", units=3, activation="softmax")]
    loss = spec("SparseCategoricalCrossentropy", ignore_class=-1)
    case = Case(chain((None, 3, 2), *layers), loss, 6, seed=1)
    case.y[1::2, 1:] = -1
    results = []
    for library, model in zip((seqcore, keras), both(case)):
        plain, weighing = (library.metrics.SparseCategoricalCrossentropy(ignore_class=-1, name=n) for n in ("a", "b"))
        model.compile(
            "sgd",
            instance(library.losses, loss),
            metrics=["sparse_categorical_accuracy", plain],
            weighted_metrics=[weighing],
        )
        weights = {"sample_weight": np.linspace(0.5, 2, 18).reshape(6, 3)} if weighted else {}
        results.append(model.evaluate(case.x, case.y, batch_size=6, verbose=0, return_dict=True, **weights))
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    for reduction in ("sum_over_batch_size", "sum", "mean_with_sample_weight", "none"):
        values = [
            np.asarray(library.losses.SparseCategoricalCrossentropy(ignore_class=-1, reduction=reduction)(
                case.y, both(case)[1].predict(case.x, verbose=0), **weights))
            for library in (seqcore, keras)
        ]  # fmt: skip
        np.testing.assert_allclose(*values, rtol=1e-4)


@pytest.mark.parametrize("shape", [(6, 1), (6, 4), (6, 4, 1), (6, 1, 1)])
def test_broadcast_sample_weights(shape):
    case = Case(chain((None, 4, 3), spec("Dense", units=2)), spec("MeanSquaredError"), 6, seed=1)
    weights = np.random.default_rng(0).uniform(0.5, 2, shape).astype(np.float32)
    same_losses(case, spec("SGD"), sample_weight=weights)
    results = []
    for library, model in zip((seqcore, keras), both(case)):
        model.compile("sgd", "mse", weighted_metrics=["mae"])
        values = [*model.evaluate(case.x, case.y, sample_weight=weights, verbose=0)]
        pair = (case.y, model.predict(case.x, verbose=0))
        for metric in ("MeanSquaredError", "RootMeanSquaredError", "BinaryAccuracy"):
            if metric == "MeanSquaredError" or shape == (6, 1):
                values.append(float(getattr(library.metrics, metric)()(*pair, sample_weight=weights)))
        results.append(values)
    np.testing.assert_allclose(*results, rtol=1e-4)


def test_weighted_metrics_on_arrays():
    for name, *given, weight in [
        ("Mean", [[1.0, 3.0], [5.0, 7.0]], [[0.5, 1.0]]),
        ("Sum", [[1.0, 3.0], [5.0, 7.0]], [[0.5, 1.0]]),
        ("BinaryAccuracy", [[1, 0], [0, 1]], [[0.9, 0.1], [0.9, 0.9]], [[0.5, 1.0], [0.2, 0.3]]),
        ("BinaryAccuracy", [1, 0, 1], [0.9, 0.1, 0.2], [0.5, 1.0, 2.0]),
        ("RootMeanSquaredError", np.array([2.0, 4, 6]), np.array([1.0, 3, 2]), np.array([0, 0.2, 0.3])),
        ("RootMeanSquaredError", np.ones((2, 3)), np.arange(6.0).reshape(2, 3), np.array([0.5, 2.0])),
    ]:
        values = [float(getattr(library.metrics, name)()(*given, sample_weight=weight)) for library in (seqcore, keras)]
        assert values[0] == pytest.approx(values[1], rel=1e-6), name


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight", "none"])
def test_a_loss_of_ones_own(reduction):
    y, p = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    for weights in (None, [[1.0, 3.0, 0.5], [0.0, 1.0, 2.0]]):
        values = []
        for library in (seqcore, keras):
            own = type("Own", (library.losses.Loss,), {"call": lambda self, a, b: (a - b) ** 2})
            values.append(np.asarray(own(reduction=reduction)(y, p, sample_weight=weights)))
        np.testing.assert_allclose(*values, rtol=1e-6)


def same_weights_in_keras(item, shape, weights):
    """Keras's counts give the weights of samples to the last axis but one."""
    counts = hasattr(getattr(seqcore.metrics, item["class_name"]), "true_positives")
    return not (counts and weights == "rows" and len(shape) > 1)


@pytest.mark.parametrize(
    ("item", "shape", "weights"), [case for case in HOST_CASES if same_weights_in_keras(*case)], ids=str
)
def test_metrics_over_batches(item, shape, weights):
    """Those that the core does not know: after each batch, and again after `reset_state`."""
    ours, theirs = (instance(library.metrics, item) for library in (seqcore, keras))
    for seed in range(2):
        for y, p, w in host_batches(item, shape, weights, seed):
            a, b = (np.asarray(m(y, p, sample_weight=w)) for m in (ours, theirs))
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
        for m in (ours, theirs):
            m.reset_state()
    config, same = theirs.get_config(), ours.get_config()
    assert set(config) <= set(same) and config["name"].startswith(same["name"])
    for key in set(config) - {"label_weights", "name", "dtype"}:
        assert config[key] == same[key] or (key == "thresholds" and np.allclose(config[key], same[key]))


def test_predictions_on_thresholds():
    """Multiples of 1/32, and those of 1/199, which float32 does not hold: on one side of the threshold in both."""
    p = np.float32(np.concatenate([np.arange(33) / 32, np.arange(200) / 199, [-1.0, 2.0]]))
    y = np.random.default_rng(0).integers(0, 2, p.shape)
    for name, config in [
        ("AUC", {}),
        ("AUC", {"num_thresholds": 33, "curve": "PR"}),
        ("AUC", {"thresholds": [0.25, 0.5, 0.75]}),
        ("AUC", {"thresholds": [0.125, 0.5]}),
        ("Precision", {"thresholds": [0.0, 0.25, 0.5, 0.75, 1.0]}),
        ("FalsePositives", {"thresholds": [1.0, 0.25, 0.0]}),
        ("TrueNegatives", {"thresholds": [0.0, 0.5, 1.0]}),
        ("RecallAtPrecision", {"precision": 0.5}),
        ("SpecificityAtSensitivity", {"sensitivity": 0.25, "num_thresholds": 33}),
    ]:
        ours, theirs = (getattr(library.metrics, name)(**config) for library in (seqcore, keras))
        np.testing.assert_allclose(np.asarray(ours(y, p)), np.asarray(theirs(y, p)), rtol=1e-6)
        for v, w in zip(ours.variables, theirs.variables):
            assert v.name == w.name and np.array_equal(v.numpy(), np.asarray(w))


def test_functions_of_metrics():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, (5, 7)).astype(np.float32), rng.uniform(0.01, 0.99, (5, 7)).astype(np.float32)
    for name in (
        "mean_absolute_percentage_error", "mean_squared_logarithmic_error", "log_cosh", "poisson", "kl_divergence",
        "hinge", "squared_hinge", "categorical_hinge", "top_k_categorical_accuracy",
    ):  # fmt: skip
        a, b = (np.asarray(getattr(library.metrics, name)(y, p)) for library in (seqcore, keras))
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    for k, ids in [(1, False), (3, False), (2, True)]:
        given = (np.arange(5), np.argsort(-p) if ids else p)
        a, b = (
            np.asarray(library.metrics.sparse_top_k_categorical_accuracy(*given, k=k, from_sorted_ids=ids))
            for library in (seqcore, keras)
        )
        assert np.array_equal(a, b)


def test_arguments_of_metrics():
    """By name and place; but for the bases."""
    names = [n for n in seqcore.metrics.__all__ if isinstance(getattr(seqcore.metrics, n), type)]
    for name in set(names) - {"Metric", "MeanMetricWrapper"}:
        ours, theirs = (list(inspect.signature(getattr(o.metrics, name)).parameters) for o in (seqcore, keras))
        assert ours == [n for n in theirs if n != "kwargs"], name


@pytest.mark.parametrize("thresholds", [None, [0.5], [0.9, 0.125, 0.25], [], [0.25, 0.5, 0.75], (0.3, 0.3)])
@pytest.mark.parametrize("curve", ["ROC", "PR", "PRGAIN"])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_areas(thresholds, curve, logits, multi_label):
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, (20, 3)), rng.random((20, 3)).astype(np.float32).round(2)
    p = np.log(p + 0.001) - np.log(1.001 - p) if logits else p
    for method in ("interpolation", "minoring", "majoring"):
        for weights in (None, [1.0, 2.0, 0.5]):
            told = []
            for library in (seqcore, keras):
                given = (200, curve, method, "area", None, thresholds, multi_label, None, weights, logits)
                auc = library.metrics.AUC(*given)
                auc.update_state(y, p)
                auc.update_state(y[:5], p[5:10], np.arange(5)[:, None])
                told.append(float(auc.result()))
            assert told[0] == pytest.approx(told[1], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gelu", [(True,), (False,)]), ("celu", [(0.25,), (1,), (3.0,)]), ("elu", [(0.25,), (-1.0,)]),
        ("relu", [(0.1,), (0, 2), (0.1, 2, 0.5), (0, None, 0.5)]), ("leaky_relu", [(0.5,), (0,)]),
        ("hard_shrink", [(0,), (0.25,), (2,), (-1,)]), ("soft_shrink", [(0,), (0.25,), (2,)]),
        ("squareplus", [(0,), (1,), (4,), (9,)]), ("softmax", [(0,), (1,), (-1,), ((0, 2),), (None,)]),
        ("log_softmax", [(0,), ((1, 2),), (None,)]), ("glu", [(1,)]), ("threshold", [(0.5, -2)]),
    ],
)  # fmt: skip
def test_activations_with_parameters(name, values):
    x = 3 * np.random.default_rng(0).normal(size=(4, 6, 33)).astype(np.float32)
    for given in values:
        ours, theirs = (np.asarray(getattr(o.activations, name)(x, *given)) for o in (seqcore, keras))
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, 2e-5, 4e-6)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Precision", {"thresholds": 1.5}), ("Recall", {"thresholds": [0.5, -0.1]}), ("AUC", {"num_thresholds": 1}),
        ("AUC", {"curve": "X"}), ("AUC", {"summation_method": "X"}), ("AUC", {"num_labels": 2}),
        ("SensitivityAtSpecificity", {"specificity": 1.1}), ("PrecisionAtRecall", {"recall": -0.1}),
        ("RecallAtPrecision", {"precision": 0.5, "num_thresholds": 0}), ("F1Score", {"average": "X"}),
        ("F1Score", {"threshold": 0.0}), ("FBetaScore", {"beta": 0.0}), ("R2Score", {"class_aggregation": "X"}),
        ("R2Score", {"num_regressors": -1}),
    ],
)  # fmt: skip
def test_arguments_that_both_refuse(name, arguments):
    for library in (seqcore, keras):
        with pytest.raises(ValueError):
            getattr(library.metrics, name)(**arguments)


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_files_of_random_models(seed, tmp_path):
    """Keras writes, seqcore reads: the same bits as a model that was given the weights."""
    case = random_case(rng_pick(seed))
    ours, theirs = both(case)
    expected = ours.predict(case.x, verbose=0)
    for suffix in (".keras", ".h5"):
        theirs.save(tmp_path / f"m{suffix}")
        loaded = seqcore.models.load_model(str(tmp_path / f"m{suffix}"))
        assert not loaded.compiled
        assert np.array_equal(loaded.predict(case.x, verbose=0), expected)
    theirs.save_weights(tmp_path / "m.weights.h5")
    for name in ("m.keras", "m.h5", "m.weights.h5"):
        other = sequential(seqcore, case.description)
        other.load_weights(tmp_path / name)
        assert np.array_equal(other.predict(case.x, verbose=0), expected)
    b = theirs.predict(case.x, verbose=0)
    if comparable(case):
        np.testing.assert_allclose(expected, b, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    "optimizer",
    [
        spec("Adam", learning_rate=0.02),
        spec("Adam", learning_rate=0.02, amsgrad=True, clipnorm=0.5, use_ema=True, ema_momentum=0.8),
        spec("AdamW", learning_rate=0.02, gradient_accumulation_steps=3),
        spec("SGD", learning_rate=0.1),
        spec("SGD", learning_rate=0.1, momentum=0.9, nesterov=True),
        spec("RMSprop", learning_rate=0.01, momentum=0.5, centered=True),
        spec("Nadam", learning_rate=0.01),
        spec("Nadam", learning_rate=0.01, use_ema=True, gradient_accumulation_steps=3),
        spec("Adamax", learning_rate=0.01),
        spec("Adagrad", learning_rate=0.02),
        spec("Adadelta", learning_rate=0.5, use_ema=True),
        spec("Ftrl", learning_rate=0.1, beta=0.1),
        spec("Lion", learning_rate=0.001),
    ],
    ids=str,
)
def test_training_goes_on_from_a_file(optimizer, suffix, tmp_path):
    lstm = spec("LSTM", units=4, return_sequences=True)
    layers = [
        spec("Embedding", input_dim=7, output_dim=3),
        spec("Bidirectional", layer=lstm, merge_mode="concat"),
        lstm,
        spec("TimeDistributed", layer=spec("BatchNormalization", momentum=0.8)),
        spec("TimeDistributed", layer=spec("Dense", units=5, activation="tanh")),
        spec("BatchNormalization", momentum=0.8),
        spec("LayerNormalization"),
        spec("GRU", units=4, reset_after=False),
        spec("Dense", units=3, activation="softmax"),
    ]
    case = Case(chain((None, 5), *layers, dtype="int32"), spec("SparseCategoricalCrossentropy"), 8, seed=2)
    theirs = both(case)[1]
    theirs.layers[2].trainable = False
    theirs.compile(
        instance(keras.optimizers, optimizer),
        instance(keras.losses, case.loss),
        metrics=["accuracy", keras.metrics.SparseCategoricalCrossentropy(name="ce")],
        weighted_metrics=[[keras.metrics.sparse_categorical_accuracy]],
    )
    for _ in range(4):
        theirs.train_on_batch(case.x, case.y)
    theirs.optimizer.learning_rate = 0.015
    path = tmp_path / f"m{suffix}"
    theirs.save(path)
    ours = seqcore.models.load_model(path)
    assert float(ours.optimizer.learning_rate) == pytest.approx(0.015)
    assert ours.evaluate(case.x, case.y, verbose=0) == pytest.approx(theirs.evaluate(case.x, case.y, verbose=0), 1e-5)
    losses = [[float(np.ravel(m.train_on_batch(case.x, case.y))[0]) for _ in range(5)] for m in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def chain_of_lstm(library, optimizer, name):
    model = library.Sequential([library.Input((5, 3)), library.layers.LSTM(4), library.layers.Dense(2)], name=name)
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("file", ["m.weights.h5", "m.keras"])
@pytest.mark.parametrize("name", ["Adam", "Nadam", "Adadelta", "RMSprop"])
def test_load_weights_and_the_optimizer(name, file, tmp_path):
    """Keras's own `load_weights` beside ours: into an optimizer that has made a step, and into a new one."""
    x, y = np.random.default_rng(0).normal(size=(8, 5, 3)), np.ones((8, 2))
    kind = lambda library, rate: getattr(library.optimizers, name)(rate, use_ema=True)  # noqa: E731
    source = chain_of_lstm(keras, kind(keras, 0.02), "m")
    for _ in range(3):
        source.train_on_batch(x, y)
    getattr(source, "save" if file.endswith("keras") else "save_weights")(tmp_path / file)
    for steps in (0, 1):
        models = [chain_of_lstm(library, kind(library, 0.01), "m") for library in (seqcore, keras)]
        models[0].set_weights(models[1].get_weights())
        for model in models:
            for _ in range(steps):
                model.train_on_batch(x, y)
            model.load_weights(tmp_path / file)
        ours, theirs = models
        assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations) == (3 if steps else 0)
        assert float(ours.optimizer.learning_rate) == float(theirs.optimizer.learning_rate)
        losses = [[float(np.ravel(m.train_on_batch(x, y))[0]) for _ in range(4)] for m in models]
        np.testing.assert_allclose(*losses, rtol=1e-5)
    other = chain_of_lstm(seqcore, "sgd", "m")
    other.train_on_batch(x, y)
    with pytest.warns(UserWarning, match="state of the optimizer does not fit and is left alone"):
        other.load_weights(tmp_path / file)
    assert int(other.optimizer.iterations) == 1
    assert all(np.array_equal(a, b) for a, b in zip(other.get_weights(), source.get_weights()))


@pytest.mark.parametrize("arguments", [{}, {"ema_overwrite_frequency": 3}])
def test_averages_of_weights(arguments):
    """`fit` with use_ema, and with SwapEMAWeights: the same histories, and the averages in the end."""
    x, y = np.random.default_rng(0).normal(size=(12, 5, 3)), np.ones((12, 2))
    for swapping in (None, False, True):
        results = []
        weights = None
        for library in (keras, seqcore):
            optimizer = library.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.7, **arguments)
            model = chain_of_lstm(library, optimizer, "m")
            if weights is not None:
                model.set_weights(weights)
            weights = model.get_weights()
            more = [] if swapping is None else [library.callbacks.SwapEMAWeights(swap_on_epoch=swapping)]
            history = model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=more,
                                validation_data=(x[:4], y[:4]))  # fmt: skip
            results.append((history.history, model.get_weights(), model.evaluate(x, y, verbose=0, callbacks=more)))
        for key in ("loss", "val_loss"):
            np.testing.assert_allclose(results[0][0][key], results[1][0][key], rtol=1e-4)
        for a, b in zip(results[0][1], results[1][1]):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert results[0][2] == pytest.approx(results[1][2], rel=1e-4)


def test_backups_of_both(tmp_path):
    """Interrupted before epoch 3, both go on there and come to the same."""
    x, y = np.random.default_rng(0).normal(size=(12, 5, 3)), np.ones((12, 2))
    weights, results = None, []
    for library in (keras, seqcore):

        def stop(epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

        model = chain_of_lstm(library, library.optimizers.Adam(0.05), "m")
        if weights is not None:
            model.set_weights(weights)
        weights = model.get_weights()
        folder = str(tmp_path / library.__name__)
        arguments = {"epochs": 5, "batch_size": 4, "shuffle": False, "verbose": 0}
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y, **arguments, callbacks=[
                library.callbacks.BackupAndRestore(folder), library.callbacks.LambdaCallback(on_epoch_begin=stop)
            ])  # fmt: skip
        again = model.fit(x, y, **arguments, callbacks=[library.callbacks.BackupAndRestore(folder)])
        results.append((again.epoch, again.history["loss"], os.path.exists(folder)))
    assert results[0][0] == results[1][0] == [3, 4] and not results[0][2] and not results[1][2]
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-4)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("first", ["Embedding", "Masking"])
def test_a_functional_chain_from_a_file(first, suffix, tmp_path):
    L = keras.layers
    x = inputs = keras.Input((5,) if first == "Embedding" else (5, 1))
    begin = L.Embedding(7, 3, mask_zero=True) if first == "Embedding" else L.Masking(2.0)
    for layer in (begin, L.Bidirectional(L.LSTM(4, return_sequences=True)), L.LSTM(3), L.Dense(2)):
        x = layer(x)
    theirs = keras.Model(inputs, x)
    theirs.compile("adam", {theirs.layers[-1].name: "mse"} if suffix == ".keras" else "mse", metrics=[["mae"]])
    data = np.random.default_rng(0).integers(0, 3, (6, *inputs.shape[1:]))
    theirs.save(tmp_path / f"m{suffix}")
    ours = seqcore.models.load_model(tmp_path / f"m{suffix}")
    np.testing.assert_allclose(ours.predict(data, verbose=0), theirs.predict(data, verbose=0), rtol=1e-5, atol=1e-6)
    assert ours.metrics_names == ["loss", "mae"]
    two = keras.Model(inputs, L.Add()([x, x]))
    two.save(tmp_path / f"two{suffix}")
    with pytest.raises(ValueError, match=f"two{suffix}: .*(chain|unknown layer)"):
        seqcore.models.load_model(tmp_path / f"two{suffix}")


def test_a_functional_chain_in_the_words_of_both():
    def make(library):
        inputs = library.Input(shape=(None,), dtype="int32", name="ids")
        x = library.layers.Embedding(9, 4, mask_zero=True)(inputs)
        x = library.layers.Bidirectional(library.layers.LSTM(3, return_sequences=True))(x)
        shapes = [tuple(x.shape)]
        x = library.layers.Dropout(0.5)(library.layers.GRU(5)(x))
        shapes.append(tuple(x.shape))
        return library.Model(inputs, library.layers.Dense(2)(x), name="both"), shapes

    (theirs, their_shapes), (ours, shapes) = make(keras), make(seqcore)
    assert shapes == their_shapes and ours.name == theirs.name and ours.output_shape == theirs.output_shape
    ours.set_weights(theirs.get_weights())
    ids = np.random.default_rng(0).integers(0, 9, (6, 8))
    np.testing.assert_allclose(ours.predict(ids, verbose=0), theirs.predict(ids, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: repr(item["config"]) + item["class_name"])
def test_layers_of_activations(item, tmp_path):
    """Values, gradients, and files of Keras's."""
    case = Case(chain((None, 6), spec("Dense", units=9), item, spec("Dense", units=2)), spec("MeanSquaredError"), 8, 3)
    _, theirs = same_losses(case, spec("SGD", learning_rate=0.05))
    theirs.save(tmp_path / "m.keras")
    loaded = seqcore.models.load_model(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32) * 3
    np.testing.assert_allclose(loaded.predict(x, verbose=0), theirs.predict(x, verbose=0), rtol=1e-5, atol=1e-5)
    assert loaded.layers[1].name == theirs.layers[1].name


@pytest.mark.parametrize("name", ["celu", "sparse_plus", "sparse_sigmoid"])
def test_more_activations(name):
    x = np.linspace(-4, 4, 401, dtype=np.float32).reshape(1, -1)
    expected = np.asarray(getattr(keras.activations, name)(x))
    np.testing.assert_allclose(getattr(seqcore.activations, name)(x), expected, rtol=1e-6, atol=1e-7)
    assert seqcore.layers.Activation(name)(x).shape == x.shape


def test_sparsemax_is_another_function(tmp_path):
    """Keras's (3.15) gives what does not add up to 1; where one element alone is kept, both are the same."""
    x = np.array([[0.1, 0.2, 0.3], [1.0, 3.0, -1.0]], np.float32)
    ours, theirs = (np.asarray(library.activations.sparsemax(x)) for library in (seqcore, keras))
    np.testing.assert_allclose(ours.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)
    assert abs(theirs[0].sum() - 1) > 0.1
    for library in (seqcore, keras):
        model = library.Sequential([library.Input((3,)), library.layers.Dense(2, activation="sparsemax")])
        with pytest.raises(ValueError, match="sparsemax"):
            model.save(tmp_path / "m.keras")
            seqcore.models.load_model(tmp_path / "m.keras")


def test_noise_at_inference_and_penalties(tmp_path):
    """Noise of 0, so that both train alike; penalties and softmax over steps; files of either."""
    penalty = spec("OrthogonalRegularizer", factor=0.3, mode="columns")
    layers_ = [
        spec("GaussianNoise", stddev=0.0), spec("Dense", units=4, kernel_regularizer=spec("OrthogonalRegularizer")),
        spec("ActivityRegularization", l1=0.01, l2=0.02), spec("AlphaDropout", rate=0.0), spec("Softmax", axis=1),
        spec("LSTM", units=3, recurrent_regularizer=penalty), spec("GaussianDropout", rate=0.0), spec("Dense", units=2),
    ]  # fmt: skip
    case = Case(chain((None, 5, 3), *layers_), spec("MeanSquaredError"), 8, 3)
    _, theirs = same_losses(case, spec("SGD", learning_rate=0.05))
    theirs.save(tmp_path / "m.keras")
    loaded = seqcore.models.load_model(tmp_path / "m.keras")
    predicted = theirs.predict(case.x, verbose=0)
    np.testing.assert_allclose(loaded.predict(case.x, verbose=0), predicted, rtol=1e-5, atol=1e-6)
    loaded.save(tmp_path / "n.keras")
    again = keras.models.load_model(tmp_path / "n.keras")
    np.testing.assert_allclose(again.predict(case.x, verbose=0), predicted, rtol=1e-5, atol=1e-6)
    w = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    for mode in ("rows", "columns"):
        given = w, keras.ops.convert_to_tensor(w)
        ours, theirs = (
            library.regularizers.OrthogonalRegularizer(0.5, mode)(v)
            for library, v in zip((seqcore, keras), given, strict=True)
        )
        assert ours == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments"), [("GaussianNoise", (0.5,)), ("GaussianDropout", (0.3,)), ("AlphaDropout", (0.4,))]
)
def test_noise_in_training(name, arguments):
    """The same mean and deviation, of zeros, ones and normal numbers."""
    normal = np.random.default_rng(0).normal(size=(400, 500)).astype(np.float32)
    for x in (np.zeros_like(normal), np.ones_like(normal), normal):
        made = [getattr(library.layers, name)(*arguments)(x, training=True) for library in (seqcore, keras)]
        for moment in (np.mean, np.std):
            ours, theirs = (moment(np.asarray(y)) for y in made)
            assert ours == pytest.approx(theirs, abs=0.02)


def test_reshape_of_steps_of_unknown_number():
    shape = (None, None, 6)
    assert keras.layers.Reshape((-1, 4)).compute_output_shape(shape) == (None, None, 4)
    assert seqcore.layers.Reshape((-1, 4)).compute_output_shape(shape) == (None, None, 4)
    case = Case(chain((None, 4, 6), spec("Reshape", target_shape=[-1, 4]), spec("LSTM", units=3)),
                spec("MeanSquaredError"), 8, 3)  # fmt: skip
    case.description["input"]["shape"][1] = None
    same_losses(case, spec("SGD", learning_rate=0.05))


def test_activations_that_are_functions_alone():
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    for name, arguments in {"glu": (1,), "threshold": (0.3, -2.0)}.items():
        theirs = np.asarray(getattr(keras.activations, name)(x, *arguments))
        np.testing.assert_allclose(getattr(seqcore.activations, name)(x, *arguments), theirs, rtol=1e-6)


def test_layers_as_activations_in_files(tmp_path):
    def saved(slope):
        dense = keras.layers.Dense(4, activation=keras.layers.LeakyReLU(slope))
        model = keras.Sequential([keras.Input((3,)), dense, keras.layers.Dense(2, activation=keras.layers.Softmax())])
        model.save(tmp_path / "m.keras")
        return model

    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    model = saved(0.2)
    loaded = seqcore.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)
    saved(0.3)
    with pytest.raises(ValueError, match=r"`activation` of Dense: expected an activation that has a name.*LeakyReLU"):
        seqcore.models.load_model(tmp_path / "m.keras")


def test_weights_that_do_not_decay():
    layers_ = [spec("LSTM", units=4), spec("LayerNormalization"), spec("Dense", units=2)]
    case = Case(chain((None, 5, 3), *layers_), spec("MeanSquaredError"), 8, 1)
    trained = []
    for library, model in zip((seqcore, keras), both(case), strict=True):
        optimizer = library.optimizers.AdamW(0.02, weight_decay=0.5)
        optimizer.exclude_from_weight_decay([model.layers[2].kernel], ["bias", "^be"])
        model.compile(optimizer, "mse")
        for _ in range(5):
            model.train_on_batch(case.x, case.y)
        trained.append(model.get_weights())
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("loss", ["mse", spec("LogCosh", reduction="sum")])
def test_configs_of_compile(loss):
    """We compile from what Keras says."""
    case = Case(chain((None, 5, 3), spec("LSTM", units=4), spec("Dense", units=2)), spec("MeanSquaredError"), 8, 1)
    ours, theirs = both(case)
    assert ours.get_compile_config() == theirs.get_compile_config() == {}
    theirs.compile(
        keras.optimizers.SGD(0.25, momentum=0.5),
        loss if isinstance(loss, str) else instance(keras.losses, loss),
        metrics=["mae", keras.metrics.MeanSquaredError(name="own")],
    )
    said = theirs.get_compile_config()
    ours.compile_from_config(said)
    told = ours.get_compile_config()
    assert set(told) <= set(said) and told["metrics"][0] == said["metrics"][0]
    for key in ("optimizer", "loss"):
        a, b = told[key], said[key]
        assert a == b if isinstance(b, str) else a["class_name"] == b["class_name"] and b["config"] == a["config"]
    for _ in range(3):
        got, expected = (model.train_on_batch(case.x, case.y) for model in (ours, theirs))
        np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_metrics_of_several_thresholds():
    case = Case(chain((None, 5, 3), spec("LSTM", units=4), spec("Dense", units=2, activation="sigmoid")),
                spec("BinaryCrossentropy"), 24, 1)  # fmt: skip
    told = []
    for library, model in zip((seqcore, keras), both(case), strict=True):
        given = [getattr(library.metrics, kind)(thresholds=[0.6, 0.4, 0.5]) for kind in ("Recall", "TruePositives")]
        model.compile(library.optimizers.SGD(0.1), "binary_crossentropy", metrics=given)
        history = model.fit(case.x, case.y, epochs=2, batch_size=8, shuffle=False, verbose=0).history
        told.append([*history.values(), model.evaluate(case.x, case.y, verbose=0)[1:]])
    for ours, theirs in zip(*told, strict=True):
        assert [type(v) for v in ours] == [type(v) for v in theirs]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("trainable", [False, True])
def test_training_with_a_base_at_inference(trainable):
    """`base(inputs, training=False)` as Keras's guide to fine-tuning means it. In 3.15 `fit` overrides that: its model
    here is made without what would be active then."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 5, 3)).astype(np.float32), rng.normal(size=(32, 2)).astype(np.float32)
    weights = None
    results = []
    for library in (seqcore, keras):
        layers = library.layers
        norm = layers.BatchNormalization(center=False, scale=False)
        drop = [layers.Dropout(0.5)] if library is seqcore else []
        sequence = layers.LSTM(4, return_sequences=True)
        base = library.Sequential([library.Input((5, 3)), sequence, *drop, norm, layers.Dense(4)])
        inputs = library.Input((5, 3))
        model = library.Model(inputs, layers.LSTM(2)(base(inputs, training=False)))
        base.trainable = trainable
        norm.trainable = library is seqcore and trainable
        weights = weights or [rng.uniform(0.1, 1, w.shape) for w in model.weights]
        model.set_weights(weights)
        model.compile(library.optimizers.SGD(0.05), "mse")
        results.append(([model.train_on_batch(x, y) for _ in range(8)], *model.get_weights()))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert len(set(results[0][0])) == 8


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("outer", ["Sequential", "Functional"])
def test_models_in_models(outer, frozen, tmp_path):
    """Predictions, and training that goes on, from Keras's files; and ours of the same model, without models in it."""
    layers, rng = keras.layers, np.random.default_rng(0)
    x, y = rng.normal(size=(16, 5, 4)).astype(np.float32), rng.normal(size=(16, 2)).astype(np.float32)
    begin = keras.Input((5, 4))
    norm = keras.Sequential([keras.Sequential([layers.Dense(3)]), layers.BatchNormalization()])
    inner = keras.Model(begin, layers.LSTM(4, return_sequences=True)(norm(begin)))
    inner.trainable = not frozen
    other = keras.Sequential([keras.Input((5, 4)), layers.Masking(), layers.LSTM(3), layers.Dense(2)])
    if outer == "Sequential":
        model = keras.Sequential([keras.Input((5, 4)), layers.Dense(4), inner, other])
    else:
        end = other(inner(layers.Dense(4)(again := keras.Input((5, 4))), training=False))
        model = keras.Model(again, end)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, y, epochs=3, verbose=0)
    model.save(tmp_path / "m.keras")
    ours = seqcore.models.load_model(tmp_path / "m.keras")
    assert [type(layer).__name__ for layer in ours.layers] == [
        "Dense", "Dense", "BatchNormalization", "LSTM", "Masking", "LSTM", "Dense"
    ]  # fmt: skip
    assert len(ours.trainable_weights) == len(model.trainable_weights)
    np.testing.assert_allclose(ours.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    losses = [[float(m.train_on_batch(x, y)) for _ in range(5)] for m in (ours, model)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    ours.save(tmp_path / "flat.keras")
    flat = keras.models.load_model(tmp_path / "flat.keras")
    np.testing.assert_allclose(flat.predict(x, verbose=0), ours.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
