"""Saving and loading: resuming to the bit, atomic writes, hostile files, suffixes."""

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqcore
from seqcore import _core, layers, models, optimizers
from support import ROOT, random_case, rng_pick, sequential

RNG = np.random.default_rng(0)
X, Y = RNG.random((40, 5, 4)).astype(np.float32), RNG.integers(0, 3, 40)


def dropping(optimizer="adam"):
    model = models.Sequential([
        layers.Input((5, 4)), layers.LSTM(6, dropout=0.3, recurrent_dropout=0.2), layers.Dropout(0.4),
        layers.Dense(3, activation="softmax"),
    ])  # fmt: skip
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: "adam",
        lambda: optimizers.Adam(0.01, amsgrad=True, use_ema=True),
        lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.1, 5, 0.5)),
        lambda: optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2),
    ],
)
def test_training_goes_on_bit_for_bit(tmp_path, optimizer):
    """Six epochs in one piece; three, saved, loaded, three more: same weights, dropout and shuffling included."""
    path = tmp_path / "model.safetensors"
    model = dropping(optimizer())
    model.fit(X, Y, epochs=3, batch_size=16, verbose=0)
    model.save(path)
    expected = model.fit(X, Y, epochs=6, initial_epoch=3, batch_size=16, verbose=0).history
    loaded = models.load_model(path)
    actual = loaded.fit(X, Y, epochs=6, initial_epoch=3, batch_size=16, verbose=0).history
    assert actual == expected
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_save_and_load_any_model(tmp_path, seed):
    case = random_case(rng_pick(seed))
    model = sequential(seqcore, case.description)
    model.set_weights(case.weights)
    model.save(str(tmp_path / "m.safetensors"))
    loaded = models.load_model(str(tmp_path / "m.safetensors"))
    assert loaded.get_config() == model.get_config()
    assert np.array_equal(loaded.predict(case.x, verbose=0), model.predict(case.x, verbose=0))


def test_save_weights_and_load_weights(tmp_path):
    a, b = dropping(), dropping()
    path = tmp_path / "w.weights.safetensors"
    a.save_weights(path)
    b.load_weights(path)
    assert all(np.array_equal(v, w) for v, w in zip(a.get_weights(), b.get_weights(), strict=True))
    other = models.Sequential([layers.Input((5, 4)), layers.LSTM(7)])
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"the weights do not fit the model: .*: not in the "):
        other.load_weights(path)
    assert all(np.array_equal(v, w) for v, w in zip(before, other.get_weights(), strict=True))


@pytest.mark.parametrize("name", ["m.h5", "m.onnx", "m", "m.pkl"])
def test_other_suffixes_raise_by_name(tmp_path, name):
    with pytest.raises(ValueError, match="safetensors"):
        dropping().save(tmp_path / name)
    (tmp_path / name).write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match={"m.h5": "no HDF5"}.get(name, r"safetensors.*\.keras")):
        models.load_model(tmp_path / name)


def test_a_null_character_does_not_end_a_path(tmp_path):
    (tmp_path / "a").write_text("precious")
    name = str(tmp_path / "a\0b.safetensors")
    model = dropping()
    for call in (model.save, model.save_weights, model.load_weights, models.load_model):
        with pytest.raises(ValueError, match=r"`filepath`.*null"):
            call(name)
    assert (tmp_path / "a").read_text() == "precious"


