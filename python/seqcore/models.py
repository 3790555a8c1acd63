"""Models: `Sequential`, and how models are made from files and descriptions."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import _engine, _serving
from ._config import boolean, check_mapping, optional, sizes, text, to_config
from ._custom_objects import with_registered
from ._names import unique_name
from ._network import Network, Shape, chain_shapes
from ._training import Trainer
from ._variable import Variable
from .layers import InputLayer, Layer
from .layers import deserialize as _deserialize_layer
from .layers._base import Chain, assign_all, count_params, stateful_message

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]


class _NoShape(ValueError, AttributeError):
    """Makes `hasattr(model, "input_shape")` tell whether there is one."""


class _ModelType(type):
    """`Model(inputs, outputs)` is the Sequential of the layers from the one to the other."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if issubclass(cls, Sequential):
            return super().__call__(*args, **kwargs)
        if cls is not Model:
            raise TypeError(f"{cls.__name__}: models are chains of layers; expected a subclass of Sequential")
        return _between(*args, **kwargs)

    @property
    def __signature__(cls) -> inspect.Signature:
        """What editors and `help` show: `__call__` takes anything."""
        if not issubclass(cls, Sequential):
            return inspect.signature(_between)
        made = inspect.signature(cls.__init__)
        return made.replace(parameters=list(made.parameters.values())[1:], return_annotation=made.empty)


class Model(Trainer, metaclass=_ModelType):
    """Base of models. `Model(inputs, outputs)` makes one from its input and its output, if a single chain of layers
    lies between them: a `Sequential`, whose `layers` are those without the Input.

    Args:
        inputs: an `Input`, or a list of one; a model's `input`, or a layer's.
        outputs: what the last layer gave, or a list of that; a model's `output`, or a layer's.
        name: a name.
        trainable: whether training changes any weight.

    Raises:
        ValueError: there is no such chain, or a layer stands in it twice.

    Example:
        >>> from seqcore import Input, Model, layers
        >>> inputs = Input((10, 3))
        >>> x = layers.LSTM(8)(inputs)
        >>> model = Model(inputs, layers.Dense(2, activation="softmax")(x))
        >>> model.output_shape
        (None, 2)
    """


def _between(inputs: Any, outputs: Any, name: str | None = None, trainable: bool = True) -> Sequential:
    given, last = (v[0] if isinstance(v, (list, tuple)) and len(v) == 1 else v for v in (inputs, outputs))
    if isinstance(given, InputLayer):
        given = given._begin()
    if not isinstance(given, Chain):
        raise ValueError(f"`inputs` of Model: expected an Input, the only one, got {inputs!r}")
    if not isinstance(last, Chain) or not last.layers:
        raise ValueError(f"`outputs` of Model: expected what a layer gave, the only output, got {outputs!r}")
    n = len(given.layers)
    if last.begin is not given.begin or last.layers[:n] != given.layers or len(last.layers) == n:
        raise ValueError(
            f"`outputs` of Model: expected layers called on {given if n else given.begin!r}, got "
            f"{last if n else last.begin!r}"
        )
    begin = InputLayer(batch_shape=given.shape) if n else given.begin
    return Sequential([begin, *last.layers[n:]], trainable, name or unique_name("functional"))


