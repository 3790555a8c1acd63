"""Metrics that the core does not know, in `compile`: functions and classes of one's own."""

import copy
import csv
import json
import pickle
import re
import threading

import numpy as np
import pytest

import seqcore
from seqcore import _custom_objects, callbacks, layers, losses, metrics, models, saving, utils


class Squared(metrics.MeanSquaredError):
    """The core knows its base, and must not take it for that."""


class Labels(metrics.SparseCategoricalAccuracy):
    pass


class Seen(metrics.Metric):
    """Counts samples (or weights) and keeps what it was given."""

    def __init__(self, name="seen", **more):
        super().__init__(name=name, **more)
        self.count = self.add_variable(name="count")
        self.largest = self.add_weight(shape=(2,), initializer="ones", name="largest")
        self.batches = []

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.batches.append((y_true, y_pred, sample_weight))
        self.count.assign_add(len(y_true) if sample_weight is None else np.sum(sample_weight))
        self.largest.assign(np.maximum(self.largest, np.abs(y_pred).max()))

    def result(self):
        return self.count


def worst(y_true, y_pred):
    return np.abs(y_true - y_pred).max(-1)


def worst_of_all(y_true, y_pred, power=1):
    return np.abs(y_true - y_pred).max() ** power


def regression(*more, units=2):
    return seqcore.Sequential([seqcore.Input((5, 3)), *more, layers.LSTM(4), layers.Dense(units)])


def data(n=13, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 5, 3)).astype(np.float32), rng.normal(size=(n, 2)).astype(np.float32)
    return x, y, rng.uniform(0, 2, n).astype(np.float32)


