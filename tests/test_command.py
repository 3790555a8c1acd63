"""The command line: `python -m seqcore` and `seqcore`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import seqcore
from seqcore import __main__ as command
from seqcore import layers, models


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("command") / "model.safetensors"
    models.Sequential(
        [layers.Input((None, 3)), layers.LSTM(20, return_sequences=True), layers.Dense(2, name="head")]
    ).save(path)
    return str(path)


def run(capsys, *arguments):
    code = command.main(arguments)
    out, err = capsys.readouterr()
    assert code == (1 if err else 0)
    return out, err


def test_as_a_module_and_as_a_script(path):
    for program in ([sys.executable, "-m", "seqcore"], [str(Path(sys.executable).parent / "seqcore")]):
        done = subprocess.run([*program, "--version"], capture_output=True, text=True, timeout=60)
        assert done.stdout == f"{seqcore.__version__}\n" and done.returncode == 0
        done = subprocess.run([*program, "--cmakedir"], capture_output=True, text=True, timeout=60)
        assert Path(done.stdout.strip(), "seqcoreConfig.cmake").is_file()
        done = subprocess.run([*program, "info", path], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "Total params: 1,962" in done.stdout


def test_info(capsys, path):
    out, _ = run(capsys, "info", path)
    assert "head (Dense)" in out and "lstm" in out and f"{Path(path).stat().st_size:,} bytes" in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("float32 ", "bfloat16 ", "int8 "))]
    floors = {row[0]: row for row in rows}
    sizes = [int(floors[p][1].replace(",", "")) for p in ("float32", "bfloat16", "int8")]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] >= 4 * 1962
    assert all(float(row[2]) >= 0 for row in floors.values())


def test_info_of_a_model_that_cannot_stream(capsys, tmp_path):
    path = tmp_path / "model.safetensors"
    models.Sequential([layers.Input((5, 3)), layers.Bidirectional(layers.LSTM(4))]).save(path)
    out, _ = run(capsys, "info", str(path))
    assert "Total params" in out and "No stream: " in out
    out, err = run(capsys, "bench", str(path))
    assert not out and "cannot run step by step" in err


def test_bench(capsys, path):
    out, _ = run(capsys, "bench", path, "--seconds", "0.02")
    assert all(f"{p}\n" in out for p in seqcore._engine.PRECISIONS) and "█" in out and "p99.9" in out
    out, _ = run(capsys, "bench", path, "--seconds", "0.02", "--json", "--precision", "int8", "--threads", "2")
    result = json.loads(out)
    assert result["threads"] == 2 and result["unit"] == "us" and result["file"] == path
    (row,) = result["results"]
    assert row["precision"] == "int8" and row["steps"] > 0
    assert 0 < row["p50"] <= row["p90"] <= row["p99"] <= row["p99.9"] <= row["max"] and row["floor"] > 0


def test_bench_for_no_time(capsys, path):
    out, _ = run(capsys, "bench", path, "--seconds", "1e-9", "--precision", "int8", "--json", "--threads", "3")
    result = json.loads(out)
    assert result["threads"] == 3 and result["results"][0]["steps"] > 0


@pytest.mark.parametrize("arguments", [["info", "{path}"], ["bench", "{path}", "--seconds", "0.01"]])
def test_any_terminal(path, arguments):
    program = [sys.executable, "-m", "seqcore", *(a.format(path=path) for a in arguments)]
    done = subprocess.run(
        program, capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    )
    assert done.returncode == 0 and done.stdout.isascii() and not done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert done.returncode == 1 and not done.stderr


def test_bench_of_ids(capsys, tmp_path):
    path = tmp_path / "model.safetensors"
    models.Sequential([layers.Input((None,), dtype="int32"), layers.Embedding(9, 4), layers.GRU(5)]).save(path)
    out, _ = run(capsys, "bench", str(path), "--seconds", "0.01", "--json")
    assert len(json.loads(out)["results"]) == 3


def test_convert(capsys, path, tmp_path):
    model = models.load_model(path)
    model.compile("adam", "mse")
    model.save(tmp_path / "compiled.safetensors")
    for words, compiled in (([], True), (["--no-compile"], False)):
        to = str(tmp_path / "converted.safetensors")
        assert run(capsys, "convert", str(tmp_path / "compiled.safetensors"), to, *words) == ("", "")
        again = models.load_model(to)
        assert again.compiled is compiled
        assert all((a == b).all() for a, b in zip(model.get_weights(), again.get_weights(), strict=True))
    there, back = str(tmp_path / "model.keras"), str(tmp_path / "back.safetensors")
    assert run(capsys, "convert", path, there) == run(capsys, "convert", there, back) == ("", "")
    again = models.load_model(back)
    assert all((a == b).all() for a, b in zip(model.get_weights(), again.get_weights(), strict=True))
    out, err = run(capsys, "convert", path, str(tmp_path / "model.h5"))
    assert not out and "ending in .safetensors or .keras" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["info", "nothing.safetensors"], "nothing.safetensors"),
        (["bench", "nothing.pt"], ".safetensors"),
        (["bench", "{path}", "--seconds", "0"], "--seconds"),
        (["bench", "{path}", "--seconds", "nan"], "--seconds"),
        (["bench", "{path}", "--threads", "0"], "`threads`"),
    ],
)
def test_errors(capsys, path, arguments, message):
    out, err = run(capsys, *(a.format(path=path) for a in arguments))
    assert not out and err.startswith("seqcore: ") and message in err


def test_usage(capsys):
    out, _ = run(capsys)
    assert "info" in out and "bench" in out and "--cmakedir" in out
    for arguments in (["nonsense"], ["bench"], ["bench", "x.safetensors", "--precision", "float16"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(arguments)
        assert stopped.value.code == 2
    assert "float16" in capsys.readouterr().err