class Sequential(Model):
    """A chain of layers.

    Args:
        layers: layers to begin with; an `Input` may be the first.
        trainable: whether training changes any weight.
        name: a name.

    Example:
        >>> import numpy as np
        >>> from seqcore import layers, models
        >>> model = models.Sequential()
        >>> model.add(layers.LSTM(8, input_shape=(10, 3)))
        >>> model.add(layers.Dense(2, activation="softmax"))
        >>> model.predict(np.zeros((5, 10, 3)), verbose=0).shape
        (5, 2)
    """

    def __init__(self, layers: Sequence[Layer] | None = None, trainable: bool = True, name: str | None = None) -> None:
        super().__init__()
        self.name = optional(text)(name, "`name` of Sequential") or unique_name("sequential")
        self._trainable = trainable
        self.seed = _engine.next_seed()
        self._input: InputLayer | None = None
        self._begin: InputLayer | None = None  # where the chain begins that `input` and `output` are of
        self._layers: list[Layer] = []
        self._shape: Shape | None = None  # of the input, once known
        self._network: Network | None = None
        self._built_explicitly = False
        for layer in layers or ():
            self.add(layer)

    # ---- the chain

    def add(self, layer: Layer | Sequential) -> None:
        """Adds a layer at the end; of a model all layers, frozen if it is.

        Raises:
            RuntimeError: after `build` or training: the weights of the chain exist then.
        """
        if isinstance(layer, Sequential):
            self._add_all(layer)
            return
        if not isinstance(layer, Layer):
            raise ValueError(f"`layer`: expected a layer. Only instances of layers can be added, got {layer!r}")
        if self._built_explicitly or self._trained:
            raise RuntimeError(
                f'model "{self.name}" was {"trained" if self._trained else "built"}: no layer can be added; make a new '
                f"one from its layers, `Sequential([*model.layers, layer])`, which keeps their weights"
            )
        if isinstance(layer, InputLayer):
            if self._input is not None or self._layers:
                raise ValueError(
                    f'model "{self.name}" has already been configured: Input must be the first layer and the only '
                    f"Input, before it there are {[x for x in (self._input, *self._layers) if x is not None]}"
                )
            self._input, self._shape = layer, layer.declared_shape()
            return
        if layer.name in self._names():
            raise ValueError(
                f"layers should have unique names: there is a layer {layer.name!r} already in {self._names()}"
            )
        shape = self._shape if self._layers or self._input else layer.declared_shape()
        layers = [*self._layers, layer]
        if shape is not None:
            self._check_stateful(layers, shape)
            chain_shapes(layers, shape)
        self._shape, self._layers = shape, layers
        self._forget_network()
        if shape is not None:
            layer.join(self._existing_network)

    def _add_all(self, model: Sequential) -> None:
        before = len(self._layers)
        if model._shape is not None and not before and self._input is None:
            self.add(model.input.begin)
        try:
            for layer in model._for_another():
                self.add(layer)
        except ValueError:
            while len(self._layers) > before:
                self.pop()
            raise

    def _for_another(self) -> list[Layer]:
        """The layers for another model. If this one was made not trainable, each of them is frozen now."""
        if not self._trainable:
            self.trainable = False
        return self.layers

    def pop(self, rebuild: bool = True) -> Layer:
        """Removes the last layer and returns it. The others keep their weights; other layers can be added."""
        if not self._layers:
            raise ValueError(f'model "{self.name}" has no layer to remove')
        if self._fitting:
            raise RuntimeError(f'model "{self.name}" is being trained: no layer can be removed before `fit` ends')
        layer = self._layers.pop()
        layer.join(None)
        self._built_explicitly = self._trained = False
        self._forget_network()
        return layer

    def _names(self) -> list[str | None]:
        return [layer.name for layer in self._layers]

    def _forget_network(self) -> None:
        self._network = self._core_compiled = None

    @property
    def layers(self) -> list[Layer]:
        """The layers, without Input."""
        return list(self._layers)

    @layers.setter
    def layers(self, _: Any) -> None:
        raise AttributeError("`layers` cannot be set. Use `add()` and `pop()`")

    @property
    def trainable(self) -> bool:
        """Whether training changes any weight. To set it sets that of all layers."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for layer in self._layers:
            layer.trainable = self._trainable

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or at that place."""
        if (name is None) == (index is None):
            raise ValueError(f"get_layer: expected a name or an index, got name={name!r}, index={index!r}")
        if index is not None:
            if not -len(self._layers) <= index < len(self._layers):
                raise ValueError(f"`index`: there are {len(self._layers)} layers, got {index}")
            return self._layers[index]
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise ValueError(f"No such layer: {name}. Existing layers are: {self._names()}.")

    # ---- building

    def _check_stateful(self, layers: Sequence[Layer], shape: Shape) -> None:
        for layer in layers:
            if layer.stateful and shape[0] is None:
                raise ValueError(stateful_message(layer))

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Makes the weights, for inputs of this shape (batch in front). No layer can be added afterwards."""
        if input_shape is not None:
            shape = sizes(input_shape, "`input_shape`")
            if self._shape is not None and self._shape[1:] != shape[1:]:
                raise ValueError(
                    f"`input_shape`: the model has already been configured for inputs of shape {self._shape}, got "
                    f"{shape}"
                )
            self._shape = self._shape or shape
        if self._existing_network() is None:
            raise ValueError("`input_shape`: expected a shape, got None: nothing else says what the input is")
        self._built_explicitly = True

    @property
    def _input_dtype(self) -> str:
        return self._layers[0]._input_dtype

    def _existing_network(self) -> Network | None:
        if self._network is None and self._shape is not None and self._layers:
            self._check_stateful(self._layers, self._shape)
            self._network = Network(self._layers, self._shape, self._input_dtype, self.seed)
            for layer in self._layers:
                layer.join(self._existing_network)
        return self._network

    def _network_for(self, x: Any) -> Network:
        if not self._layers:
            raise ValueError(f'model "{self.name}" has no layers')
        if self._existing_network() is None:
            shape = _engine.to_array(x, "x").shape
            if 0 in shape or len(shape) < 2:
                raise ValueError(f"`x`: expected a batch of samples, got shape {shape}")
            self._shape = self._open_shape(shape)
        network = self._existing_network()
        assert network is not None
        return network

    def _open_shape(self, shape: tuple[int, ...]) -> Shape:
        """The input's shape as first data show it: any batch and, where the layers can do with that, any time."""
        fixed: Shape = (None, *shape[1:])
        ids = self._input_dtype == "int32"
        if len(shape) >= 3 or (ids and len(shape) == 2):
            free: Shape = (None, None, *shape[2:])
            try:
                if None not in chain_shapes(self._layers, free)[-1][-1:]:
                    return free
            except ValueError:
                pass
        return fixed

    @property
    def built(self) -> bool:
        """Whether the weights exist, or will as soon as somebody looks."""
        return self._shape is not None and bool(self._layers)

    @property
    def input_shape(self) -> Shape:
        """The input's shape, batch in front."""
        return self._require_shape()

    @property
    def output_shape(self) -> Shape:
        """The output's shape, batch in front."""
        return chain_shapes(self._layers, self._require_shape())[-1]

    def _require_shape(self) -> Shape:
        if self._shape is None:
            raise _NoShape(
                f'model "{self.name}" has no input shape yet: give one to the first layer, or call the model on data'
            )
        return self._shape

    def chain(self, n: int) -> Chain:
        """What the first `n` layers give for the model's input."""
        shape, dtype = self._require_shape(), self._input_dtype if self._layers else "float32"
        if self._begin is None or self._begin.batch_shape != shape:
            self._begin = self._input or InputLayer(batch_shape=shape, dtype=dtype, name=self._input_config()["name"])
        layers = self._layers[:n]
        return Chain(self._begin, layers, chain_shapes(layers, shape)[-1], "float32" if layers else dtype)

    @property
    def input(self) -> Chain:
        """The input: its shape, dtype and name."""
        return self.chain(0)

    @property
    def output(self) -> Chain:
        """The output: its shape, dtype and name."""
        return self.chain(len(self._layers))

    @property
    def inputs(self) -> list[Chain]:
        """A list of the input."""
        return [self.input]

    @property
    def outputs(self) -> list[Chain]:
        """A list of the output."""
        self._require_shape()
        return [self.output] if self._layers else []

    @property
    def output_names(self) -> list[str]:
        """A list of the last layer's name."""
        return [str(layer.name) for layer in self._layers[-1:]]

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """The output's shape for an input's."""
        return chain_shapes(self._layers, sizes(input_shape, "`input_shape`"))[-1]

    def layer_shapes(self) -> list[Shape | None]:
        """Each layer's output shape, None where it is not known yet."""
        if self._shape is None:
            return [None] * len(self._layers)
        return list(chain_shapes(self._layers, self._shape)[1:])

    def __call__(self, x: Any, training: bool | None = None, mask: Any = None) -> Any:
        """What the model gives for a batch; with `training`, dropout is active and batches normalise themselves. Called
        on an `Input`, or on what a layer gave for one, the chain goes on with its layers; with `training=False` they
        are in training as at inference, see `Layer`."""
        if isinstance(x, (Chain, Layer)):
            if training or mask is not None:
                raise ValueError(
                    f'model "{self.name}": `training=True` and `mask` are for calls on arrays; a model is one chain of '
                    f"layers, whose training is that of `fit`"
                )
            if training is not None:
                for layer in self._layers:
                    layer.as_at_inference(change=False)  # all, before one is changed
            for layer in self._for_another():
                x = layer(x, training=training)
            return x
        x = self._of_input(x)
        network = self._network_for(x)
        ready = network.prepare(x)
        mask = None if mask is None else _engine.to_mask(mask, ready.shape[:2])
        outputs = network.forward(ready, mask, bool(training), None)[0]
        return outputs if self._several else outputs[0]

    def reset_states(self) -> None:
        """Sets the states of stateful layers to zero."""
        for layer in self._layers:
            layer.reset_state()

    reset_state = reset_states

    # ---- serving

    def _ready_to_serve(self) -> Network:
        self._require_shape()
        network = self._existing_network()
        assert network is not None
        network.pull()
        return network

    def stream(self, precision: str = "float32", threads: int = 1) -> _serving.Stream:
        """The model with its present weights, to be run one time step at a time: `step(x)`.

        Args:
            precision: in which the weights of products are read: "float32", "bfloat16" or "int8".
            threads: how many threads share a step. More than one pays from some 256 units up; the helpers start here
                and spin for a millisecond after each step.

        Raises:
            ValueError: a layer cannot run step by step (the reason is told), or the input's shape is not known yet.
        """
        return _serving.stream(self._ready_to_serve(), precision, threads)

    def streams(self, n: int, precision: str = "float32", threads: int = 1) -> _serving.Streams:
        """`n` streams of the model with its present weights, advanced together or in any subset.

        Args:
            n: how many.
            precision, threads: as in `stream`.

        Raises:
            ValueError: as `stream`.
        """
        return _serving.streams(self._ready_to_serve(), n, precision, threads)

    def quantization_report(self, x: Any, batch_size: int | None = None) -> _serving.QuantizationReport:
        """What bfloat16 and int8 weights do to this model on this data: errors of the outputs beside float32's, how
        often the largest output is the same one, and the time of a step. `print` shows a table.

        Args:
            x: samples, as in `predict`.
            batch_size: as in `predict`.

        Raises:
            ValueError: `x` does not fit, or the model has several outputs or stateful layers.
        """
        if self._several or any(layer.stateful for layer in self._layers):
            raise ValueError("quantization_report: the model has several outputs or stateful layers")
        network = self._network_for(x)
        ready = network.prepare(x)
        network.pull()
        size = _engine.optional_count(batch_size, "batch_size")
        return _serving.quantization_report(network, ready, self._batch_size(network, size, len(ready)))

    # ---- weights

    @property
    def weights(self) -> list[Variable]:
        """All weights, layer by layer."""
        self._existing_network()
        return [v for layer in self._layers for v in layer.variables]

    @property
    def variables(self) -> list[Variable]:
        """As `weights`."""
        return self.weights

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that gradients change."""
        self._existing_network()
        return [v for layer in self._layers for v in layer.trainable_weights] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that gradients leave alone: those of frozen layers, and statistics."""
        self._existing_network()
        return [v for layer in self._layers for v in layer.non_trainable_weights] if self.trainable else self.weights

    trainable_variables = trainable_weights
    non_trainable_variables = non_trainable_weights

    @property
    def losses(self) -> list[float]:
        """The penalties on the weights, layer by layer."""
        self._existing_network()
        return [penalty for layer in self._layers for penalty in layer.losses]

    def get_weights(self) -> list[_engine.Array]:
        """Copies of all weights."""
        return [v.numpy() for v in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replaces all weights by arrays of the same shapes; all are checked before one is changed."""
        assign_all(self.weights, weights, f'model "{self.name}"')

    def count_params(self) -> int:
        """The number of numbers in the weights."""
        if self._existing_network() is None:
            raise ValueError(f'model "{self.name}" has no weights yet: build it, or call it on data, first')
        return count_params(self.weights)

    def count_optimizer_params(self) -> int:
        """The number of numbers in the optimizer's variables."""
        if self._core_compiled is None or not self._trained or self.optimizer is None:
            return 0
        return count_params(self.optimizer.variables)

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Prints the layers, their output shapes and their numbers of weights.

        Args:
            line_length: width of the table.
            positions, expand_nested: accepted as Keras's.
            print_fn: called with each part, in place of `print`.
            show_trainable: whether a column tells which layers are trained.
            layer_range: names of the first and the last layer shown.
        """
        from ._summary import print_summary

        self._existing_network()
        print_summary(self, line_length, print_fn, show_trainable, layer_range)

    # ---- descriptions and files

    @property
    def _input_name(self) -> str:
        return "input_layer" if self._input is None else str(self._input.name)

    def _input_config(self) -> dict[str, Any]:
        if self._input is not None:
            return {**self._input.get_config(), "batch_shape": list(self._require_shape())}
        dtype = self._input_dtype if self._layers else "float32"
        return {"name": self._input_name, "batch_shape": list(self._require_shape()), "dtype": dtype}

    def get_config(self) -> dict[str, Any]:
        """The model's name and its layers' descriptions; no weights."""
        layers = [to_config(layer) for layer in self._layers]
        if self._shape is not None:
            layers.insert(0, {"class_name": "InputLayer", "config": self._input_config()})
        return {"name": self.name, "trainable": self.trainable, "dtype": "float32", "layers": layers}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Self:
        """A new model, with new weights, from what `get_config` returned."""
        config = check_mapping(config, "the config of Sequential")
        known = {"name", "trainable", "dtype", "layers", "build_input_shape", "module", "registered_name"}
        unknown = [k for k, v in config.items() if k not in known and v is not None]
        if unknown or not isinstance(config.get("layers"), (list, tuple)):
            raise ValueError(f"the config of Sequential: expected a list `layers`, and no keys {unknown}")
        name = config.get("name")
        if name is not None and not isinstance(name, str):
            raise ValueError(f"the config of Sequential: expected `name` to be a string, got {name!r}")
        return cls([_deserialize_layer(c) for c in config["layers"]], bool(config.get("trainable", True)), name)

    @classmethod
    def _from_description(cls, description: Any) -> Self:
        description = check_mapping(description, "the description of a model")
        if description.get("class_name") != "Sequential":
            raise ValueError(f"expected the description of a Sequential, got {description.get('class_name')!r}")
        return cls.from_config(description.get("config") or {})

    def to_json(self, **kwargs: Any) -> str:
        """The model's description as JSON; `model_from_json` undoes it. **kwargs go to `json.dumps`."""
        return json.dumps({"class_name": "Sequential", "config": self.get_config()}, **kwargs)

    def save(
        self,
        filepath: Any,
        overwrite: bool = True,
        include_optimizer: bool = True,
        zipped: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves the model into one file, written whole or not at all.

        A `.safetensors` file holds everything: description, weights, optimizer, counters, random state. Training that
        goes on from it gives the same bits as training that never stopped. A `.keras` file is Keras 3's: description,
        weights, what `compile` was given, the optimizer's state; so Keras goes on from it as we do, but for what is
        drawn at random. It needs h5py (`pip install 'seqcore[keras-files]'`).

        Args:
            filepath: a path ending in `.safetensors` or `.keras`.
            overwrite: whether an existing file is replaced.
            include_optimizer: whether the optimizer's state, and what `compile` was given, is kept.
            zipped: as Keras's; a folder in a `.keras` file's place (False) is refused.

        Raises:
            FileExistsError: there is such a file, and `overwrite` is False.
            ImportError: the file would be Keras's, and h5py is not installed.
            ValueError: another suffix; a model without weights; of `.keras` files what Keras has no words for, as
                initializers of your own. Nothing is written then. (Metrics of your own are said by name: who loads the
                file gives them as `custom_objects`.)
        """
        if kwargs:
            raise TypeError(
                f"save: unrecognized keyword arguments {sorted(kwargs)}; expected overwrite, include_optimizer, zipped"
            )
        from ._saving import save_model

        save_model(self, filepath, overwrite, include_optimizer, zipped)

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Saves the weights alone into a `.safetensors` file; or into Keras's `.weights.h5`, which has the state of the
        optimizer, too, where the model is compiled, and needs h5py.

        Args:
            filepath: a path ending in `.safetensors` or `.weights.h5`.
            overwrite: whether an existing file is replaced.

        Raises:
            FileExistsError, ImportError, ValueError: as `save`.
        """
        from ._saving import save_weights

        save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False) -> None:
        """Loads the weights that `save_weights` or `save` wrote, here or in Keras, by the places of the layers.

        Args:
            filepath: a `.safetensors` file; or Keras's `.weights.h5`, `.keras`, or older `.h5`, which needs h5py. As in
                Keras, an optimizer that has made a step takes over iterations, learning rate and slots from the first
                two of these; for a new one, and from the others, weights alone are loaded.
            skip_mismatch: whether weights that are missing or of another shape are left as they are, with a warning.
        """
        from ._saving import load_weights

        load_weights(self, filepath, skip_mismatch)

    def export(
        self, filepath: Any, format: str = "onnx", verbose: Any = None, input_signature: Any = None, **kwargs: Any
    ) -> None:
        """Writes the model, as it predicts, for other programs to run: an ONNX file (opset 17) with ONNX's own LSTM,
        GRU and RNN nodes. Masks are exact, wherever the padding stands; only the last c of a masked LSTM (`stateful`,
        `return_state`) needs a program that heeds `sequence_lens`, as ONNX Runtime does.

        The file's input has the name of the model's Input, its output that of the last layer (`<name>_0`, `<name>_1` …
        where there are several). Batch and steps are open where the model's input shape leaves them open. A stateful
        layer's states are inputs, `<layer>_h` (and, of an LSTM, `<layer>_c`; of stacked cells `<layer>_0_h`,
        `<layer>_1_h` …), and outputs, `<layer>_h_next` …: give zeros first, then what came out. Ids are not checked:
        of those that are no row of an Embedding, negative ones count from the end.

        Args:
            filepath: where to. An existing file is replaced.
            format: "onnx". Keras's other formats are refused.
            verbose: whether a line says that the file was written; None as True.
            input_signature: another shape of the input, batch in front, as a tuple, an `Input`, or a list of one: None
                opens an axis (`(None, None, 8)` takes sequences of any length), a number fixes one that was open.

        Raises:
            ImportError: onnx is not installed (`pip install 'seqcore[onnx]'`).
            ValueError: another format; the model is not built, or does not take such an input; a layer or an activation
                has no counterpart in ONNX (the error names the layer); the weights exceed the 2 GB of an ONNX file.
        """
        if kwargs:
            raise TypeError(f"export: unrecognized keyword arguments {sorted(kwargs)}; expected input_signature")
        if format != "onnx":
            raise ValueError(f'`format`: expected "onnx", the one format exported, got {format!r}')
        from ._onnx import export

        path = export(self, filepath, input_signature)
        if verbose is None or verbose:
            print(f"Saved artifact at '{path}'.")

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles go the way of files, so that no two models share weights by accident.
        if self._existing_network() is None:
            given = [] if self._shape is None else [InputLayer.from_config(self._input_config())]
            return Sequential, ([*given, *self._layers], self.trainable, self.name)
        from ._saving import own_metrics, pack, unpack

        return unpack, (Sequential, *pack(self), "", True, own_metrics(self))

    def __repr__(self) -> str:
        return f"<Sequential name={self.name}, built={self.built}>"


def save_model(model: Sequential, filepath: Any, overwrite: bool = True, **kwargs: Any) -> None:
    """Saves a model, as `model.save` does.

    Args:
        model: the model.
        filepath: a path ending in `.safetensors` or `.keras`.
        overwrite: whether an existing file is replaced.
        **kwargs: further arguments of `model.save`.

    Raises:
        ValueError: `model` is no model, or what `model.save` refuses.
    """
    if not isinstance(model, Sequential):
        raise ValueError(f"`model`: expected a model, got {model!r}")
    model.save(filepath, overwrite, **kwargs)


def load_model(filepath: Any, custom_objects: Any = None, compile: bool = True, safe_mode: bool = True) -> Sequential:
    """The model that `model.save` wrote, here or in Keras.

    Args:
        filepath: a `.safetensors` file; or Keras's `.keras` (of Keras 3, or tf.keras from 2.12 on) or older `.h5`; they
            need h5py (`pip install 'seqcore[keras-files]'`). Functional models that are one chain of layers become a
            Sequential. Files hold data only: nothing in them is ever executed.
        custom_objects: your own metric classes and functions by name, beside those that are registered
            (`seqcore.saving`). Of layers only seqcore's are known.
        compile: whether the optimizer, the loss and the metrics are restored too.
        safe_mode: accepted as Keras's; there is no unsafe mode.

    Raises:
        ImportError: the file is Keras's, and h5py is not installed.
        ValueError: the file is no model, or damaged, or has what is not known here (the error says what; where that is
            the optimizer, the loss or a metric, `compile=False` does without).
    """
    from ._saving import load_model as load

    return load(Sequential, filepath, compile, with_registered(custom_objects))


def model_from_json(json_string: str, custom_objects: Any = None) -> Sequential:
    """A new model, with new weights, from what `to_json` returned."""
    try:
        description = json.loads(json_string)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"`json_string`: no JSON: {error}") from None
    return Sequential._from_description(description)


