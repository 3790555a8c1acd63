"""Profiles: "ci" (default; the same examples everywhere), "long" (SEQCORE_TEST_PROFILE=long). Comparisons with Keras
are collected only where SEQCORE_TEST_KERAS says how many models to compare."""

import os
import sys

import hypothesis
import pytest

sys.path.insert(0, os.path.dirname(__file__))  # support, reference

import seqcore

hypothesis.settings.register_profile("ci", max_examples=40, derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("long", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("SEQCORE_TEST_PROFILE", "ci"))

_KERAS = ["test_keras.py", "test_keras_cells.py", "test_keras_saving.py"]
collect_ignore = [] if os.environ.get("SEQCORE_TEST_KERAS") else _KERAS


@pytest.fixture(autouse=True)
def _same_start():
    """Each test starts from one seed and leaves the number of threads as it was."""
    threads = seqcore.get_num_threads()
    seqcore.utils.set_random_seed(7)
    yield
    seqcore.set_num_threads(threads)
