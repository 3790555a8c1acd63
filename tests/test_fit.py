"""fit, evaluate, predict and their friends: what a Keras user relies on."""

import json
import re

import numpy as np
import pytest

import seqcore
from seqcore import callbacks, layers, models, optimizers, utils
from support import run_python

RNG = np.random.default_rng(0)
X = RNG.random((50, 4, 3)).astype(np.float32)
Y = RNG.integers(0, 3, 50)


def classifier(optimizer=None, **arguments):
    model = models.Sequential([layers.Input((4, 3)), layers.GRU(5), layers.Dense(3, activation="softmax")])
    arguments = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **arguments}
    model.compile(optimizer=optimizers.SGD(0.0) if optimizer is None else optimizer, **arguments)
    return model


def one_weight(w=0.0, lr=0.0, loss="mse"):
    """y = w x, so that with x = 1, y = 0 the loss is w²."""
    model = models.Sequential([layers.Input((1,)), layers.Dense(1, use_bias=False)])
    model.compile(optimizers.SGD(lr), loss)
    model.set_weights([np.array([[w]])])
    return model


ONES, ZEROS = np.ones((8, 1), np.float32), np.zeros((8, 1), np.float32)


class Recorder(callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.calls = []


def _recorded(name):
    return lambda self, *a, **k: self.calls.append((name, *[v if isinstance(v, int) else sorted(v or {}) for v in a]))


for _name in [n for n in dir(callbacks.Callback) if re.fullmatch(r"on_\w+_(begin|end)", n)]:
    setattr(Recorder, _name, _recorded(_name))


class SetWeight(callbacks.Callback):
    """The weight of each epoch."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_begin(self, epoch, logs=None):
        self.model.set_weights([np.array([[self.values[epoch]]])])


# ---------------------------------------------------------------------------------------------------------- the script


@pytest.mark.parametrize(
    "layer",
    ["SimpleRNN(64, activation='relu', input_shape=(10, 8))", "LSTM(64, activation='relu', input_shape=(10, 8))"],
)
def test_the_tutorial_script(layer):
    out = run_python(f"""
import numpy as np
from seqcore import layers, models
model = models.Sequential()
model.add(layers.{layer})
model.add(layers.Dense(2, activation='softmax'))
model.compile(optimizer='adam', loss='sparse_categorical_crossentropy', metrics=['accuracy'])
model.fit(np.random.rand(1000, 10, 8), np.random.randint(0, 2, 1000), epochs=5, batch_size=64)
""")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert [f"Epoch {e}/5" in plain for e in range(1, 7)] == [True] * 5 + [False]
    last = re.search(r"16/16 ━{20} \d+s \d+(ms|us)/step - accuracy: (0\.\d{4}) - loss: (\d\.\d{4})\s*$", plain)
    assert last and 0.3 < float(last[2]) < 0.8 and 0.5 < float(last[3]) < 1.5


def test_losses_and_metrics_by_the_name_of_the_output():
    model = models.Sequential([layers.Input((3,)), layers.Dense(2, name="out")])
    expected = None
    for loss, metrics, weights in (
        ("mse", ["mae"], 1.0),
        ({"out": "mse"}, {"out": "mae"}, {"out": 1.0}),
        ({"out": seqcore.losses.MeanSquaredError()}, {"out": ["mae"]}, None),
    ):
        model.compile("sgd", loss, loss_weights=weights, metrics=metrics, weighted_metrics=metrics)
        results = model.evaluate(np.ones((4, 3)), np.zeros((4, 2)), verbose=0)
        expected = expected or results
        assert results == expected and model.metrics_names == ["loss", "mae", "weighted_mae"]


def test_it_learns():
    """Whether the first step's sign returns at the end: solved only by carrying it over ten steps."""
    x = RNG.normal(size=(512, 10, 1)).astype(np.float32)
    y = (x[:, 0, 0] > 0).astype(np.int64)
    seqcore.utils.set_random_seed(1)
    model = models.Sequential([layers.Input((10, 1)), layers.LSTM(16), layers.Dense(1, activation="sigmoid")])
    model.compile(optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, epochs=30, batch_size=64, verbose=0)
    assert history.history["accuracy"][-1] > 0.95 and history.history["loss"][-1] < 0.2


# -------------------------------------------------------------------------------------------------------------- output


def shown(capsys):
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def test_verbose_0(capsys):
    classifier().fit(X, Y, verbose=0)
    assert shown(capsys) == ""


def test_verbose_1(capsys):
    classifier().fit(X, Y, epochs=2, batch_size=16, validation_split=0.2, verbose=1)
    out = shown(capsys)
    number = r"\d\.\d{4}"
    values = " - ".join(f"{name}: {number}" for name in ("accuracy", "loss", "val_accuracy", "val_loss"))
    assert len(re.findall(rf"3/3 ━{{20}} \d+s \d+(us|ms|s)/step - {values}", out)) == 2
    assert re.search(r"^Epoch 1/2\n", out) and "Epoch 2/2" in out


def test_verbose_2(capsys):
    classifier().fit(X, Y, epochs=2, batch_size=16, verbose=2)
    number = r"\d\.\d{4}"
    line = rf"4/4 - \d+s - \d+(us|ms|s)/step - accuracy: {number} - loss: {number}"
    assert re.fullmatch(rf"Epoch 1/2\n{line}\nEpoch 2/2\n{line}\n", shown(capsys))


def test_small_losses_are_shown_in_scientific_notation(capsys):
    one_weight(0.01).fit(ONES, ZEROS, verbose=2)
    assert "loss: 1.0000e-04" in shown(capsys)


class OddLogs(callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs.update(many=[1, 2], array=np.full((2, 2), 3.0), text="so", nothing=None, empty=[])


@pytest.mark.parametrize("verbose", [1, 2])
def test_logs_of_any_kind_are_shown(capsys, verbose):
    classifier().fit(X, Y, verbose=verbose, callbacks=[OddLogs()])
    assert " - many: 1.5000 - array: 3.0000 - text: so - nothing: None - empty: []\n" in shown(capsys)


def test_a_progress_bar_of_ones_own(capsys):
    utils.Progbar(3).update(3, None)
    assert re.search(r"3/3 ━{20} 0s \d+(us|ms|s)/step\n$", shown(capsys))
    for words, line in (
        ({}, "a: 2.5000 - b: 2.5000"),
        ({"stateful_metrics": ["b"]}, "a: 2.5000 - b: 3.0000"),
        ({"stateless_metrics": ["b"]}, "a: 3.0000 - b: 2.5000"),
    ):
        bar = utils.Progbar(None, **words)
        bar.update(2, [("a", 2.0), ("b", [1, 3])])
        bar.add(2, [("a", 3.0), ("b", 3.0)])
        assert shown(capsys) == ""
        bar.update(4, finalize=True)
        assert line in shown(capsys), words
    bar.update(4, {"a": 9.0}, finalize=True)
    assert "a: 9.0000" in shown(capsys)
    with pytest.raises(ValueError, match="`stateful_metrics` and `stateless_metrics`"):
        utils.Progbar(3, stateful_metrics=[], stateless_metrics=[])


def test_evaluate_and_predict_show_steps(capsys):
    model = classifier()
    model.evaluate(X, Y, verbose=1)
    model.predict(X, verbose=1)
    out = shown(capsys)
    assert len(re.findall(r"2/2 ━{20}", out)) == 2


# ------------------------------------------------------------------------------------------------------------- history


def test_history():
    history = classifier().fit(
        X, Y, epochs=5, initial_epoch=2, validation_data=(X[:9], Y[:9]), validation_freq=2, verbose=0
    )
    assert history.epoch == [2, 3, 4]
    assert list(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert [len(v) for v in history.history.values()] == [3, 3, 1, 1]
    assert all(type(v) is float for values in history.history.values() for v in values)
    assert history.params["epochs"] == 5 and history.params["steps"] == 2


def test_history_keys_are_sorted_together():
    model = one_weight()
    model.compile("sgd", "mse", metrics=[seqcore.metrics.MeanAbsoluteError(name="zoo")], weighted_metrics=["mae"])
    history = model.fit(ONES, ZEROS, validation_data=(ONES, ZEROS), verbose=0).history
    assert list(history) == ["loss", "mae", "val_loss", "val_mae", "val_zoo", "zoo"]


def test_epoch_loss_is_the_mean_over_rows_of_batch_losses():
    model = classifier(loss="sparse_categorical_crossentropy")
    history = model.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
    rows = [16, 16, 16, 2]
    parts = [model.evaluate(X[i : i + 16], Y[i : i + 16], verbose=0)[0] for i in range(0, 50, 16)]
    assert history.history["loss"][0] == pytest.approx(np.average(parts, weights=rows), rel=1e-6)


def test_train_on_batch_returns_this_batch_alone():
    model = classifier()
    alone = [model.evaluate(X[i : i + 25], Y[i : i + 25], verbose=0) for i in (0, 25)]
    for call in (model.train_on_batch, model.test_on_batch):
        assert [call(X[i : i + 25], Y[i : i + 25]) for i in (0, 25)] == [pytest.approx(a, rel=1e-6) for a in alone]
    assert model.test_on_batch(X, Y, return_dict=True) == pytest.approx(
        model.evaluate(X, Y, verbose=0, return_dict=True)
    )


def test_validation_split_takes_the_tail_before_shuffling():
    model = classifier()
    history = model.fit(X, Y, validation_split=0.3, verbose=0, batch_size=10)
    loss, accuracy = model.evaluate(X[35:], Y[35:], verbose=0)
    assert history.history["val_loss"][0] == pytest.approx(loss, rel=1e-6)
    assert history.history["val_accuracy"][0] == pytest.approx(accuracy)
    assert history.history["loss"][0] == pytest.approx(model.evaluate(X[:35], Y[:35], verbose=0)[0], rel=1e-6)
    with pytest.raises(ValueError, match="validation_split"):
        model.fit(X[:1], Y[:1], validation_split=0.5, verbose=0)


def test_class_weight_and_sample_weight():
    model = classifier(weighted_metrics=["accuracy"], metrics=["accuracy"])
    weights = np.choose(Y, [2.0, 0.5, 1.0])
    by_class = model.fit(X, Y, class_weight={0: 2.0, 1: 0.5}, verbose=0, batch_size=50).history
    by_sample = model.fit(X, Y, sample_weight=weights, verbose=0, batch_size=50).history
    assert by_class == by_sample
    plain = model.fit(X, Y, verbose=0, batch_size=50).history
    assert plain["loss"] != by_sample["loss"] and plain["accuracy"] == by_sample["accuracy"]
    assert by_sample["weighted_accuracy"] != by_sample["accuracy"]
    one_hot = classifier(loss="categorical_crossentropy")
    one_hot.set_weights(model.get_weights())
    got = one_hot.fit(X, np.eye(3)[Y], class_weight={0: 2.0, 1: 0.5}, verbose=0, batch_size=50).history
    assert got["loss"][0] == pytest.approx(by_class["loss"][0], rel=1e-6)
    assert model.fit(X, Y, class_weight={0.0: 2.0, np.float32(1): 0.5}, verbose=0, batch_size=50).history == by_class
    for bad in ({0: 2.0}, {0.5: 2.0}, {"0": 2.0}, {np.nan: 2.0}):
        with pytest.raises(ValueError, match="class_weight"):
            model.fit(X, Y, class_weight=bad, sample_weight=weights if 0 in bad else None, verbose=0)


def test_validation_data_with_weights():
    model = classifier()
    w = RNG.uniform(0, 2, 50)
    history = model.fit(X, Y, validation_data=(X, Y, w), verbose=0)
    assert history.history["val_loss"][0] == pytest.approx(
        model.evaluate(X, Y, sample_weight=w, verbose=0)[0], rel=1e-6
    )


def test_shuffle_visits_every_row_once_in_another_order():
    class Watch(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs["loss"])

    x, y = np.arange(32, dtype=np.float32)[:, None], np.zeros((32, 1), np.float32)
    model = one_weight(1.0, loss="mae")
    orders = []
    for shuffle in (True, True, False):
        seen = []
        model.fit(x, y, batch_size=1, shuffle=shuffle, callbacks=[Watch()], verbose=0)
        totals = np.asarray(seen) * np.arange(1, 33)  # running means of |x|
        orders.append(np.diff(totals, prepend=0).round().astype(int).tolist())
    assert all(sorted(o) == list(range(32)) for o in orders)
    assert orders[2] == list(range(32)) and orders[0] != orders[2] and orders[0] != orders[1]


@pytest.mark.parametrize("steps", [1, 3])
def test_generators(steps):
    def batches():
        while True:
            for i in range(0, 50, 10):
                yield X[i : i + 10], Y[i : i + 10]

    model = classifier()
    history = model.fit(batches(), steps_per_epoch=steps, epochs=2, verbose=0)
    loss = model.evaluate(X[: 10 * steps], Y[: 10 * steps], verbose=0)[0]
    assert history.history["loss"][0] == pytest.approx(loss, rel=1e-5)
    assert history.params["steps"] == steps
    assert model.evaluate(batches(), steps=5, verbose=0) == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)
    assert np.array_equal(model.predict(batches(), steps=5, verbose=0), model.predict(X, verbose=0))


def test_a_loader_that_does_not_know_its_length():
    class Loader:
        def __len__(self):
            raise TypeError("how long it is, is not known")

        def __iter__(self):
            return iter([(ONES, ZEROS)] * 3)

    model = one_weight()
    history = model.fit(Loader(), epochs=2, verbose=0)
    assert history.params["steps"] == 3 and len(history.epoch) == 2
    assert model.predict(Loader(), verbose=0).shape == (3 * len(ONES), 1)


@pytest.mark.parametrize("kind", ["arrays", "list", "dataset"])
def test_more_steps_than_batches(kind):
    """An epoch ends where the data end; the next one begins anew."""

    class Dataset(utils.PyDataset):
        def __len__(self):
            return 5

        def __getitem__(self, i):
            return X[10 * i : 10 * i + 10], Y[10 * i : 10 * i + 10]

    counts = []

    class Count(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            counts.append(0)

        def on_batch_end(self, batch, logs=None):
            counts[-1] += 1

    data = {"arrays": X, "list": Iterates(Dataset()), "dataset": Dataset()}[kind]
    more = {"y": Y, "batch_size": 10} if kind == "arrays" else {}
    model = classifier()
    for steps, expected in [(3, [3, 2, 3, 2]), (4, [4, 1, 4, 1]), (5, [5, 5, 5, 5]), (7, [5, 5, 5, 5])]:
        counts.clear()
        model.fit(data, **more, epochs=4, steps_per_epoch=steps, verbose=0, callbacks=[Count()])
        assert counts == expected
    if kind != "arrays":
        with pytest.warns(UserWarning, match="`steps`: the data set ran out after 5 of 7 batches"):
            values = model.evaluate(data, steps=7, verbose=0)
        assert values == pytest.approx(model.evaluate(X, Y, batch_size=10, verbose=0))


class Iterates:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return (self.batches[i] for i in range(len(self.batches)))


def test_a_generator_that_runs_out_ends_with_a_warning():
    recorder = Recorder()
    with pytest.warns(UserWarning, match="ran out"):
        classifier().fit(iter([(X, Y)] * 3), steps_per_epoch=2, epochs=5, verbose=0, callbacks=[recorder])
    assert sum(c[0] == "on_train_batch_end" for c in recorder.calls) == 3


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_validation_data_that_run_out_leave_no_val_values():
    best = callbacks.EarlyStopping(patience=9)
    with pytest.warns(UserWarning, match="validation data ran out.*epoch 2.*no val_ values") as caught:
        history = classifier().fit(
            X, Y, epochs=3, verbose=0, validation_data=iter([(X, Y)]), callbacks=[best]
        ).history  # fmt: skip
    assert not any("training stops" in str(w.message) for w in caught)
    assert len(history["loss"]) == 3 and len(history["val_loss"]) == len(history["val_accuracy"]) == 1
    assert best.best == history["val_loss"][0] > 0
    with pytest.warns(UserWarning, match="validation data ran out.*epoch 2 they gave 1$"):
        history = classifier().fit(
            X, Y, epochs=2, verbose=0, validation_data=iter([(X, Y)] * 3), validation_steps=2
        ).history  # fmt: skip
    assert history["val_loss"] == pytest.approx([history["val_loss"][0]] * 2)


def test_data_sets_without_batches_are_refused():
    model = classifier()
    for call in (lambda: model.fit(iter([]), verbose=0), lambda: model.evaluate(iter([]), verbose=0),
                 lambda: model.predict(iter([]), verbose=0)):  # fmt: skip
        with pytest.raises(ValueError, match="`x`: the data set gave no batches"):
            call()
    for call in (lambda: model.evaluate(iter([(X, Y)]), steps=2, verbose=0),
                 lambda: model.predict(iter([X]), steps=2, verbose=0)):  # fmt: skip
        with pytest.warns(UserWarning, match="`steps`: the data set ran out after 1 of 2 batches"):
            call()


@pytest.mark.parametrize("freq", [0, -1, 1.5, True, "2", None, [1, 0], ["1"]])
def test_validation_freq_is_checked_before_training(freq):
    model = classifier(optimizers.SGD(1.0))
    before = model.get_weights()
    with pytest.raises(ValueError, match="validation_freq"):
        model.fit(X, Y, validation_data=(X, Y), validation_freq=freq, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))


def test_steps_per_epoch_over_arrays_goes_on_where_it_was():
    recorder, model = Recorder(), classifier()
    history = model.fit(
        X, Y, batch_size=10, steps_per_epoch=2, epochs=2, shuffle=False, verbose=0, callbacks=[recorder]
    )
    parts = [model.evaluate(X[a : a + 20], Y[a : a + 20], verbose=0)[0] for a in (0, 20)]
    assert history.history["loss"] == pytest.approx(parts, rel=1e-6)


# ----------------------------------------------------------------------------------------------------------- callbacks


def test_callback_order():
    recorder = Recorder()
    model = classifier()
    model.fit(X[:20], Y[:20], batch_size=10, validation_data=(X[:5], Y[:5]), verbose=0, callbacks=[recorder])
    logs = ["accuracy", "loss"]
    val = ["accuracy", "loss", "val_accuracy", "val_loss"]
    names = [c[0] for c in recorder.calls]
    assert names == [
        "on_train_begin", "on_epoch_begin",
        "on_train_batch_begin", "on_train_batch_end", "on_train_batch_begin", "on_train_batch_end",
        "on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end",
        "on_epoch_end", "on_train_end",
    ]  # fmt: skip
    assert ("on_train_batch_end", 1, logs) in recorder.calls and ("on_epoch_end", 0, val) in recorder.calls
    recorder.calls.clear()
    model.evaluate(X[:5], Y[:5], verbose=0, callbacks=[recorder])
    model.predict(X[:5], verbose=0, callbacks=[recorder])
    assert [c[0] for c in recorder.calls] == [
        "on_test_begin", "on_test_batch_begin", "on_test_batch_end", "on_test_end",
        "on_predict_begin", "on_predict_batch_begin", "on_predict_batch_end", "on_predict_end",
    ]  # fmt: skip


def test_stop_training_and_params():
    class Stop(callbacks.Callback):
        def on_train_begin(self, logs=None):
            assert self.params["epochs"] == 9 and self.params["steps"] == 2

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    assert classifier().fit(X, Y, epochs=9, verbose=0, callbacks=[Stop()]).epoch == [0, 1]


def test_stop_evaluating_and_stop_predicting():
    class Stop(callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            self.model.stop_evaluating = batch == 1

        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = batch == 1

    model = classifier()
    part = model.evaluate(X[:20], Y[:20], batch_size=10, verbose=0)
    for _ in range(2):  # a stop is for one call only
        assert model.evaluate(X, Y, batch_size=10, verbose=0, callbacks=[Stop()]) == part
        assert len(model.predict(X, batch_size=10, verbose=0, callbacks=[Stop()])) == 20
    assert model.evaluate(X, Y, batch_size=10, verbose=0) != part


def test_layers_cannot_come_or_go_during_fit():
    class Change(callbacks.Callback):
        def __init__(self, change):
            super().__init__()
            self.change = change

        def on_train_batch_begin(self, batch, logs=None):
            self.change(self.model)

    for change in (lambda m: m.pop(), lambda m: m.add(layers.Dense(1))):
        model = classifier()
        with pytest.raises(RuntimeError, match="trained: no layer can be"):
            model.fit(X, Y, verbose=0, callbacks=[Change(change)])
        assert len(model.layers) == 2 and model.fit(X, Y, verbose=0).epoch == [0]
    assert model.pop().name.startswith("dense")


@pytest.mark.parametrize("restore", [False, True])
def test_early_stopping(restore):
    values = [3.0, 1.0, 2.0, 1.5, 0.1]
    stop = callbacks.EarlyStopping(monitor="val_loss", patience=2, restore_best_weights=restore)
    model = one_weight()
    history = model.fit(
        ONES, ZEROS, epochs=5, validation_data=(ONES, ZEROS), verbose=0, callbacks=[SetWeight(values), stop]
    )
    assert history.epoch == [0, 1, 2, 3] and stop.stopped_epoch == 3
    assert float(model.get_weights()[0][0, 0]) == (1.0 if restore else 1.5)


def test_early_stopping_min_delta_and_mode():
    stop = callbacks.EarlyStopping(monitor="loss", patience=1, min_delta=0.5, mode="max", restore_best_weights=True)
    model = one_weight()
    assert model.fit(ONES, ZEROS, epochs=4, verbose=0, callbacks=[SetWeight([1, 2, 2.01, 9]), stop]).epoch == [0, 1, 2]
    assert float(model.get_weights()[0][0, 0]) == 2.0


def test_an_unknown_mode_counts_as_auto():
    for make in (callbacks.EarlyStopping, lambda **more: callbacks.ModelCheckpoint("a.safetensors", **more)):
        with pytest.warns(UserWarning, match="mode 'least' is unknown, fallback to auto mode"):
            assert make(mode="least").mode == "auto"


def test_model_checkpoint(tmp_path):
    path = tmp_path / "{epoch:02d}-{val_loss:.2f}.safetensors"
    best = tmp_path / "best.safetensors"
    model = one_weight()
    model.fit(
        ONES, ZEROS, epochs=3, validation_data=(ONES, ZEROS), verbose=0,
        callbacks=[SetWeight([2.0, 1.0, 3.0]), callbacks.ModelCheckpoint(path),
                   callbacks.ModelCheckpoint(best, monitor="val_loss", save_best_only=True)],
    )  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "01-4.00.safetensors", "02-1.00.safetensors", "03-9.00.safetensors", "best.safetensors",
    ]  # fmt: skip
    assert float(models.load_model(best).get_weights()[0][0, 0]) == 1.0


def test_auto_mode_follows_the_metric():
    for metric, rises in (("accuracy", True), ("mse", False)):
        stop = callbacks.EarlyStopping(monitor=metric, patience=0)
        model = classifier(loss="categorical_crossentropy", metrics=[metric])
        model.fit(X, np.eye(3)[Y], verbose=0, callbacks=[stop])
        assert stop.better(1.0, 0.5) is rises
    for make in (callbacks.EarlyStopping, callbacks.ReduceLROnPlateau):
        with pytest.raises(ValueError, match=f"`mode` of {make.__name__}: 'val_f1' is neither .*accuracy.*'max'"):
            classifier().fit(X, Y, verbose=0, callbacks=[make(monitor="val_f1")])


def test_a_plateau_begins_anew():
    plateau = callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=0.0)
    plateau.on_train_begin()
    assert plateau.best is None
    model = one_weight(1.0, lr=0.5)
    model.fit(ONES, ZEROS, epochs=3, verbose=0, callbacks=[SetWeight([1.0, 2.0, 3.0]), plateau])
    assert plateau.best == 1.0 and float(model.optimizer.learning_rate) == pytest.approx(0.005)


def test_model_checkpoint_without_what_it_monitors_saves_all(tmp_path):
    checkpoint = callbacks.ModelCheckpoint(tmp_path / "{epoch}.safetensors", monitor="val_loss", save_best_only=True)
    with pytest.warns(UserWarning, match="val_loss.*not in the logs.*saved all the same"):
        one_weight().fit(ONES, ZEROS, epochs=2, verbose=0, callbacks=[checkpoint])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors"]


def test_terminate_on_nan_and_the_warning_of_a_skipped_update():
    recorder, model = Recorder(), one_weight(1.0, lr=0.1)
    x = ONES.copy()
    x[5] = np.nan
    with pytest.warns(RuntimeWarning, match="finite"):
        model.fit(
            x, ZEROS, epochs=5, batch_size=2, shuffle=False, verbose=0, callbacks=[recorder, callbacks.TerminateOnNaN()]
        )
    assert sum(c[0] == "on_train_batch_end" for c in recorder.calls) == 3
    assert float(model.get_weights()[0][0, 0]) == pytest.approx(0.64)


def test_a_callback_that_raises_leaves_a_usable_model():
    class Boom(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("boom")

    model = classifier("adam")
    with pytest.raises(RuntimeError, match="boom"):
        model.fit(X, Y, verbose=0, callbacks=[Boom()])
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"][0])


# -------------------------------------------------------------------------------------------------------- odds and ends


@pytest.mark.parametrize("accuracy", ["accuracy", "acc"])
@pytest.mark.parametrize(
    ("units", "activation", "loss", "y"),
    [
        (1, "sigmoid", "binary_crossentropy", RNG.integers(0, 2, 50)),
        (3, "softmax", "categorical_crossentropy", np.eye(3)[Y]),
        (3, "softmax", "sparse_categorical_crossentropy", Y),
        (3, "softmax", "sparse_categorical_crossentropy", Y[:, None]),
    ],
)
def test_accuracy_takes_the_form_of_the_data(accuracy, units, activation, loss, y):
    model = models.Sequential([layers.Input((4, 3)), layers.SimpleRNN(4), layers.Dense(units, activation=activation)])
    model.compile("sgd", loss, metrics=[accuracy])
    result = model.evaluate(X, y, verbose=0, return_dict=True)
    p = model.predict(X, verbose=0)
    labels = (p[:, 0] > 0.5) if units == 1 else p.argmax(1)
    assert result[accuracy] == pytest.approx((labels == (y.argmax(1) if loss.startswith("cat") else y.ravel())).mean())


def test_losses_and_metrics_by_function_string_and_object():
    values = []
    for loss in ("mse", "mean_squared_error", "MeanSquaredError", seqcore.losses.MeanSquaredError()):
        model = one_weight(3.0, loss=loss)
        values.append(model.evaluate(ONES, ZEROS, verbose=0))
    assert values == [9.0] * 4
    model.compile("sgd", "mse", metrics=["mae", seqcore.metrics.MeanAbsoluteError(name="mine")])
    assert list(model.evaluate(ONES, ZEROS, verbose=0, return_dict=True)) == ["loss", "mae", "mine"]


def test_evaluate_returns_a_float_or_a_list():
    assert type(one_weight(1.0).evaluate(ONES, ZEROS, verbose=0)) is float
    assert type(classifier().evaluate(X, Y, verbose=0)) is list


def test_regularization_is_in_the_losses_that_are_shown():
    model = models.Sequential([layers.Input((1,)), layers.Dense(1, use_bias=False, kernel_regularizer="l2")])
    model.compile(optimizers.SGD(0.0), "mse")
    model.set_weights([[[3.0]]])
    assert model.evaluate(ONES, ZEROS, verbose=0) == pytest.approx(9 + 0.01 * 9)
    assert model.fit(ONES, ZEROS, verbose=0, validation_split=0.5).history["val_loss"][0] == pytest.approx(9.09)


def test_predict_forms():
    model = classifier()
    whole = model.predict(X, verbose=0)
    assert whole.dtype == np.float32 and whole.shape == (50, 3)
    assert np.array_equal(model.predict(X, batch_size=7, verbose=0), whole)
    assert np.array_equal(np.concatenate([model.predict(X[i : i + 7], verbose=0) for i in range(0, 50, 7)]), whole)
    assert np.array_equal(model.predict_on_batch(X), whole)
    assert np.array_equal(np.asarray(model(X)), whole)
    assert not np.array_equal(model.predict(X[::-1], verbose=0), whole)


def test_ema_replaces_the_weights_at_the_end_of_fit():
    seqcore.utils.set_random_seed(1)
    model = one_weight(1.0)
    model.compile(optimizers.SGD(0.25, use_ema=True, ema_momentum=0.5), "mse")
    model.fit(ONES, ZEROS, batch_size=4, epochs=1, verbose=0)
    # w: 1 -> 0.5 -> 0.25; average: 0.5, then 0.5 * 0.5 + 0.5 * 0.25
    assert float(model.get_weights()[0][0, 0]) == pytest.approx(0.375)


def test_trainable_false_takes_effect_at_compile():
    model = classifier("adam")
    model.layers[0].trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    after = model.get_weights()
    assert [np.array_equal(a, b) for a, b in zip(before, after)] == [True, True, True, False, False]


def test_frozen_models_and_frozen_layers_inside_layers(tmp_path):
    def changed(model):
        model.compile("sgd", "mse")
        before = model.get_weights()
        model.fit(np.ones((4, 3, 2)), np.zeros((4, 3, 1)), verbose=0)
        return [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]

    def build(**more):
        inner = layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True, use_bias=False, trainable=False))
        return models.Sequential([layers.Input((3, 2)), layers.Dense(2), inner, layers.Dense(1)], **more)

    model = build()
    assert changed(model) == [True, True, False, False, False, False, True, True]
    assert len(model.trainable_weights) == 4 and len(model.layers[1].non_trainable_weights) == 4
    model.layers[1].backward_layer.trainable = True
    assert changed(model) == [True, True, False, False, True, True, True, True]
    model.save(tmp_path / "m.safetensors")
    again = models.load_model(tmp_path / "m.safetensors")
    for one in (model, again):
        one.fit(np.ones((4, 3, 2)), np.zeros((4, 3, 1)), verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))
    model.trainable = False
    assert not any(layer.trainable for layer in model.layers) and not any(changed(model))
    model.trainable = True
    assert sum(changed(model)) == 6  # the forward layer has its own
    assert not any(changed(build(trainable=False)))
    wrapped = layers.TimeDistributed(layers.Dense(1, trainable=False))
    model = models.Sequential([layers.Input((3, 2)), layers.Dense(2), wrapped])
    assert changed(model) == [True, True, False, False] and wrapped.trainable_weights == []