def test_paths_that_are_no_text(tmp_path):
    """What POSIX allows and UTF-8 does not; damaged files and missing ones are called by their names."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.safetensors")
    model = dropping()
    model.save(path)
    loaded = models.load_model(path)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True))
    os.truncate(path, 10)
    with pytest.raises(ValueError, match=r"a.*safetensors: "):
        models.load_model(path)
    os.remove(path)
    with pytest.raises(FileNotFoundError):
        models.load_model(path)


def test_the_file_is_plain_safetensors(tmp_path):
    path = tmp_path / "m.safetensors"
    dropping().save(path)
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    assert all(isinstance(v, str) for v in header["__metadata__"].values())
    tensors = {k: v for k, v in header.items() if k != "__metadata__"}
    assert max(v["data_offsets"][1] for v in tensors.values()) == len(raw) - 8 - size
    assert all(v["dtype"] in ("F32", "F64", "I32", "I64", "U64", "U8") for v in tensors.values())


def test_numpy_round_trip(tmp_path):
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3.5), "empty": np.zeros((0, 4), np.int64),
        "käse/ü": np.arange(3, dtype=np.int32), "u": np.array([2**64 - 1], np.uint64), "c": np.arange(7).astype("u1"),
    }  # fmt: skip
    path = os.fsencode(tmp_path / "ünïcode ✓.safetensors")
    _core.write_safetensors(path, tensors, {"k": 'v\n"\\ü'})
    got, metadata = _core.read_safetensors(path)
    assert metadata == {"k": 'v\n"\\ü'} and set(got) == set(tensors)
    for k, v in tensors.items():
        assert got[k].dtype == v.dtype and got[k].shape == v.shape and np.array_equal(got[k], v)


# ------------------------------------------------------------------------------------------------------------- hostile


def pack(header, data=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def tensor(shape=(1,), offsets=(0, 4), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HOSTILE = {
    "empty": b"",
    "short": b"\1\2\3",
    "no header": struct.pack("<Q", 50),
    "huge header": struct.pack("<Q", 2**63),
    "negative header": b"\xff" * 8 + b"{}",
    "not json": pack(b"{]"),
    "not an object": pack([1, 2]),
    "deep": pack(b"[" * 100000),
    "duplicate": pack(b"{" + b",".join([b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'] * 2) + b"}", b"0" * 4),
    "hole": pack({"a": tensor(), "b": tensor(offsets=(8, 12))}, b"0" * 12),
    "overlap": pack({"a": tensor(), "b": tensor(offsets=(2, 6))}, b"0" * 6),
    "trailing": pack({"a": tensor()}, b"0" * 5),
    "truncated": pack({"a": tensor()}, b"0" * 3),
    "wrong size": pack({"a": tensor((2,))}, b"0" * 4),
    "overflow": pack({"a": tensor((2**32, 2**32))}, b"0" * 4),
    "negative": pack({"a": tensor((-1,))}, b"0" * 4),
    "backwards": pack({"a": tensor(offsets=(4, 0))}, b"0" * 4),
    "float offsets": pack(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4.5]}}', b"0" * 4),
    "unknown dtype": pack({"a": tensor(dtype="PICKLE")}, b"0" * 4),
    "missing field": pack({"a": {"dtype": "F32"}}, b""),
    "metadata not text": pack({"__metadata__": {"a": 1}}),
    "no model": pack({"__metadata__": {"format": "pt"}, "a": tensor()}, b"0" * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    path = tmp_path / "m.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: "):
        models.load_model(path)
    model = dropping()
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: "):
        model.load_weights(path)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "m.safetensors"
    model = dropping()
    model.fit(X[:8], Y[:8], verbose=0)
    model.save(path)
    return path.read_bytes()


def test_truncated_anywhere(saved, tmp_path):
    path = tmp_path / "m.safetensors"
    for n in sorted({*range(0, 40), *RNG.integers(0, len(saved), 200).tolist(), len(saved) - 1}):
        path.write_bytes(saved[:n])
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: safetensors: "):
            models.load_model(path)


@given(st.data())
def test_changed_bytes_raise_or_load(saved, tmp_path_factory, data):
    """A changed byte gives a ValueError or a model (names and data are free), never anything else."""
    (size,) = struct.unpack("<Q", saved[:8])
    raw = bytearray(saved)
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, size + 20))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("m") / "m.safetensors"
    path.write_bytes(raw)
    with contextlib.suppress(ValueError):
        assert models.load_model(path).layers


def test_a_missing_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        models.load_model(tmp_path / "nothing.safetensors")
    with pytest.raises(OSError):
        dropping().save(tmp_path / "no" / "folder" / "m.safetensors")


def test_a_read_only_folder_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.safetensors"
    dropping().save(path)
    before = path.read_bytes()
    full = b"/dev/full"
    if os.path.exists(full):
        with pytest.raises(OSError):
            _core.write_safetensors(full, {"a": np.zeros(4, np.float32)}, {})
    os.chmod(tmp_path, 0o500)
    try:
        if os.geteuid() != 0:
            with pytest.raises(OSError):
                dropping().save(path)
    finally:
        os.chmod(tmp_path, 0o700)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.safetensors"]


def test_killed_while_saving_leaves_a_whole_file(tmp_path):
    """SIGKILL at 30 moments of a process that saves two versions in turn: the file is always one of them."""
    path = tmp_path / "m.safetensors"
    code = f"""
import time
import numpy as np
from seqcore import layers, models
model = models.Sequential([layers.Input((300,)), layers.Dense(1000)])
def save():
    for v in (1.0, 2.0):
        model.set_weights([np.full((300, 1000), v, np.float32), np.full(1000, v, np.float32)])
        model.save({str(path)!r})
begin = time.perf_counter()
save()
print(time.perf_counter() - begin, flush=True)
while True:
    save()
"""
    seen = set()
    for attempt in range(30):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
        round_of_both = float(process.stdout.readline())
        time.sleep(round_of_both * attempt / 15)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        kernel, bias = models.load_model(path).get_weights()
        assert len(np.unique(np.concatenate([kernel.ravel(), bias]))) == 1
        seen.add(float(bias[0]))
    assert seen <= {1.0, 2.0}


def test_locale_does_not_matter(tmp_path):
    import locale

    path = tmp_path / "m.safetensors"
    model = dropping(optimizers.Adam(0.125))
    model.save(path)
    old = locale.setlocale(locale.LC_ALL)
    for name in ("de_DE.UTF-8", "C.UTF-8"):
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue
        try:
            assert float(models.load_model(path).optimizer.learning_rate) == 0.125
        finally:
            locale.setlocale(locale.LC_ALL, old)


def test_words_of_save(tmp_path):
    model = seqcore.Sequential([seqcore.Input((2,)), seqcore.layers.Dense(1)])
    path = tmp_path / "model.safetensors"
    model.save(path, zipped=None)
    for word in ("overwite", "save_format"):
        with pytest.raises(TypeError, match=rf"unrecognized keyword arguments \['{word}'\]"):
            model.save(path, **{word: False})
    with pytest.raises(ValueError, match="`name` of Sequential"):
        seqcore.Sequential(name=3)
