"""Loading models."""

from .models import load_model

__all__ = ["load_model"]