def test_stateful_across_batches_and_epochs_until_reset():
    model = models.Sequential([layers.Input(batch_shape=(2, 3, 1)), layers.LSTM(4, stateful=True), layers.Dense(1)])
    model.compile(optimizers.SGD(0.0), "mse")
    x, y = RNG.random((4, 3, 1)), np.zeros((4, 1))
    first = model.predict(x, batch_size=2, verbose=0)
    assert not np.array_equal(model.predict(x, batch_size=2, verbose=0), first)
    model.reset_states()
    assert np.array_equal(model.predict(x, batch_size=2, verbose=0), first)
    model.reset_states()
    model.fit(x, y, batch_size=2, shuffle=False, verbose=0)  # carries into predict
    assert not np.array_equal(model.predict(x, batch_size=2, verbose=0), first)
    model.layers[0].reset_state()
    assert np.array_equal(model.predict(x, batch_size=2, verbose=0), first)
    with pytest.raises(ValueError, match="batch"):
        model.predict(x[:3], batch_size=2, verbose=0)
    with pytest.raises(ValueError, match="batch"):
        models.Sequential([layers.Input((3, 1)), layers.LSTM(4, stateful=True)])


@pytest.mark.parametrize("batch", [1, 7, 50])
@pytest.mark.parametrize("last", ["SimpleRNN", "LSTM", "GRU", "cells", "Bidirectional"])
@pytest.mark.parametrize("after", [[], [layers.Dropout(0.0)], [layers.Flatten()]])
def test_metrics_of_training_are_of_what_the_model_gave(last, after, batch):
    """Backward writes over what recurrent layers keep, and the last one's output is among that."""
    sequences = {"return_sequences": True}
    layer = {
        "cells": lambda: layers.RNN([layers.GRUCell(4), layers.LSTMCell(5)], **sequences),
        "Bidirectional": lambda: layers.Bidirectional(layers.GRU(5, **sequences), merge_mode="sum"),
    }.get(last, lambda: getattr(layers, last)(5, **sequences))()
    model = models.Sequential([layers.Input((4, 3)), layers.LSTM(3, **sequences), layer, *after])
    model = models.clone_model(model)
    model.compile("sgd", "mse", metrics=["mse", "mae"], weighted_metrics=["mape"])
    y = RNG.normal(size=(batch, *model.output_shape[1:]))
    before = model.evaluate(X[:batch], y, batch_size=batch, verbose=0)
    assert model.train_on_batch(X[:batch], y) == before


