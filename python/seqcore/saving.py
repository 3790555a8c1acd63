"""Saving and loading models."""

from .models import load_model, save_model

__all__ = ["load_model", "save_model"]
