"""Files that seqcore writes, read by Keras 3 itself: the same predictions, the same training from there on. Collected
as test_keras.py is."""

import os
import warnings

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

import seqcore
from seqcore import callbacks, layers, optimizers
from support import HOST_METRICS, Case, chain, instance, random_case, random_window_case, rng_pick, sequential, spec
from test_keras import same_in_torch
from test_keras_files import EVERY_LAYER, built, data

COUNT = int(os.environ["SEQCORE_TEST_KERAS"])
FIRST = int(os.environ.get("SEQCORE_TEST_KERAS_FIRST", 0))
RNG = np.random.default_rng(0)

# A state of the optimizer's that Keras leaves out is a warning there.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.filterwarnings("error:Skipping variable loading")]


def same_weights(a, b):
    return all(np.array_equal(v, w) for v, w in zip(a.get_weights(), b.get_weights(), strict=True))


def words(config):
    """A config of Keras's without what differs between two models of the same arguments."""
    if isinstance(config, (list, tuple)):
        return [words(v) for v in config]
    if not isinstance(config, dict):
        return config
    inner = config.get("config")
    if config.get("class_name") == "DTypePolicy":
        return inner["name"]
    left_out = ("name", "shared_object_id", "build_config", "zero_output_for_mask")
    return {k: words(v) for k, v in config.items() if k not in left_out}


def listed(config):
    """A config of a metric's, its arrays as lists."""
    return {k: np.asarray(v).tolist() for k, v in config.items()}


def loaded_by_keras(model, path):
    model.save(path)
    return keras.models.load_model(path)


def compare(description, model, x, path):
    """Keras's model from our file beside ours, and beside the one that Keras makes of the description."""
    theirs, own = loaded_by_keras(model, path), sequential(keras, description)
    assert words(theirs.get_config()) == words(own.get_config())
    assert [layer.name for layer in theirs.layers] == [layer.name for layer in model.layers]
    assert same_weights(model, theirs) and theirs.name == model.name
    model.save_weights(path.with_suffix(".weights.h5"))
    own.load_weights(path.with_suffix(".weights.h5"))
    assert same_weights(model, own)
    expected = own.predict(x, verbose=0, batch_size=len(x))
    assert np.array_equal(theirs.predict(x, verbose=0, batch_size=len(x)), expected)
    actual = model.predict(x, verbose=0, batch_size=len(x))
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("make", [random_case, random_window_case])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + COUNT))
def test_random_models(make, seed, tmp_path):
    pick = rng_pick(seed)
    case = make(pick)
    while not same_in_torch(case):
        case = make(pick)
    model = sequential(seqcore, case.description)
    model.set_weights(case.weights)
    compare(case.description, model, case.x, tmp_path / "m.keras")


