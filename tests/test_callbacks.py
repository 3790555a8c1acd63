"""Callbacks that hold a training's state: backups, and averages in the weights' place."""

import os

import numpy as np
import pytest

import seqcore
from seqcore import callbacks, layers, models, optimizers

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 5, 3)), RNG.normal(size=(24, 2))


def model_of(optimizer="adam", seed=3):
    seqcore.utils.set_random_seed(seed)
    model = seqcore.Sequential([layers.Input((5, 3)), layers.GRU(4, dropout=0.3), layers.Dense(2)])
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


class Interrupt(callbacks.Callback):
    """Raises before an epoch, or after a batch of it."""

    def __init__(self, epoch, batch=None):
        super().__init__()
        self.at, self.batch, self.epoch = epoch, batch, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if epoch == self.at and self.batch is None:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.at and batch == self.batch:
            raise KeyboardInterrupt


def fit(model, *more, epochs=6, **arguments):
    return model.fit(X, Y, batch_size=5, epochs=epochs, verbose=0, callbacks=list(more), **arguments)


def interrupted(model, *more):
    with pytest.raises(KeyboardInterrupt):
        fit(model, *more)


def same_weights(a, b):
    return all(np.array_equal(v, w) for v, w in zip(a.get_weights(), b.get_weights(), strict=True))


# -------------------------------------------------------------------------------------------------------------- backups


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.Adam(0.01, amsgrad=True, use_ema=True),
        lambda: optimizers.Nadam(0.01, gradient_accumulation_steps=3),
        lambda: optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 3, 0.5), momentum=0.9),
    ],
)
@pytest.mark.parametrize("batch", [None, 2])
def test_an_interrupted_fit_goes_on_to_the_bit(optimizer, batch, tmp_path):
    """Dropout, shuffles and all: also in a new process's model, whose weights and seeds are others."""
    straight, broken = model_of(optimizer()), model_of(optimizer())
    expected = fit(straight)
    folder = tmp_path / "backup"
    interrupted(broken, callbacks.BackupAndRestore(folder), Interrupt(4, batch))
    assert [p.name for p in folder.iterdir()] == ["latest.safetensors"]
    for again in (broken, model_of(optimizer(), seed=99)):
        keep = callbacks.BackupAndRestore(folder, delete_checkpoint=again is not broken)
        history = fit(again, keep)
        assert history.epoch == ([4, 5] if again is broken else [])
        if again is broken:
            assert history.history["loss"] == expected.history["loss"][4:]
        assert same_weights(again, straight)
    assert not folder.exists()
    assert fit(again, callbacks.BackupAndRestore(folder), epochs=2).epoch == [0, 1]


def test_in_a_new_model(tmp_path):
    straight, broken = model_of(), model_of()
    fit(straight)
    interrupted(broken, callbacks.BackupAndRestore(tmp_path), Interrupt(3))
    new = model_of(optimizers.Adam(0.5), seed=7)  # takes over the rate, too
    history = fit(new, callbacks.BackupAndRestore(tmp_path))
    assert history.epoch == [3, 4, 5] and same_weights(new, straight)
    assert float(new.optimizer.learning_rate) == float(straight.optimizer.learning_rate)
    assert tmp_path.exists() is False