@pytest.mark.parametrize("weights", [None, "samples", "steps"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_beside_the_core(sparse, masked, weights):
    """What a metric says does not depend on who computes it: sequences, partial batches, validation, every epoch."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(11, 5, 3)).astype(np.float32)
    x[rng.random((11, 5)) < 0.4] = 0
    y = rng.integers(0, 4, (11, 5)) if sparse else rng.normal(size=(11, 5, 4)).astype(np.float32)
    weight = {"samples": rng.uniform(0, 2, 11), "steps": rng.uniform(0, 2, (11, 5))}.get(weights)
    first = [layers.Masking()] if masked else []
    model = seqcore.Sequential(
        [seqcore.Input((5, 3)), *first, layers.GRU(6, return_sequences=True), layers.Dense(4, activation="softmax")]
    )
    known, own = ("SparseCategoricalAccuracy", Labels) if sparse else ("MeanSquaredError", Squared)
    both = [[getattr(metrics, known)(name="known"), own(name="own")] for _ in range(2)]
    loss = "sparse_categorical_crossentropy" if sparse else "mse"
    model.compile("adam", loss, metrics=both[0], weighted_metrics=both[1])
    history = model.fit(x, y, batch_size=4, epochs=2, sample_weight=weight, validation_split=0.3, verbose=0).history
    assert len(history) == 10
    for name in ("known", "weighted_known", "val_known", "val_weighted_known"):
        np.testing.assert_allclose(history[name], history[name.replace("known", "own")], rtol=1e-5)
    given = model.evaluate(x, y, batch_size=4, sample_weight=weight, verbose=0, return_dict=True)
    assert given["known"] == pytest.approx(given["own"], rel=1e-5)
    assert given["weighted_known"] == pytest.approx(given["weighted_own"], rel=1e-5)
    if weights:
        assert given["own"] != given["weighted_own"]


def test_functions():
    x, y, weight = data()
    model = regression()
    twice = metrics.MeanMetricWrapper(worst_of_all, name="squared", power=2)
    model.compile("sgd", "mse", metrics=[worst, worst_of_all, twice, "mae"], weighted_metrics=[worst, worst_of_all])
    assert model.metrics_names == [
        "loss", "worst", "worst_of_all", "squared", "mae", "weighted_worst", "weighted_worst_of_all"
    ]  # fmt: skip
    given = model.evaluate(x, y, batch_size=13, sample_weight=weight, verbose=0, return_dict=True)
    error = np.abs(y - model.predict(x, verbose=0)).max(-1)
    assert given["worst"] == pytest.approx(error.mean(), rel=1e-6)
    assert given["worst_of_all"] == pytest.approx(error.max(), rel=1e-6)
    assert given["squared"] == pytest.approx(error.max() ** 2, rel=1e-6)
    assert given["weighted_worst"] == pytest.approx((error * weight).sum() / weight.sum(), rel=1e-6)
    assert given["weighted_worst_of_all"] == pytest.approx(error.max(), rel=1e-6)
    batches = [error[i : i + 4].max() for i in range(0, 13, 4)]
    assert model.evaluate(x, y, batch_size=4, verbose=0)[2] == pytest.approx(np.mean(batches), rel=1e-6)


def test_losses_keep_their_names():
    model = regression()
    model.compile("sgd", "mse", metrics=[losses.Huber(), losses.MeanAbsoluteError(name="mine"), losses.LogCosh()])
    logs = model.evaluate(*data()[:2], verbose=0, return_dict=True)
    x, y, _ = data()
    assert list(logs) == sorted(["huber_loss", "mine", "log_cosh", "loss"])
    np.testing.assert_allclose(logs["huber_loss"], float(losses.Huber()(y, model.predict(x, verbose=0))), rtol=1e-6)


def test_what_a_metric_sees():
    """The outputs from before the update, in training mode, in the rows' shuffled order, with their own targets."""
    x, y, weight = data()
    model, seen, weighted = regression(), Seen(), Seen("other")
    model.compile("sgd", "mse", metrics=[seen], weighted_metrics=[weighted])
    before = model.predict(x, verbose=0)
    assert model.train_on_batch(x, y, weight)[1:] == [13, pytest.approx(weight.sum())]
    (targets, outputs, given), = seen.batches
    np.testing.assert_array_equal(outputs, before)
    np.testing.assert_array_equal(targets, y)
    assert given is None
    np.testing.assert_array_equal(weighted.batches[0][2], weight)
    assert (model.predict(x, verbose=0) != before).any()

    model.compile(seqcore.optimizers.SGD(1e-30), "mse", metrics=[seen])  # changes no weight
    seen.batches.clear()
    model.fit(x, y, batch_size=5, verbose=0)
    order = [int(np.flatnonzero((y == target).all(-1))[0]) for targets, _, _ in seen.batches for target in targets]
    assert sorted(order) == list(range(13)) and order != list(range(13))
    assert [len(outputs) for _, outputs, _ in seen.batches] == [5, 5, 3]
    np.testing.assert_array_equal(np.concatenate([o for _, o, _ in seen.batches]), model.predict(x, verbose=0)[order])

    dropped, seen = regression(layers.Dropout(0.9)), Seen()
    dropped.compile("sgd", "mse", metrics=[seen])
    dropped.train_on_batch(x, y)
    dropped.test_on_batch(x, y)
    assert (seen.batches[0][1] != seen.batches[1][1]).any()


def test_state_begins_anew():
    x, y, _ = data()
    model, seen = regression(), Seen()
    assert [v.name for v in seen.variables] == ["count", "largest"]
    model.compile("sgd", "mse", metrics=[seen])
    history = model.fit(x, y, batch_size=4, epochs=3, validation_data=(x[:5], y[:5]), verbose=0).history
    assert history["seen"] == [13.0] * 3 and history["val_seen"] == [5.0] * 3
    model.reset_metrics()
    assert float(seen.count) == 0 and seen.largest.numpy().tolist() == [1.0, 1.0]


def test_files_and_copies(tmp_path):
    x, y, weight = data()
    model = regression()
    wrapped = metrics.MeanMetricWrapper(worst_of_all, power=2)
    model.compile("adam", "mse", metrics=[worst, "mae", Seen(), wrapped], weighted_metrics=[Squared()])
    model.fit(x, y, verbose=0)
    expected = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    path = tmp_path / "model.safetensors"
    model.save(path)
    own = {"worst": worst, "worst_of_all": worst_of_all, "Seen": Seen, "Squared": Squared}
    for again in (models.load_model(path, own), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True) == expected
    for name in own:
        with pytest.raises(ValueError, match=rf"{name}'.*compile=False"):
            models.load_model(path, {k: v for k, v in own.items() if k != name})
    with pytest.raises(ValueError, match="`custom_objects`: expected metric classes and functions only, got 'Seen'"):
        models.load_model(path, {"Seen": layers.LSTM})
    assert models.load_model(path, compile=False).metrics == []


@pytest.fixture
def registry():
    """Empty at first; what a test registers is forgotten after it."""
    held = _custom_objects._registered, _custom_objects._names
    before = [dict(names) for names in held]
    for names in held:
        names.clear()
    yield saving.get_custom_objects()
    for names, then in zip(held, before):
        names.clear()
        names.update(then)


class Own(metrics.MeanAbsoluteError):
    """A metric of one's own, which tests register."""


@pytest.mark.parametrize("suffix", ["safetensors", "keras"])
def test_names_in_files(tmp_path, suffix, registry):
    """Of what is registered, in a scope, given: whatever is known when the file is read."""
    x, y, weight = data()
    named, plain = regression(), regression()
    plain.compile("adam", "mse", metrics=[worst, Own()])
    plain.save(tmp_path / f"plain.{suffix}")
    saving.register_keras_serializable("pack")(worst)
    saving.register_keras_serializable("pack", "Mine")(Own)
    assert registry == {"pack>worst": worst, "pack>Mine": Own}
    wrapped = metrics.MeanMetricWrapper(worst, name="w")
    named.compile("adam", "mse", metrics=[worst, Own(), wrapped], weighted_metrics=[Own(name="o")])
    named.save(tmp_path / f"named.{suffix}")
    expected = named.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert set(expected) == {"loss", "worst", "own", "w", "o"}

    def same(**arguments):
        again = models.load_model(tmp_path / f"named.{suffix}", **arguments)
        assert again.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True) == expected
        assert [type(m) for m in again.metrics] == [type(m) for m in named.metrics]

    same()
    assert type(copy.deepcopy(named).metrics[1]) is type(pickle.loads(pickle.dumps(named)).metrics[1]) is Own
    registry.clear()
    objects = {"pack>worst": worst, "pack>Mine": Own}
    same(custom_objects=objects)
    same(custom_objects={"worst": worst, "Mine": Own})
    for path in (f"named.{suffix}", f"plain.{suffix}"):
        with pytest.raises(ValueError, match=r"(worst|Own)'.*compile=False"):
            models.load_model(tmp_path / path)
    with saving.custom_object_scope(objects):
        same()
    with saving.CustomObjectScope({"worst": worst, "Own": Own}):
        assert [type(m) for m in models.load_model(tmp_path / f"plain.{suffix}").metrics][1] is Own
    registry.update(objects)
    same()


def test_scopes(registry):
    description, other = metrics.serialize(Own()), type("Own", (metrics.MeanSquaredError,), {})
    outer, found = saving.custom_object_scope({"Own": Own}), lambda: type(metrics.deserialize(description))
    with outer:
        assert found() is Own and saving.get_registered_object("Own") is Own
        with outer, saving.custom_object_scope({"Own": other}) as inner:  # the innermost one counts
            assert found() is other and inner.custom_objects == {"Own": other}
            with pytest.raises(KeyError), saving.custom_object_scope(None):
                with pytest.raises(ValueError, match="unknown metric 'Own'"):
                    found()
                raise KeyError
            assert found() is other
        thread = threading.Thread(target=lambda: seen.append(saving.get_registered_object("Own")))
        seen = []
        thread.start()
        thread.join()
        assert seen == [None] and found() is Own
    assert saving.get_registered_object("Own") is None and registry == {}


def test_registered_names(registry):
    for decorate, name in (
        (saving.register_keras_serializable(), "Custom>Own"), (saving.register_keras_serializable("a", "b"), "a>b"),
        (utils.register_keras_serializable("a"), "a>Own"),
    ):  # fmt: skip
        assert decorate(Own) is Own and saving.get_registered_name(Own) == name
        assert saving.get_registered_object(name) is Own is registry[name]
        description = metrics.serialize(Own())
        assert description["class_name"] == name and type(metrics.deserialize(description)) is Own
    assert saving.get_registered_name(worst) == "worst" and saving.get_registered_name(metrics.AUC) == "AUC"
    assert saving.get_registered_object("c", {"c": worst}, {"c": Own}) is worst
    assert saving.get_registered_object("c", None, {"c": Own}) is Own
    assert utils.get_custom_objects() is registry and utils.custom_object_scope is saving.CustomObjectScope


def test_what_has_no_names_in_files(registry):
    class Mine(layers.Dense):
        pass

    message = "expected metric classes and functions only, got 'Mine'"
    with pytest.raises(ValueError, match=f"register_keras_serializable: {message}"):
        saving.register_keras_serializable()(Mine)
    with pytest.raises(ValueError, match=f"`custom_objects`: {message}"):
        saving.custom_object_scope({"Mine": Mine})
    with pytest.raises(ValueError, match="`package` of register_keras_serializable: expected a string, got <class"):
        saving.register_keras_serializable(Own)  # without parentheses
    with pytest.raises(ValueError, match="`name` of register_keras_serializable: expected a string, got 3"):
        saving.register_keras_serializable("a", 3)
    with pytest.raises(ValueError, match="`custom_objects`: expected a dict, got list"):
        saving.custom_object_scope([Own])
    assert registry == {}
    registry["Mine"] = Mine
    with pytest.raises(ValueError, match=rf"get_custom_objects\(\): {message}"):
        metrics.deserialize("mae")


def test_refused():
    x, y, _ = data()
    model = regression()
    for wrong in (metrics.Mean(), metrics.Sum, 3, None, ["mae", metrics.Mean]):
        with pytest.raises(ValueError, match="metric"):
            model.compile("sgd", "mse", metrics=[wrong] if not isinstance(wrong, list) else wrong)
    with pytest.raises(TypeError, match="`fn`: expected a function, got 'mae'"):
        metrics.MeanMetricWrapper("mae")
    with pytest.raises(ValueError, match="`initializer`"):
        metrics.MeanSquaredError().add_variable(initializer=None)

    class Nothing(Seen):
        def result(self):
            return {}

    model.compile("sgd", "mse", metrics=[Nothing("nothing")])
    with pytest.raises(ValueError, match="expected metrics that say a number or an array of them, 'nothing' says "):
        model.evaluate(x, y, verbose=0)
    model.compile("sgd", "mse", metrics=[lambda y_true, y_pred: "text"])
    with pytest.raises(TypeError, match="what <lambda> gives"):
        model.evaluate(x, y, verbose=0)


def binary(given=None):
    model = regression(units=1)
    model.set_weights([np.random.default_rng(1).uniform(-1, 1, w.shape) for w in model.weights])
    model.compile("sgd", "mse", metrics=given)
    x, y, weight = data(40)
    return model, x, (y[:, :1] > 0).astype(np.float32), weight


@pytest.mark.parametrize("kind", ["Precision", "Recall", "TruePositives", "FalsePositives", "TrueNegatives",
                                  "FalseNegatives"])  # fmt: skip
def test_several_thresholds(kind, tmp_path):
    """An array of what metrics of one threshold each say."""
    thresholds = [0.4, 0.0, 0.2]
    kind = getattr(metrics, kind)
    several = kind(thresholds, name="several")
    ones = [kind(t, name=f"one_{i}") for i, t in enumerate(thresholds)]
    model, x, y, weight = binary()
    model.compile(seqcore.optimizers.SGD(0.1), "mse", metrics=[several, *ones], weighted_metrics=[kind(thresholds)])
    history = model.fit(x, y, epochs=2, batch_size=16, validation_split=0.25, sample_weight=weight, verbose=0).history
    for prefix in ("", "val_"):
        for epoch in range(2):
            got = history[f"{prefix}several"][epoch]
            assert isinstance(got, np.ndarray) and got.dtype == np.float32
            assert got.tolist() == [history[f"{prefix}one_{i}"][epoch] for i in range(3)]
    for prefix in ("", "val_"):
        first, last = history[f"{prefix}several"]
        assert first is not last
    told = model.evaluate(x, y, sample_weight=weight, verbose=0)
    assert told[1].tolist() == told[2:5] and len(set(told[2:5])) > 1 and told[5].shape == (3,)
    assert not np.array_equal(told[1], told[5])
    named = model.test_on_batch(x, y, sample_weight=weight, return_dict=True)
    np.testing.assert_array_equal(named["several"], told[1])
    trained = model.train_on_batch(x, y, weight)
    assert trained[1].tolist() == trained[2:5]
    for path in (tmp_path / "m.safetensors", tmp_path / "m.keras"):
        model.save(path)
        again = models.load_model(path)
        for a, b in zip(again.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0), strict=True):
            np.testing.assert_array_equal(a, b)