WORDS = {
    "numbers": chain(
        (None, 8, 4),
        spec("Conv1D", filters=4, kernel_size=3, groups=2, padding="causal",
             kernel_initializer=spec("LecunUniform", seed=3), kernel_regularizer=spec("L1L2", l1=0.1, l2=0.2),
             activity_regularizer=spec("L2"), dilation_rate=2),
        spec("SpatialDropout1D", rate=0.1, seed=4), spec("GaussianDropout", rate=0.1),
        spec("GaussianNoise", stddev=0.2), spec("AlphaDropout", rate=0.2, noise_shape=[None, 1, None], seed=6),
        spec("ActivityRegularization", l1=0.1, l2=0.2), spec("Softmax", axis=1),
        spec("MaxPooling1D", pool_size=2, strides=1, padding="same"),
        spec("GRU", units=3, dropout=0.1, recurrent_dropout=0.2, seed=5, return_sequences=True, unroll=True,
             bias_initializer=spec("Constant", value=0.25), recurrent_initializer=spec("Orthogonal", gain=0.5),
             recurrent_constraint=spec("MinMaxNorm", min_value=0.1, axis=None),
             activity_regularizer=spec("L1", l1=0.25)),
        spec("Bidirectional", layer=spec("GRU", units=3, return_sequences=True, name="one"), merge_mode="mul",
             backward_layer=spec("LSTM", units=3, return_sequences=True, go_backwards=True, unit_forget_bias=False)),
        spec("RNN", cell=spec("GRUCell", units=5, kernel_initializer=spec("VarianceScaling", distribution="uniform")),
             return_sequences=True, zero_output_for_mask=True, activity_regularizer=spec("L2")),
        spec("Dropout", rate=0.1, noise_shape=[None, 1, None], trainable=False),
        spec("Dense", units=5, kernel_regularizer=spec("OrthogonalRegularizer", factor=0.5, mode="columns")),
        spec("LayerNormalization", epsilon=0.1, gamma_constraint=spec("NonNeg")),
        spec("BatchNormalization", momentum=0.5, beta_regularizer=spec("L2", l2=0.3), trainable=False),
        spec("Dense", units=4, activation="gelu", kernel_constraint=spec("MaxNorm", axis=[0, 1]), trainable=False,
             bias_initializer=spec("TruncatedNormal", stddev=0.1), bias_constraint=spec("UnitNorm", axis=0)),
        spec("Permute", dims=[2, 1]), spec("Reshape", target_shape=[-1, 2]), spec("AveragePooling1D", pool_size=2),
        spec("GlobalAveragePooling1D", keepdims=True), spec("Flatten"), spec("RepeatVector", n=2),
        spec("LSTM", units=2, return_state=True, kernel_initializer=spec("Identity"), use_bias=False),
    ),
    "ids": chain(
        (None, 6),
        spec("Embedding", input_dim=5, output_dim=4, mask_zero=True, embeddings_regularizer=spec("L2"),
             embeddings_initializer=spec("RandomUniform", minval=-1.0, seed=7), embeddings_constraint=spec("UnitNorm")),
        spec("Bidirectional", layer=spec("SimpleRNN", units=3), merge_mode=None),
        dtype="int64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_every_word(name, tmp_path):
    """Arguments that are not the defaults; several outputs."""
    model = sequential(seqcore, WORDS[name])
    x = RNG.integers(0, 5, (3, 6)) if name == "ids" else RNG.normal(size=(3, 8, 4)).astype(np.float32)
    path = tmp_path / "m.keras"
    theirs, own = loaded_by_keras(model, path), sequential(keras, WORDS[name])
    assert words(theirs.get_config()) == words(own.get_config()) and same_weights(model, theirs)
    for a, b in zip(model.predict(x, verbose=0), theirs.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    again = seqcore.models.load_model(path)
    assert again.get_config() == model.get_config() and same_weights(model, again)
    theirs.save(tmp_path / "again.keras")
    again = seqcore.models.load_model(tmp_path / "again.keras")
    assert words(again.get_config()) == words(model.get_config()) and same_weights(model, again)


def test_an_array_to_begin_with(tmp_path):
    matrix = RNG.normal(size=(5, 3))
    begin = seqcore.initializers.Constant(matrix)
    embedding = layers.Embedding(5, 3, embeddings_initializer=begin)
    model = seqcore.Sequential([layers.Input((4,), dtype="int32"), embedding])
    theirs = loaded_by_keras(model, tmp_path / "m.keras")
    assert same_weights(model, theirs)
    fresh = keras.models.clone_model(theirs).get_weights()[0]
    np.testing.assert_array_equal(fresh, matrix.astype(np.float32))
    theirs.save(tmp_path / "again.keras")
    assert seqcore.models.load_model(tmp_path / "again.keras").get_config() == model.get_config()


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_every_layer(name, tmp_path):
    model = built(EVERY_LAYER[name])
    compare(EVERY_LAYER[name], model, data(model), tmp_path / "m.keras")


# ------------------------------------------------------------------------------------------------------------- training


OPTIMIZERS = [
    spec("Adam", learning_rate=0.02, amsgrad=True, clipnorm=0.5, use_ema=True, ema_momentum=0.8),
    spec("Adam", learning_rate=spec("ExponentialDecay", initial_learning_rate=0.05, decay_steps=3, decay_rate=0.5)),
    spec("AdamW", learning_rate=0.02, gradient_accumulation_steps=3),
    spec("SGD", learning_rate=0.1),
    spec("SGD", learning_rate=0.1, momentum=0.9, nesterov=True, global_clipnorm=0.7, name="mine"),
    spec("SGD", learning_rate=spec("CosineDecay", initial_learning_rate=0.1, decay_steps=9, warmup_target=0.2,
                                   warmup_steps=2), momentum=0.9, gradient_accumulation_steps=2),
    spec("RMSprop", learning_rate=0.01, momentum=0.5, centered=True, weight_decay=0.01),
    spec("RMSprop", learning_rate=spec("PiecewiseConstantDecay", boundaries=[2, 5], values=[0.02, 0.01, 0.005])),
    spec("Nadam", learning_rate=0.01, use_ema=True, gradient_accumulation_steps=3, ema_overwrite_frequency=4),
    spec("Nadam", learning_rate=spec("InverseTimeDecay", initial_learning_rate=0.1, decay_steps=2, decay_rate=0.5)),
    spec("Adamax", learning_rate=0.01, clipvalue=0.1),
    spec("Adagrad", learning_rate=0.02, initial_accumulator_value=0.3),
    spec("Adadelta", learning_rate=0.5, use_ema=True),
    spec("Ftrl", learning_rate=0.1, learning_rate_power=-0.6, l1_regularization_strength=0.001, beta=0.1),
    spec("Lion", learning_rate=spec("PolynomialDecay", initial_learning_rate=0.01, decay_steps=7, cycle=True)),
    spec("Lion", learning_rate=spec("CosineDecayRestarts", initial_learning_rate=0.01, first_decay_steps=3)),
]  # fmt: skip


def optimizer_of(item):
    config, rate = item["config"], item["config"]["learning_rate"]
    if isinstance(rate, dict):
        config = {**config, "learning_rate": getattr(optimizers.schedules, rate["class_name"])(**rate["config"])}
    return getattr(optimizers, item["class_name"])(**config)


def a_case():
    lstm = spec("LSTM", units=4, return_sequences=True)
    items = [
        spec("Embedding", input_dim=7, output_dim=3), spec("Bidirectional", layer=lstm), lstm,
        spec("TimeDistributed", layer=spec("BatchNormalization", momentum=0.8)),
        spec("TimeDistributed", layer=spec("Dense", units=5, activation="tanh", kernel_regularizer=spec("L2"))),
        spec("BatchNormalization", momentum=0.8), spec("LayerNormalization"), spec("GRU", units=4, reset_after=False),
        spec("Dense", units=3, activation="softmax", kernel_constraint=spec("MaxNorm", max_value=0.9)),
    ]  # fmt: skip
    return Case(chain((None, 5), *items, dtype="int32"), spec("SparseCategoricalCrossentropy"), 8, seed=2)


def trained(optimizer, steps):
    case = a_case()
    model = sequential(seqcore, case.description)
    model.set_weights(case.weights)
    model.layers[2].trainable = False
    ce = seqcore.metrics.SparseCategoricalCrossentropy(name="ce")
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy", ce], weighted_metrics=["accuracy"])
    for _ in range(steps):
        model.train_on_batch(case.x, case.y)
    return case, model


def state(optimizer):
    """In Keras's order; its count is of batches."""
    return [np.asarray(v.numpy() if hasattr(v, "numpy") else v) for v in optimizer.variables]


def same_state(ours, theirs):
    batches = ours.batches(ours._core)
    mine = state(ours)
    other = state(theirs)
    assert int(other[0]) == batches and len(mine) == len(other)
    assert all(np.array_equal(a, b) for a, b in zip(mine[1:], other[1:], strict=True))


def same_steps(case, ours, theirs):
    losses = [[float(np.ravel(m.train_on_batch(case.x, case.y))[0]) for _ in range(6)] for m in (ours, theirs)]
    np.testing.assert_allclose(*losses, rtol=2e-5)
    for a, b in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize("item", OPTIMIZERS, ids=str)
def test_training_goes_on(item, steps, tmp_path):
    case, model = trained(optimizer_of(item), steps)
    if model.optimizer.schedule is None:
        model.optimizer.learning_rate = 0.015
    theirs = loaded_by_keras(model, tmp_path / "m.keras")
    same_state(model.optimizer, theirs.optimizer)
    assert [layer.trainable for layer in theirs.layers] == [layer.trainable for layer in model.layers]
    logs = [m.evaluate(case.x, case.y, verbose=0, return_dict=True, sample_weight=case.sample_weight)
            for m in (model, theirs)]  # fmt: skip
    assert logs[0] == pytest.approx(logs[1], 1e-5)
    again = seqcore.models.load_model(tmp_path / "m.keras")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    same_state(again.optimizer, theirs.optimizer)
    same_steps(case, model, theirs)
    theirs.save(tmp_path / "theirs.keras")
    same_state(seqcore.models.load_model(tmp_path / "theirs.keras").optimizer, theirs.optimizer)


@pytest.mark.parametrize("item", OPTIMIZERS, ids=str)
def test_weights_and_the_state_of_the_optimizer(item, tmp_path):
    case, model = trained(optimizer_of(item), 4)
    theirs = loaded_by_keras(trained(optimizer_of(item), 0)[1], tmp_path / "new.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    theirs.load_weights(tmp_path / "m.weights.h5")
    same_state(model.optimizer, theirs.optimizer)
    same_steps(case, model, theirs)


def test_layers_that_are_frozen_since(tmp_path):
    case, model = trained("adam", 3)
    model.layers[1].trainable = False
    theirs = loaded_by_keras(model, tmp_path / "m.keras")
    again = seqcore.models.load_model(tmp_path / "m.keras")
    same_state(again.optimizer, theirs.optimizer)
    same_steps(case, again, theirs)
    model.trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    theirs = loaded_by_keras(model, tmp_path / "m.keras")
    assert not theirs.trainable_weights and not seqcore.models.load_model(tmp_path / "m.keras").trainable_weights


@pytest.mark.parametrize("name", sorted(seqcore.losses._registry.classes))
def test_every_loss(name, tmp_path):
    more = {"Huber": {"delta": 0.7}, "CategoricalFocalCrossentropy": {"alpha": [0.1, 0.5, 0.3], "gamma": 1.5},
            "BinaryFocalCrossentropy": {"apply_class_balancing": True, "label_smoothing": 0.1},
            "SparseCategoricalCrossentropy": {"ignore_class": 1, "from_logits": True},
            "CategoricalCrossentropy": {"label_smoothing": 0.2, "reduction": "sum"}}.get(name, {})  # fmt: skip
    for arguments in ({}, {**more, "name": "mine"}):
        model = seqcore.Sequential([layers.Input((4,)), layers.Dense(3, activation="sigmoid")])
        model.compile("sgd", getattr(seqcore.losses, name)(**arguments))
        theirs = loaded_by_keras(model, tmp_path / "m.keras")
        assert theirs.loss.get_config() == getattr(keras.losses, name)(**arguments).get_config()
        assert seqcore.models.load_model(tmp_path / "m.keras").loss.get_config() == model.loss.get_config()


def test_every_metric(tmp_path):
    known = [item for _, items in HOST_METRICS for item in items]
    plain = sorted(set(seqcore.metrics._registry.classes) - {item["class_name"] for item in known} - {"Mean", "Sum"})
    for item in (*known, *map(spec, plain)):
        model = seqcore.Sequential([layers.Input((4,)), layers.Dense(3, activation="softmax")])
        given = [instance(seqcore, item, "metrics"), instance(seqcore, item, "metrics")]
        model.compile("sgd", "mse", metrics=given[:1], weighted_metrics=given[1:])
        theirs = loaded_by_keras(model, tmp_path / "m.keras")
        compiled = theirs._compile_metrics
        expected = {**instance(keras, item, "metrics").get_config(), "name": model.metrics[0].name}
        for some, name in ((compiled._user_metrics, expected["name"]),
                           (compiled._user_weighted_metrics, f"weighted_{expected['name']}")):  # fmt: skip
            assert [listed(m.get_config()) for m in some] == [listed({**expected, "name": name})]
        again = seqcore.models.load_model(tmp_path / "m.keras")
        assert again.metrics_names == model.metrics_names
        assert [m.get_config() for m in again.metrics] == [
            {**m.get_config(), "name": n} for m, n in zip(model.metrics, model.metrics_names[1:])
        ]


def test_metrics_of_ones_own(tmp_path):
    def largest(y_true, y_pred):
        return abs(y_true - y_pred).max()

    class Own(seqcore.metrics.MeanSquaredError):
        pass

    class Theirs(keras.metrics.MeanSquaredError):
        pass

    model = seqcore.Sequential([layers.Input((2,)), layers.Dense(3)])
    model.compile("sgd", "mse", metrics=[largest, seqcore.metrics.MeanMetricWrapper(largest, name="w"), Own(name="o")])
    model.save(tmp_path / "m.keras")
    theirs = keras.models.load_model(tmp_path / "m.keras", custom_objects={"largest": largest, "Own": Theirs})
    x, y = RNG.normal(size=(5, 2)).astype(np.float32), RNG.normal(size=(5, 3)).astype(np.float32)
    ours = model.evaluate(x, y, verbose=0, return_dict=True)
    assert ours == pytest.approx(theirs.evaluate(x, y, verbose=0, return_dict=True), rel=1e-5)
    assert sorted(ours) == ["largest", "loss", "o", "w"]


def test_registered_metrics(tmp_path):
    """Both call them alike, and each reads the other's file."""
    x, y = RNG.normal(size=(5, 2)).astype(np.float32), RNG.normal(size=(5, 3)).astype(np.float32)
    made, known = {}, [library.saving.get_custom_objects() for library in (seqcore, keras)]
    try:
        for library in (seqcore, keras):

            def largest(y_true, y_pred):
                return abs(y_true - y_pred).max()

            Own = type("Own", (library.metrics.MeanSquaredError,), {})
            library.saving.register_keras_serializable("pack", "big")(largest)
            library.saving.register_keras_serializable("pack", "Mine")(Own)
            model = library.Sequential([library.layers.Input((2,)), library.layers.Dense(3)])
            wrapped = library.metrics.MeanMetricWrapper(largest, name="w")
            model.compile("sgd", "mse", metrics=[largest, wrapped, Own(name="o")])
            made[library] = model, model.evaluate(x, y, verbose=0, return_dict=True)
            model.save(tmp_path / f"{library.__name__}.keras")
        for reader, writer in ((seqcore, keras), (keras, seqcore)):
            again = reader.models.load_model(tmp_path / f"{writer.__name__}.keras")
            told = again.evaluate(x, y, verbose=0, return_dict=True)
            assert told == pytest.approx(made[writer][1], rel=1e-5) and sorted(told) == ["largest", "loss", "o", "w"]
    finally:
        for registered in known:
            registered.clear()


def test_checkpoints(tmp_path):
    """What scripts for Keras say, then Keras's own reading of it."""
    case, model = trained("adam", 0)
    saving = [
        callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True, monitor="loss"),
        callbacks.ModelCheckpoint(tmp_path / "{epoch:02d}.weights.h5", save_weights_only=True),
    ]
    model.fit(case.x, case.y, batch_size=4, epochs=3, verbose=0, callbacks=saving)
    assert sorted(os.listdir(tmp_path)) == ["01.weights.h5", "02.weights.h5", "03.weights.h5", "best.keras"]
    theirs = keras.models.load_model(tmp_path / "best.keras")
    assert int(theirs.optimizer.iterations) in (2, 4, 6)
    theirs.load_weights(tmp_path / "03.weights.h5")
    same_state(model.optimizer, theirs.optimizer)
    same_steps(case, model, theirs)