def clone_model(
    model: Sequential,
    input_tensors: Any = None,
    clone_function: Callable[[Layer], Layer] | None = None,
    call_function: None = None,
    recursive: bool = False,
) -> Sequential:
    """A model of the same layers with new weights. If the model is compiled so is the new one, as the model was.

    Args:
        model: the model.
        input_tensors: another input for the new model: an `Input`, what a layer gave for one (of which shape, dtype and
            name count), or a list of one of these.
        clone_function: makes each new layer from the old one.
        call_function: None. Keras's is for functional models alone; here a model is a list of layers, and none is
            called when it is made.
        recursive: accepted as Keras's. The layers of a model in a model stand in one row here, and all are cloned.

    Raises:
        ValueError: `model` is no model, `input_tensors` is no input or none that the layers take, `clone_function` is
            no function or gives no layer, or `call_function` is one.

    Example:
        >>> from seqcore import Input, Sequential, layers, models
        >>> model = Sequential([Input((10, 3)), layers.LSTM(8), layers.Dense(2)])
        >>> models.clone_model(model, input_tensors=Input((None, 3))).input_shape
        (None, None, 3)
    """
    if not isinstance(model, Sequential):
        raise ValueError(f"`model`: expected a model, got {model!r}")
    if call_function is not None:
        raise ValueError(
            f"`call_function`: expected None: the model is a list of layers, and none is called when it is made; got "
            f"{call_function!r}"
        )
    if clone_function is not None and not callable(clone_function):
        raise ValueError(f"`clone_function`: expected a function of a layer, or None, got {clone_function!r}")
    boolean(recursive, "`recursive`")
    begin = _input_of_clone(model, input_tensors)
    copies: list[Layer] = []
    for layer in model.layers:
        if clone_function is None:
            new = _deserialize_layer(to_config(layer))
            new.take_initializers(layer)
            if layer.inference_only:
                new.as_at_inference()
        else:
            new = clone_function(layer)
            if not isinstance(new, (Layer, Sequential)):
                raise ValueError(f'`clone_function`: expected a layer for layer "{layer.name}", got {new!r}')
        copies.append(new)
    clone = Sequential([*begin, *copies], trainable=model.trainable, name=model.name)
    if model.compiled:
        plain, weighted = model._metrics_given
        clone.compile(copy.deepcopy(model.optimizer), model.loss, metrics=plain, weighted_metrics=weighted)
    return clone


def _input_of_clone(model: Sequential, given: Any) -> list[InputLayer]:
    """The Input of a clone, if the model's is known or another one is given."""
    if given is None:
        return [] if model._shape is None else [InputLayer.from_config(model._input_config())]
    one = given[0] if isinstance(given, (list, tuple)) and len(given) == 1 else given
    if isinstance(one, InputLayer):
        one = one._begin()
    if not isinstance(one, Chain):
        raise ValueError(f"`input_tensors`: expected an Input, the only one, got {given!r}")
    return [InputLayer(batch_shape=one.shape, dtype=one.dtype, name=one.name)]