def test_several_numbers_of_other_metrics():
    model = regression()
    model.compile("sgd", "mse", metrics=[metrics.F1Score(average=None, threshold=0.1), Several()])
    x, y, _ = data()
    _, scores, several = model.evaluate(x, (y > 0).astype(float), verbose=0)
    assert scores.shape == (2,) and several.tolist() == [[13, 13]]


class Several(Seen):
    """Says the same array again and again, which it goes on to change."""

    def __init__(self, name="several"):
        super().__init__(name=name)
        self.array = np.zeros((1, 2))

    def result(self):
        self.array[:] = self.count
        return self.array


def test_logs_keep_what_an_array_was():
    model, x, y, _ = binary([Several()])
    seen = []
    keep = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["several"]))
    model.fit(x, y, batch_size=10, callbacks=[keep], verbose=0)
    assert [s.tolist() for s in seen] == [[[n, n]] for n in (10, 20, 30, 40)]


def test_arrays_in_callbacks(tmp_path, capsys):
    model, x, y, _ = binary([metrics.Recall([0.0, 0.25], name="recall")])
    log = callbacks.CSVLogger(tmp_path / "log.csv")
    history = model.fit(x, y, validation_split=0.25, callbacks=[log], verbose=2).history
    shown = float(re.search(r" - recall: ([0-9.]+)", capsys.readouterr().out)[1])
    assert shown == pytest.approx(history["recall"][0].mean(), abs=1e-4)
    with open(tmp_path / "log.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    for name in ("recall", "val_recall"):
        assert json.loads(row[name].strip('"')) == pytest.approx(history[name][0].tolist())
    for callback in (
        callbacks.EarlyStopping("recall", mode="max"),
        callbacks.ReduceLROnPlateau("val_recall"),
        callbacks.ModelCheckpoint(tmp_path / "best.safetensors", monitor="recall", save_best_only=True),
    ):
        with pytest.raises(ValueError, match=r"`monitor` of .*: expected the name of one number, '.*recall' are 2"):
            model.fit(x, y, validation_split=0.25, callbacks=[callback], verbose=0)
