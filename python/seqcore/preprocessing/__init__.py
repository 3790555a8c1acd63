"""Preparing data."""

from . import sequence

__all__ = ["sequence"]