def test_backups_are_models_and_what_else_is_there_stays(tmp_path):
    model = model_of()
    (tmp_path / "notes.txt").write_text("mine")
    interrupted(model, callbacks.BackupAndRestore(str(tmp_path)), Interrupt(2))
    loaded = models.load_model(tmp_path / "latest.safetensors")
    assert same_weights(loaded, model) and int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 10
    fit(model, callbacks.BackupAndRestore(str(tmp_path)))
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_backups_after_batches(tmp_path):
    """The interrupted epoch begins again with the weights of its last backup, as Keras's."""
    model = model_of()
    seen = {}

    class Look(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen[int(model.optimizer.iterations)] = model.get_weights()

    interrupted(model, callbacks.BackupAndRestore(tmp_path, save_freq=3), Look(), Interrupt(1, 3))  # 9 batches, 5 + 4
    assert sorted(seen) == list(range(1, 10))
    other = model_of(seed=5)
    begun = []

    class Begin(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            begun.append((epoch, int(other.optimizer.iterations), other.get_weights()))

    fit(other, callbacks.BackupAndRestore(tmp_path, save_freq=3), Begin(), epochs=3)
    assert [b[:2] for b in begun] == [(1, 9), (2, 14)]
    assert all(np.array_equal(a, b) for a, b in zip(begun[0][2], seen[9], strict=True))


def test_a_damaged_backup(tmp_path):
    model = model_of()
    interrupted(model, callbacks.BackupAndRestore(tmp_path, double_checkpoint=True), Interrupt(4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest.safetensors", "latest.safetensors.bkp"]
    latest = tmp_path / "latest.safetensors"
    latest.write_bytes(latest.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"latest\.safetensors"):
        other = model_of()
        (tmp_path / "alone").mkdir()
        (tmp_path / "alone" / "latest.safetensors").write_bytes(latest.read_bytes())
        fit(other, callbacks.BackupAndRestore(tmp_path / "alone"))
    with pytest.warns(UserWarning, match="the backup before it is taken"):
        history = fit(model, callbacks.BackupAndRestore(tmp_path, double_checkpoint=True))
    assert history.epoch == [3, 4, 5]
    assert sorted(os.listdir(tmp_path)) == ["alone"]


@pytest.mark.parametrize("other", ["layers", "optimizer", "file"])
def test_a_backup_of_another_model_changes_nothing(other, tmp_path):
    interrupted(model_of(), callbacks.BackupAndRestore(tmp_path), Interrupt(1))
    if other == "layers":
        model = seqcore.Sequential([layers.Input((5, 3)), layers.GRU(5), layers.Dense(2)])
        model.compile("adam", "mse")
    else:
        model = model_of("sgd" if other == "optimizer" else "adam", seed=4)
    if other == "file":
        model.save(tmp_path / "latest.safetensors")
        model.set_weights([w + 1 for w in model.get_weights()])
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"latest\.safetensors: no backup of this model"):
        fit(model, callbacks.BackupAndRestore(tmp_path))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))
    assert int(model.optimizer.iterations) == 0
    assert (tmp_path / "latest.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backup_dir": ""}, "`backup_dir`: expected the path of a folder, got ''"),
        ({"backup_dir": None}, "`backup_dir`: expected the path of a folder, got None"),
        ({"backup_dir": "b", "save_freq": 0}, "`save_freq`"), ({"backup_dir": "b", "save_freq": None}, "`save_freq`"),
        ({"backup_dir": "b", "save_freq": "batch"}, "`save_freq`"), ({"backup_dir": "b", "save_freq": True}, "`save_f"),
    ],
)  # fmt: skip
def test_bad_arguments_of_backups(arguments, message):
    with pytest.raises(ValueError, match=message):
        callbacks.BackupAndRestore(**arguments)


@pytest.mark.parametrize("folder", [3, b"backup", ["backup"]])
def test_what_is_no_path_of_backups(folder):
    with pytest.raises(TypeError, match="`backup_dir`: expected the path of a folder, a string, got "):
        callbacks.BackupAndRestore(folder)


# ------------------------------------------------------------------------------------------------------------- averages


def averages(model):
    return [v.numpy() for v in model.optimizer.variables if v.path.startswith("average/")]


