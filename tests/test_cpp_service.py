"""The example of a C++ service, built against the package as it is installed: Python's answers to the last bit, in C++,
C and by ctypes; and what strangers may do to it."""

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import cmake
import ninja
import numpy as np
import pytest

import seqcore
from seqcore import layers, models
from seqcore.__main__ import cmake_dir
from support import ROOT

EXAMPLE = Path(ROOT, "examples", "cpp_service")


def call(*command, **more):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300, **more)


def configure(source, to, *options):
    ninja_program = f"-DCMAKE_MAKE_PROGRAM={Path(ninja.BIN_DIR, 'ninja')}"
    return call(Path(cmake.CMAKE_BIN_DIR, "cmake"), "-S", source, "-B", to, "-G", "Ninja", ninja_program, *options)


def build(source, to, *options):
    made = configure(source, to, *options)
    return call(Path(cmake.CMAKE_BIN_DIR, "cmake"), "--build", to) if made.returncode == 0 else made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the trained model, its rows and answers, and the programs, built as the example says."""
    folder = tmp_path_factory.mktemp("service")
    module = importlib.util.spec_from_file_location("train", EXAMPLE / "train.py")
    train = importlib.util.module_from_spec(module)
    module.loader.exec_module(train)
    train.main(folder)
    built = build(EXAMPLE, folder / "build", f"-Dseqcore_DIR={cmake_dir()}")
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def floats(text):
    return np.array([[float.fromhex(word) for word in line.split()] for line in text.splitlines()], np.float32)


def programs(folder):
    """What runs a model on rows of standard input: C++, C, and Python by ctypes."""
    library = Path(cmake_dir(), "..", "..", "libseqcore.so")
    return {
        "service": [folder / "build" / "service"],
        "client": [folder / "build" / "client"],
        "ctypes": [sys.executable, EXAMPLE / "ctypes_client.py", library],
    }


@pytest.mark.parametrize("name", ["service", "client", "ctypes"])
def test_the_same_bits_as_python(folder, name):
    done = call(*programs(folder)[name], folder / "model.safetensors", input=(folder / "rows.txt").read_text())
    assert done.returncode == 0, done.stderr
    expected = floats((folder / "expected.txt").read_text())
    assert expected.shape == (2000, 3)
    assert floats(done.stdout).tobytes() == expected.tobytes()
    assert name != "service" or "p99.9" in done.stderr


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_reduced_precisions_too(folder, precision):
    rows = (folder / "rows.txt").read_text()
    done = call(folder / "build" / "service", folder / "model.safetensors", precision, input=rows)
    expected = models.load_model(folder / "model.safetensors").stream(precision).run(np.loadtxt(rows.splitlines()))
    assert floats(done.stdout).tobytes() == expected.tobytes()


def newer(path, folder):
    """The model, in a format that a later version might write."""
    tensors, metadata = seqcore._engine.read_safetensors(os.fsencode(path))
    header = json.loads(metadata["seqcore"])
    header["format_version"] = 2
    copy = folder / "newer.safetensors"
    seqcore._engine.write_safetensors(os.fsencode(copy), tensors, {"seqcore": json.dumps(header)})
    return copy


@pytest.mark.parametrize("name", ["service", "client", "ctypes"])
def test_bad_files_are_refused_by_name(folder, tmp_path, name):
    good = folder / "model.safetensors"
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(good.read_bytes()[:-1])
    backwards = tmp_path / "backwards.safetensors"
    models.Sequential([layers.Input((None, 3)), layers.LSTM(4, go_backwards=True)]).save(backwards)
    cases = [
        (tmp_path / "missing.safetensors", "missing.safetensors"),
        (truncated, "truncated.safetensors"),
        (newer(good, tmp_path), "format_version 2 is not known"),
        (folder / "rows.txt", "rows.txt"),
        (backwards, "cannot run step by step"),
    ]
    for path, message in cases:
        done = call(*programs(folder)[name], path, input="1 2 3\n")
        assert done.returncode == 1 and message in done.stderr and not done.stdout, (path, done)


def test_only_its_own_symbols_are_exported():
    library = Path(cmake_dir(), "..", "..", "libseqcore.so")
    names = call("nm", "-D", "--defined-only", library).stdout.split()[2::3]
    header = Path(cmake_dir(), "..", "..", "..", "include", "seqcore", "seqcore.h").read_text()
    assert names and all(n.startswith("seqcore_") and f"{n}(" in header for n in names)


IN_C = """
cmake_minimum_required(VERSION 3.20)
project(in_c LANGUAGES C)
find_package(seqcore 0.1 CONFIG REQUIRED)
get_target_property(features seqcore::seqcore INTERFACE_COMPILE_FEATURES)
if(features)
  message(FATAL_ERROR "CMake 3.20: Cannot use features from non-enabled language CXX")
endif()
"""


def test_a_project_in_c_alone(tmp_path):
    """CMake older than the one that runs here refuses such a project where a target asks for C++17."""
    (tmp_path / "CMakeLists.txt").write_text(IN_C + f'add_executable(client "{EXAMPLE / "client.c"}")\n'
                                             "target_link_libraries(client PRIVATE seqcore::seqcore)\n")  # fmt: skip
    built = build(tmp_path, tmp_path / "build", f"-Dseqcore_DIR={cmake_dir()}")
    assert built.returncode == 0, built.stdout + built.stderr


CLOSED = """
import _ctypes, ctypes, sys, time
library, model, stream = ctypes.CDLL(sys.argv[1]), ctypes.c_void_p(), ctypes.c_void_p()
assert library.seqcore_model_load(sys.argv[2].encode(), ctypes.byref(model)) == 0
assert library.seqcore_stream_create(model, 0, ctypes.c_int64(1), 3, ctypes.byref(stream)) == 0
_ctypes.dlclose(library._handle)
time.sleep(0.1)
"""


def test_helpers_outlive_dlclose(folder):
    """A stream's helpers spin for a millisecond and then sleep: what they run stays in memory."""
    library = Path(cmake_dir(), "..", "..", "libseqcore.so")
    done = call(sys.executable, "-c", CLOSED, library, folder / "model.safetensors")
    assert done.returncode == 0, done


PARENT = f"""
cmake_minimum_required(VERSION 3.20)
project(parent LANGUAGES CXX)
set(SKBUILD 2)  # as in a Python package of one's own
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
add_subdirectory("{ROOT}" inside)
if(TARGET _core OR NOT TARGET seqcore::seqcore OR NOT TARGET seqcore::seqcore_static)
  message(FATAL_ERROR "other targets")
endif()
"""


def test_inside_another_project(tmp_path):
    """Its targets are the two libraries, whose arithmetic stays IEEE's whatever the project's flags."""
    (tmp_path / "CMakeLists.txt").write_text(PARENT)
    made = configure(tmp_path, tmp_path / "build", "-DCMAKE_CXX_FLAGS=-O3 -ffast-math")
    assert made.returncode == 0, made.stdout + made.stderr
    commands = json.loads((tmp_path / "build" / "compile_commands.json").read_text())
    compiler = next(c["command"] for c in commands if c["file"].endswith("isa_scalar.cc")).partition(" -o ")[0]
    macros = call(*shlex.split(compiler), "-dM", "-E", "-x", "c++", os.devnull).stdout
    assert "__FINITE_MATH_ONLY__ 0" in macros and "__FAST_MATH__" not in macros


def test_size_of_the_package():
    package = Path(cmake_dir()).parents[2]
    sources = Path(seqcore.__file__).parent
    files = {p for top in (package, sources) for p in top.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert sum(os.path.getsize(p) for p in files) < 5_000_000
