"""What scripts take from Keras's `backend` module."""

from ._names import clear_session
from .config import epsilon, floatx, image_data_format, set_floatx

__all__ = ["backend", "clear_session", "epsilon", "floatx", "image_data_format", "set_floatx"]


def backend() -> str:
    """The name of what computes."""
    return "seqcore"
