"""Settings of the process."""

from __future__ import annotations

import numpy as np

from ._engine import get_num_threads, set_num_threads, show_config

__all__ = ["epsilon", "floatx", "get_num_threads", "image_data_format", "set_floatx", "set_num_threads", "show_config"]


def floatx() -> str:
    """The one dtype of computation: "float32"."""
    return "float32"


def set_floatx(value: str) -> None:
    """Accepts "float32" and nothing else."""
    if value != "float32":
        raise ValueError(f"`value`: seqcore computes in float32, got {value!r}")


def epsilon() -> float:
    """The small number that keeps logarithms finite."""
    return float(np.float64(1e-7))


def image_data_format() -> str:
    """ "channels_last"."""
    return "channels_last"