def test_masks_reach_loss_and_metrics_through_fit():
    ids = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]])
    y = np.array([[0, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]])
    model = models.Sequential([
        layers.Input((4,), dtype="int32"), layers.Embedding(5, 3, mask_zero=True),
        layers.LSTM(4, return_sequences=True), layers.Dense(2, activation="softmax"),
    ])  # fmt: skip
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(ids, y, verbose=0)
    p, valid = model.predict(ids, verbose=0), ids != 0
    chosen = np.take_along_axis(p, y[..., None], -1)[..., 0]
    assert loss == pytest.approx(-np.log(chosen[valid]).mean(), rel=1e-5)
    assert accuracy == pytest.approx((p.argmax(-1) == y)[valid].mean())
    assert model.evaluate(ids[2:], y[2:], verbose=0) == [0.0, 0.0]


@pytest.mark.parametrize("source", ["arrays", "split", "dataset", "list"])
def test_validation_begins_at_the_first_batch_again(source):
    """With validation_steps every epoch sees the same samples, though training goes on where it stopped."""
    x, y = np.arange(12.0).reshape(12, 1), np.zeros((12, 1))
    batches = [(x[i : i + 3], y[i : i + 3]) for i in range(0, 12, 3)]

    class Batches(seqcore.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return batches[index]

    given = {
        "arrays": {"validation_data": (x, y), "validation_batch_size": 3},
        "split": {"validation_split": 0.5, "validation_batch_size": 3},
        "dataset": {"validation_data": Batches()},
        "list": {"validation_data": iter_of(batches)},
    }[source]
    model = seqcore.Sequential([seqcore.Input((1,)), seqcore.layers.Dense(1, kernel_initializer="ones")])
    model.compile(seqcore.optimizers.SGD(1e-30), "mae")
    history = model.fit(x, y, epochs=4, verbose=0, validation_steps=1, **given).history
    assert history["val_loss"] == [7.0 if source == "split" else 1.0] * 4


class iter_of:
    """Something that can be iterated anew, and no more."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def test_lists_of_one_array():
    x, y, w = np.ones((5, 2)), np.arange(5.0).reshape(5, 1), np.arange(5.0)
    losses = []
    for wrap in (lambda a: a, lambda a: [a], lambda a: (a,)):
        model = seqcore.Sequential([seqcore.Input((2,)), seqcore.layers.Dense(1, kernel_initializer="ones")])
        model.compile("sgd", "mse")
        fitted = model.fit(wrap(x), wrap(y), sample_weight=wrap(w), validation_data=(wrap(x), wrap(y)), verbose=0)
        losses.append((fitted.history, model.evaluate(wrap(x), wrap(y), verbose=0), model.train_on_batch(x, wrap(y))))
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("x", ["abc", b"abc", {"a": 1}, 3.0, np.float32(1)], ids=lambda x: type(x).__name__)
def test_what_is_no_data(x):
    model = seqcore.Sequential([seqcore.Input((2,), name="a"), seqcore.layers.Dense(1)])
    model.compile("sgd", "mse")
    for call in (lambda: model.fit(x, np.ones(2)), lambda: model.evaluate(x, np.ones(2)), lambda: model.predict(x)):
        with pytest.raises(TypeError, match="`x`: expected an array or a data set"):
            call()
    with pytest.raises(TypeError, match="`validation_data`: expected an array or a data set"):
        model.fit(np.ones((2, 2)), np.ones(2), validation_data=x)


def test_empty_models():
    for model in (seqcore.Sequential(), seqcore.Sequential([seqcore.Input((3,))])):
        assert model.layers == []
        with pytest.raises(ValueError, match="has no layers"):
            model.predict(np.ones((2, 3)), verbose=0)


@pytest.mark.parametrize("named", [False, True])
def test_inputs_by_name(named):
    """A dict of the one input gives what its array does, wherever x may stand."""
    begin = [layers.Input((4, 3), name="sequence")] if named else []
    name = "sequence" if named else "input_layer"
    both = [models.Sequential([*begin, layers.GRU(5, input_shape=(4, 3)), layers.Dense(3, "softmax")]) for _ in "ab"]
    both[1].set_weights(both[0].get_weights())
    for model in both:
        model.compile("sgd", "sparse_categorical_crossentropy")
    plain, by_name = both
    x = {name: X}
    assert by_name.input.name == name
    for arguments in ({"validation_split": 0.2}, {"validation_data": ((X, x), Y)}):
        histories = []
        for i, model in enumerate(both):
            given = {k: (v[0][i], v[1]) if k == "validation_data" else v for k, v in arguments.items()}
            histories.append(model.fit(x if i else X, Y, shuffle=False, verbose=0, **given).history)
        assert histories[0] == histories[1] and "val_loss" in histories[1]
    batches = [(X[i : i + 10], Y[i : i + 10]) for i in range(0, 50, 10)]
    plain.fit(iter(batches), verbose=0)
    by_name.fit(iter([({name: a}, b) for a, b in batches]), verbose=0)
    expected = plain.predict(X, verbose=0)
    for got in (
        by_name.predict(x, verbose=0), by_name.predict(x, verbose=2), by_name.predict_on_batch(x), by_name(x),
        by_name.predict(({name: a} for a, _ in batches), verbose=0),
    ):  # fmt: skip
        assert np.array_equal(got, expected)
    assert by_name.evaluate(x, Y, verbose=0) == plain.evaluate(X, Y, verbose=0)
    assert by_name.train_on_batch(x, Y) == plain.train_on_batch(X, Y)
    assert by_name.test_on_batch(x, Y) == plain.test_on_batch(X, Y)


def test_inputs_by_name_before_the_shape_is_known():
    model = models.Sequential([layers.GRU(5), layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(iter([({"input_layer": X}, Y)]), verbose=0)
    assert model.input_shape == (None, None, 3)


def test_inputs_by_other_names():
    model = classifier()
    name, before = model.input.name, model.get_weights()
    for wrong in ({}, {"other": X}, {name: X, "other": X}):
        for call in (
            lambda x: model.fit(x, Y), lambda x: model.evaluate(x, Y), model.predict, model.predict_on_batch, model,
            lambda x: model.train_on_batch(x, Y), lambda x: model.test_on_batch(x, Y),
            lambda x: model.fit(iter([(x, Y)]), verbose=0),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=f"`x`: expected one entry, for the only input, '{name}'; got "):
                call(wrong)
        with pytest.raises(ValueError, match="`validation_data`: expected one entry, for the only input"):
            model.fit(X, Y, validation_data=(wrong, Y))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))


def test_configs_of_compile():
    model = classifier(
        optimizers.Adam(optimizers.schedules.CosineDecay(0.5, 7), clipnorm=1.0),
        loss=seqcore.losses.CategoricalCrossentropy(label_smoothing=0.25),
        metrics=["accuracy", seqcore.metrics.Recall(class_id=1)],
        weighted_metrics=seqcore.metrics.AUC(name="area"),
    )
    config = json.loads(json.dumps(model.get_compile_config()))
    assert list(config) == ["optimizer", "loss", "loss_weights", "metrics", "weighted_metrics"]
    other = models.Sequential(model.layers)
    assert other.get_compile_config() == {}
    other.compile_from_config(config)
    assert other.get_compile_config() == config and type(other.optimizer) is optimizers.Adam
    target = utils.to_categorical(Y, 3)
    other.optimizer.learning_rate = optimizers.schedules.CosineDecay(0.5, 7)
    results = [m.evaluate(X, target, verbose=0, return_dict=True) for m in (model, other)]
    assert results[0] == results[1] and sorted(results[1]) == ["accuracy", "area", "loss", "recall"]
    model.compile("sgd", seqcore.losses.mean_squared_error, metrics=[seqcore.metrics.binary_accuracy])
    config = model.get_compile_config()
    assert config["loss"]["class_name"] == "MeanSquaredError" and config["metrics"] == ["binary_accuracy"]
    other.compile_from_config(config)
    other.compile_from_config({"loss": "mse"})
    assert other.optimizer.name == "rm_sprop" and other.get_compile_config()["metrics"] is None


def test_configs_of_compile_that_say_nothing():
    def own(y_true, y_pred):
        return abs(y_true - y_pred).mean(-1)

    model = classifier(metrics=[own])
    before = model.optimizer
    for config, message in (
        (None, "`config`: expected a dict, got NoneType"),
        ({}, r"`config`: expected arguments of `compile`, optimizer, loss, .*; got \{\}, as a model gives"),
        ({"loss": "mse", "learning_rate": 1}, r"`config`: .*; got \['learning_rate'\]"),
        (model.get_compile_config(), "unknown metric 'own'"),
        ({"optimizer": {"class_name": "Best", "config": {}}}, "unknown optimizer 'Best'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.compile_from_config(config)
    assert model.optimizer is before
