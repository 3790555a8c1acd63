"""seqcore trains recurrent networks and serves them on CPUs, in Keras's words.

from seqcore import layers, models
"""

from . import (
    activations,
    backend,
    callbacks,
    config,
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    preprocessing,
    random,
    regularizers,
    saving,
    utils,
)
from ._engine import __version__, get_num_threads, set_num_threads, show_config
from ._serving import Stream, Streams
from ._variable import Variable
from .layers import Input
from .models import Model, Sequential

__all__ = [
    "Input", "Model", "Sequential", "Stream", "Streams", "Variable", "__version__", "activations", "backend",
    "callbacks", "config", "constraints", "get_num_threads", "initializers", "layers", "losses", "metrics", "models",
    "optimizers", "preprocessing", "random", "regularizers", "saving", "set_num_threads", "show_config", "utils",
]  # fmt: skip