def test_averages_are_evaluated_and_weights_trained():
    plain, swapping = (model_of(optimizers.Adam(0.05, use_ema=True, ema_momentum=0.8)) for _ in range(2))
    seen = []

    class Look(callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            seen.append(("test", self.model.get_weights(), averages(self.model)))

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(("epoch", self.model.get_weights(), averages(self.model)))

    validation = {"validation_data": (X[:8], Y[:8])}
    a = fit(plain, Look(), **validation, epochs=3).history
    of_plain, seen = seen, []
    b = fit(swapping, callbacks.SwapEMAWeights(), Look(), **validation, epochs=3).history
    assert a["loss"] == b["loss"] and a["val_loss"] != b["val_loss"]
    assert same_weights(plain, swapping)  # both have the averages in the end
    for (when, weights, means), (same, w, m) in zip(of_plain, seen, strict=True):
        expected = weights + means if when == "epoch" else means + weights
        assert when == same and all(np.array_equal(p, q) for p, q in zip(expected, w + m, strict=True))
    assert swapping.evaluate(X[:8], Y[:8], verbose=0)[0] == b["val_loss"][-1]


@pytest.mark.parametrize("stop", [False, True])
def test_averages_at_the_end_of_epochs(stop, tmp_path):
    """What is saved behind it; and in the end, also where something stopped `fit`, the weights are the averages."""
    plain, swapping = (model_of(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8)) for _ in range(2))

    class Stop(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = stop and epoch == 1

    kept = {}

    class Keep(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept[epoch] = averages(self.model)

    fit(plain, Keep(), Stop(), epochs=3)
    path = str(tmp_path / "{epoch}.weights.safetensors")
    saved = callbacks.ModelCheckpoint(path, save_weights_only=True)
    fit(swapping, callbacks.SwapEMAWeights(swap_on_epoch=True), saved, Stop(), epochs=3)
    assert same_weights(plain, swapping) and len(kept) == (2 if stop else 3)
    assert all(np.array_equal(p, q) for p, q in zip(averages(plain), averages(swapping), strict=True))
    for epoch, expected in kept.items():
        other = model_of()
        other.load_weights(path.format(epoch=epoch + 1))
        assert all(np.array_equal(p, q) for p, q in zip(other.get_weights(), expected, strict=True))


def test_predictions_from_averages_leave_the_weights():
    model = model_of(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    model.fit(X, Y, epochs=2, verbose=0)
    model.train_on_batch(X, Y)
    weights, means = model.get_weights(), averages(model)
    plain = model.predict(X, verbose=0)
    with_averages = model.predict(X, verbose=0, callbacks=[callbacks.SwapEMAWeights()])
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert np.array_equal(model.predict(X, verbose=0), plain) and not np.array_equal(with_averages, plain)
    model.set_weights(means)
    assert np.array_equal(model.predict(X, verbose=0), with_averages)


def test_backups_hold_the_weights_and_not_the_averages(tmp_path):
    straight, broken = (model_of(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8)) for _ in range(2))
    fit(straight)
    kept = callbacks.SwapEMAWeights(swap_on_epoch=True), callbacks.BackupAndRestore(tmp_path)
    interrupted(broken, *kept, Interrupt(2))
    new = model_of(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8), seed=8)
    fit(new, *kept)
    assert same_weights(new, straight)


def test_frozen_layers_and_broken_fits():
    model = model_of()
    model.layers[1].trainable = False
    model.compile(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9), "mse")
    other = model_of()
    other.layers[1].trainable = False
    other.compile(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9), "mse")
    for m in (model, other):
        swap = callbacks.SwapEMAWeights(swap_on_epoch=True)
        interrupted(m, *([swap] if m is model else []), Interrupt(2))
        m.fit(X, Y, epochs=1, verbose=0, shuffle=False)  # of its own weights, where the averages were left in the model
    assert same_weights(model, other)


def test_what_swap_needs():
    with pytest.raises(ValueError, match="use_ema=True"):
        fit(model_of(), callbacks.SwapEMAWeights())
    untrained = model_of(optimizers.SGD(use_ema=True))
    plain = untrained.evaluate(X, Y, verbose=0)
    assert untrained.evaluate(X, Y, verbose=0, callbacks=[callbacks.SwapEMAWeights()]) == plain
