"""Layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._config import to_config
from ._activation_layers import ELU, Activation, Identity, LeakyReLU, ReLU, Softmax
from ._base import Layer, registry
from ._batch_normalization import BatchNormalization
from ._cells import RNN, GRUCell, LSTMCell, SimpleRNNCell, StackedRNNCells
from ._core_layers import (
    ActivityRegularization,
    AlphaDropout,
    Dense,
    Dropout,
    Embedding,
    GaussianDropout,
    GaussianNoise,
    Input,
    InputLayer,
    LayerNormalization,
    Masking,
    SpatialDropout1D,
)
from ._recurrent import GRU, LSTM, SimpleRNN
from ._shape_layers import (
    Flatten,
    GlobalAveragePooling1D,
    GlobalAvgPool1D,
    GlobalMaxPool1D,
    GlobalMaxPooling1D,
    Permute,
    RepeatVector,
    Reshape,
)
from ._window_layers import AveragePooling1D, AvgPool1D, Conv1D, MaxPool1D, MaxPooling1D
from ._wrappers import Bidirectional, TimeDistributed

__all__ = [
    "ELU", "GRU", "LSTM", "RNN", "Activation", "ActivityRegularization", "AlphaDropout", "AveragePooling1D",
    "AvgPool1D", "BatchNormalization", "Bidirectional", "Conv1D", "Dense", "Dropout", "Embedding", "Flatten",
    "GRUCell", "GaussianDropout", "GaussianNoise", "GlobalAveragePooling1D", "GlobalAvgPool1D", "GlobalMaxPool1D",
    "GlobalMaxPooling1D", "Identity", "Input", "InputLayer", "LSTMCell", "Layer", "LayerNormalization", "LeakyReLU",
    "Masking", "MaxPool1D", "MaxPooling1D", "Permute", "ReLU", "RepeatVector", "Reshape", "SimpleRNN", "SimpleRNNCell",
    "Softmax", "SpatialDropout1D", "StackedRNNCells", "TimeDistributed", "deserialize", "serialize",
]  # fmt: skip

_registry = registry
_registry.add(
    [InputLayer, SimpleRNN, LSTM, GRU, RNN, SimpleRNNCell, LSTMCell, GRUCell, StackedRNNCells, Bidirectional,
     TimeDistributed, Dense, Conv1D, Embedding, Masking, Dropout, SpatialDropout1D, GaussianDropout, GaussianNoise,
     AlphaDropout, ActivityRegularization, Activation, Identity, ReLU, LeakyReLU, ELU, Softmax, Flatten, Reshape,
     Permute, RepeatVector, MaxPooling1D, AveragePooling1D, GlobalAveragePooling1D, GlobalMaxPooling1D,
     LayerNormalization, BatchNormalization]
)  # fmt: skip


def serialize(layer: Layer) -> dict[str, Any]:
    """The layer's {"class_name", "config"} description."""
    return dict(to_config(layer))


def deserialize(config: Mapping[str, Any]) -> Layer:
    """The layer of a {"class_name", "config"} description."""
    return _registry.deserialize(config)
