"""`Layer`, the base of all layers: a declaration. The numbers are the compiled model's."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from .. import _engine
from .._config import (
    UNSET,
    Configurable,
    Registry,
    arg,
    boolean,
    dtype_name,
    optional,
    positive_int,
    sizes,
    snake_case,
    text,
)
from .._names import unique_name
from .._network import Network, Shape
from .._variable import Variable
from ..initializers import Initializer, is_own


def _float32(value: Any, where: str) -> str:
    if dtype_name(value, where) != "float32":
        raise ValueError(f"{where}: seqcore computes in float32, got {value!r}")
    return "float32"


class Chain:
    """What a layer gives that was called on an `Input`, or on what another one gave: the layers so far, of which
    `Model(inputs, outputs)` is made. Without layers it is the input itself.

    Attributes:
        shape: the output's, batch in front.
        dtype: "float32"; an input's own.
        name: of the last layer, or the input.
    """

    def __init__(self, begin: Layer, layers: Sequence[Layer], shape: Shape, dtype: str = "float32") -> None:
        self.begin, self.layers, self.shape, self.dtype = begin, tuple(layers), shape, dtype
        self.name = str((self.layers or (begin,))[-1].name)

    def __repr__(self) -> str:
        return f"<Chain shape={self.shape}, layers={[layer.name for layer in self.layers]}>"


class Layer(Configurable):
    """Base of all layers.

    Args:
        name: the layer's name; numbered automatically where not given.
        trainable: whether training changes the weights. A change takes effect at the next `compile`.
        dtype: None or "float32", or NumPy's name for it.
        input_shape: shape of one sample, for the first layer of a model.
        batch_input_shape: the same with the batch size in front (None: any). `batch_shape` is another name for it.
        batch_size: a fixed batch size beside `input_shape`.
        input_dim: the number of features, where nothing else about the input is known.
        input_length: the number of steps beside `input_dim`.

    Call arguments:
        x: an array of a whole batch.
        mask: booleans of shape (batch, steps), False where a step is padding.
        training: whether dropout is active, and BatchNormalization takes and moves its statistics. Where a chain of
            layers is made False says that they never are and do: dropout is left out, and BatchNormalization keeps its
            statistics in all models that have it, also where it is trainable; None leaves that to training.
    """

    name: str | None = arg(optional(text), default=None, kw_only=True)
    trainable: bool = arg(boolean, default=True, kw_only=True)
    dtype: str | None = arg(_float32, default=None, kw_only=True)
    input_shape: Sequence[int | None] | None = arg(optional(sizes), default=None, kw_only=True, in_config=False)
    batch_input_shape: Sequence[int | None] | None = arg(optional(sizes), default=None, kw_only=True, in_config=False)
    batch_shape: Sequence[int | None] | None = arg(optional(sizes), default=None, kw_only=True, in_config=False)
    batch_size: int | None = arg(optional(positive_int), default=None, kw_only=True, in_config=False)
    input_dim: int | None = arg(optional(positive_int), default=None, kw_only=True, in_config=False)
    input_length: int | None = arg(optional(positive_int), default=None, kw_only=True, in_config=False)

    _ignored = frozenset({"autocast", "lora_alpha", "build_config"})
    _off = frozenset({"lora_rank", "quantization_config"})
    supports_masking: ClassVar[bool] = True  # takes a mask, and hands on what remains of it
    _input_dtype: ClassVar[str] = "float32"
    _input_rank: ClassVar[int | None] = None  # where one alone is possible
    _initial_weights = UNSET  # arrays to begin with
    several_outputs = False
    stateful = False
    _weightless: ClassVar[bool] = False  # it never has weights, whatever its input is
    _takes_vectors: ClassVar[bool] = False  # called on an array of one axis, it takes that for one sample
    inference_only = False  # whether it was told to be in training as at inference, and would be otherwise

    def named_activation(self) -> str | None:
        """The name of the activation that the layer is, if it is one."""
        return None

    def _setup(self) -> None:
        if self.name is None:
            self.name = unique_name(snake_case(type(self).__name__))
        self._variables: list[Variable] | None = None
        self._make: weakref.WeakMethod[Callable[[], Any]] | None = None  # makes the weights
        self._networks: list[tuple[_engine.CoreModel, int]] = []  # where the layer's states may live
        self._called_on: Shape | None = None  # the input's shape in a chain of layers
        self._own: tuple[Shape, Network] | None = None  # for calls on arrays

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self._args and name not in ("name", "trainable") and self.__dict__.get("_variables") is not None:
            warnings.warn(
                f'layer "{self.name}": `{name}` is set too late for the models that have its weights, they go on as '
                f"before; what is made from its config (`clone_model`, a saved file) gets the new value",
                stacklevel=2,
            )

    # ---- shapes

    def declared_shape(self) -> Shape | None:
        """The input's shape with the batch in front, as far as the constructor was told; None where it was not."""
        whole = self.batch_input_shape or self.batch_shape
        if whole is not None:
            return tuple(whole)
        if self.input_shape is not None:
            return (self.batch_size, *self.input_shape)
        if self.input_dim is not None:
            return (self.batch_size, *((self.input_length,) if self._input_rank == 3 else ()), self.input_dim)
        return None

    def output_shape_for(self, input_shape: Shape) -> Shape:
        """The (first) output's shape; ValueError where the layer cannot take such an input."""
        return input_shape

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Any:
        """The output's shape for an input's, both with the batch in front; a list where there are several outputs."""
        return self.output_shape_for(sizes(input_shape, "`input_shape`"))

    def _check_rank(self, shape: Shape, rank: int, what: str) -> None:
        if len(shape) != rank:
            raise ValueError(
                f'input 0 of layer "{self.name}": expected {rank} axes {what}, got {len(shape)}: shape {shape}'
            )

    def _features(self, shape: Shape) -> int:
        if len(shape) < 2 or shape[-1] is None:
            raise ValueError(
                f'input 0 of layer "{self.name}": expected a known last axis after the batch, got shape {shape}'
            )
        return shape[-1]

    @property
    def input(self) -> Chain:
        """What the layer takes in the first model that has it."""
        return self._in_model(0)

    @property
    def output(self) -> Chain:
        """What it gives there: `Model(model.input, layer.output)` ends with this layer."""
        return self._in_model(1)

    def _in_model(self, more: int) -> Chain:
        make = self._make() if self._make is not None else None
        model: Any = getattr(make, "__self__", None)
        if model is None or self not in model.layers:
            raise AttributeError
        chain: Chain = model.chain(model.layers.index(self) + more)
        return chain

    # ---- weights

    def join(self, make: Callable[[], Any] | None) -> None:
        """A model that knows its input took the layer: `make`, a method of the model's, makes the weights when somebody
        asks for them. Of several models the first one counts, as long as it is there."""
        if make is None or self._make is None or self._make() is None:
            self._make = None if make is None else weakref.WeakMethod(make)

    @property
    def bound(self) -> bool:
        """Whether the weights were made."""
        return self._variables is not None

    def _ask(self) -> None:
        asked = self._make
        make = asked() if asked is not None and not self.bound else None
        if make is not None:
            self._make = None  # who makes them may look at this layer
            try:
                make()
            finally:
                self._make = asked
        elif self._called_on is not None and not self.bound:
            self._network(self._called_on)

    @property
    def built(self) -> bool:
        """Whether the weights exist; True where the layer never has any."""
        self._ask()
        return self.bound or self._weightless

    def __getattr__(self, name: str) -> Any:
        """A weight by its name: `kernel`, `recurrent_kernel`, `bias`, `gamma`, …; None where the layer does without."""
        if not name.startswith("_") and "_make" in self.__dict__:
            self._ask()
        for variable in self.__dict__.get("_variables") or ():
            if variable.name == name:
                return variable
        flag = {"bias": "use_bias", "beta": "center", "gamma": "scale"}.get(name, "")
        if self.__dict__.get(flag) is False:
            return None
        if name in ("input", "output"):  # the property had none to give
            raise AttributeError(f'layer "{self.name}" has no {name}: it stands in no model whose input is known')
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(v.name for v in self._variables or ())]

    @property
    def variables(self) -> list[Variable]:
        """All weights."""
        self._ask()
        return list(self._variables or ())

    @property
    def weights(self) -> list[Variable]:
        """All weights, in Keras's order."""
        return self.variables

    @property
    def trained(self) -> list[bool]:
        """Of each weight whether training changes it: by gradients or, where it is a statistic, otherwise."""
        return [self.trainable] * len(self.variables)

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that gradients change."""
        return [v for v, trained in zip(self.variables, self.trained, strict=True) if trained and not v.statistic]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that gradients leave alone: all of a frozen layer, and statistics."""
        changed = {id(v) for v in self.trainable_weights}
        return [v for v in self.variables if id(v) not in changed]

    @property
    def trainable_variables(self) -> list[Variable]:
        """As `trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """As `non_trainable_weights`."""
        return self.non_trainable_weights

    @property
    def losses(self) -> list[float]:
        """The penalties on the weights that are trained, as they are now. Those on outputs are part of the training
        loss alone."""
        return [v.regularizer(v) for v in self.trainable_weights if v.regularizer is not None]

    def get_weights(self) -> list[_engine.Array]:
        """Copies of all weights."""
        return [v.numpy() for v in self.variables]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replaces all weights by arrays of the same shapes; all are checked before one is changed."""
        assign_all(self.variables, weights, f'layer "{self.name}"')

    def count_params(self) -> int:
        """The number of numbers in the weights."""
        if not self.built:
            raise ValueError(f'layer "{self.name}" has no weights yet: build it, or call it on data, first')
        return count_params(self.variables)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the weights for inputs of this shape (batch in front)."""
        self._ask()
        if not self.bound:
            self._network(sizes(input_shape, "`input_shape`"))

    def bind(self, core: _engine.CoreModel, indices: Sequence[int], input_shape: Shape) -> None:
        """Takes the weights `indices` of a compiled model as this layer's own."""
        weights = core.weights
        variables = [
            Variable.of_weight(core, i, weights[i], f"{self.name}/{weights[i].name.rpartition('/')[2]}")
            for i in indices
        ]
        for variable in variables:  # `recurrent_kernel` has a `recurrent_regularizer`
            stem = variable.name.removesuffix("_kernel")
            if not variable.statistic:
                variable.regularizer = getattr(self, f"{stem}_regularizer")
                variable.constraint = getattr(self, f"{stem}_constraint")
            initializer = getattr(self, f"{stem}_initializer")
            if is_own(initializer):
                variable.assign(self._initial(f"{stem}_initializer", initializer, variable.shape))
        self._variables = variables
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)

    def _initial(self, name: str, initializer: Initializer, shape: tuple[int, ...]) -> _engine.Float:
        """What an initializer of the user's gives for a weight."""
        value = _engine.to_float(initializer(shape, dtype="float32"), name)
        if value.shape != shape:
            raise ValueError(f'`{name}` of layer "{self.name}": expected shape {shape}, got {value.shape}')
        return value

    def take_initializers(self, other: Layer) -> None:
        """Takes over the initializers that no config can hold from the layer whose config made this one."""
        self._put_initializers(other._own_initializers())

    def _inside(self) -> list[Layer]:
        """The layer, and those that it wraps, in one row."""
        values = [getattr(self, a.attribute or name) for name, a in self._args.items()]
        return [self, *(inner for value in values if isinstance(value, Layer) for inner in value._inside())]

    def _own_initializers(self) -> list[dict[str, Initializer]]:
        """Of each layer inside, by name, the initializers that no config can hold."""
        given = [{name: getattr(layer, name, None) for name in layer._args} for layer in self._inside()]
        return [{name: value for name, value in values.items() if is_own(value)} for values in given]

    def _put_initializers(self, own: Sequence[dict[str, Initializer]]) -> None:
        for layer, given in zip(self._inside(), own, strict=True):
            for name, value in given.items():
                setattr(layer, name, value)

    def set_network(self, core: _engine.CoreModel, index: int) -> None:
        if self.stateful:
            self._networks.append((core, index))

    # ---- running

    def _network(self, shape: Shape) -> Network:
        if self.stateful and shape[0] is None:
            raise ValueError(stateful_message(self))
        if self._own is None or self._own[0] != shape:
            self._own = shape, Network([self], shape, self._input_dtype, _engine.next_seed())
        return self._own[1]

    @property
    def state_size(self) -> Any:
        """Sizes of the states, nested as they are; [] where there are none."""
        return []

    def flat_states(self, given: Any) -> list[Any]:
        """States as they are given, in one row."""
        return list(given) if isinstance(given, (list, tuple)) else [given]

    def _nested(self, outputs: list[Any]) -> list[Any]:
        """Several outputs, whose states come in one row, as the caller sees them."""
        return outputs

    def _check_states(self, given: Any, batch: int, name: str = "initial_state") -> list[_engine.Float]:
        states = self.flat_states(given)
        expected = [(batch, n) for n in flat(self.state_size)]
        ready = [_engine.to_float(s, f"{name}[{i}]") for i, s in enumerate(states)]
        if [s.shape for s in ready] != expected:
            raise ValueError(
                f'`{name}`: layer "{self.name}" expects {len(expected)} arrays of shapes {expected}, got '
                f"{[s.shape for s in ready]}"
            )
        return ready

    def _forward(self, x: Any, mask: Any, training: bool, initial_state: Any) -> tuple[list[Any], Any]:
        array = _engine.to_int(x, "x", "token ids") if self._input_dtype == "int32" else _engine.to_float(x, "x")
        if array.ndim == 0 or 0 in array.shape:
            raise ValueError(f'input 0 of layer "{self.name}" (`x`): expected a batch, got shape {array.shape}')
        if array.ndim == 1 and self._takes_vectors and mask is None and initial_state is None:
            (y,), _ = self._forward(array[None], None, training, None)
            return [y[0]], None
        network = self._network((array.shape[0] if self.stateful else None, *array.shape[1:]))
        if mask is not None:
            mask = _engine.to_mask(mask, array.shape[:2])
        if initial_state is not None:
            initial_state = self._check_states(initial_state, len(array))
        return network.forward(array, mask, bool(training), initial_state)

    def __call__(self, x: Any, mask: Any = None, training: bool | None = None, initial_state: Any = None) -> Any:
        if isinstance(x, (Chain, Layer)):
            if training or mask is not None or initial_state is not None:
                raise ValueError(
                    f'layer "{self.name}": `training=True`, `mask` and `initial_state` are for calls on arrays; a '
                    f"model is one chain of layers, whose training is that of `fit`"
                )
            x = x if isinstance(x, Chain) else x._begin()
            after = self._after(x)
            return after if training is None or self.as_at_inference() else x
        outputs, _ = self._forward(x, mask, bool(training), initial_state)
        return self._nested(outputs) if self.several_outputs else outputs[0]

    def as_at_inference(self, change: bool = True) -> bool:
        """Makes the layer do in training what it does at inference; its weights may be trained. False if it does
        nothing then, so that a chain is as well without it.

        Args:
            change: False only tells whether that can be.

        Raises:
            ValueError: it cannot.
        """
        return True

    def _begin(self) -> Chain:
        raise TypeError(f"`x`: expected an array, an Input, or what a layer gave for one; got {self!r}")

    def _after(self, x: Chain) -> Chain:
        if self.several_outputs:
            raise ValueError(
                f'layer "{self.name}" has several outputs (return_state or merge_mode=None): a model is one chain of '
                f"layers"
            )
        after = Chain(x.begin, [*x.layers, self], self.output_shape_for(x.shape))
        self._called_on = x.shape  # if no model wants the weights first
        return after

    def call(self, x: Any, mask: Any = None, training: bool | None = None, initial_state: Any = None) -> Any:
        """As calling the layer itself."""
        return self(x, mask=mask, training=training, initial_state=initial_state)

    def compute_mask(self, x: Any, mask: Any = None) -> Any:
        """The mask that the layer's output would carry, or None."""
        return self._forward(x, mask, False, None)[1]

    def reset_state(self) -> None:
        """Sets the states of a stateful layer to zero, in every model that has the layer."""
        for core, index in self._networks:
            core.reset_states(index)

    def reset_states(self) -> None:
        """As `reset_state`."""
        self.reset_state()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy is a new layer; it takes these weights when it is built. Without any it makes its own.
        weights, own = (self.get_weights(), None) if self.built else (None, self._own_initializers())
        return _copy, (type(self), self.get_config(), weights, self.inference_only, own)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.bound}>"


registry: Registry[Layer] = Registry("layer", Layer, [])  # filled by the package, for layers that wrap layers


def _copy(cls: type[Layer], config: dict[str, Any], weights: list[Any] | None, inference_only: bool,
          own: list[dict[str, Initializer]] | None) -> Layer:  # fmt: skip
    layer = cls.from_config(config)
    layer._initial_weights = weights
    if own is not None:
        layer._put_initializers(own)
    if inference_only:
        layer.as_at_inference()
    return layer


def flat(nested: Any) -> list[Any]:
    """What is in lists and tuples, and in those in them, in one row."""
    return [one for item in nested for one in flat(item)] if isinstance(nested, (list, tuple)) else [nested]


def assign_all(variables: Sequence[Variable], weights: Sequence[Any], owner: str) -> None:
    """Assigns every value or, where a single one does not fit, none."""
    if len(weights) != len(variables):
        raise ValueError(f"`weights`: {owner} expects {len(variables)} arrays, got {len(weights)}")
    ready = [v.check(w) for v, w in zip(variables, weights, strict=True)]
    for variable, value in zip(variables, ready, strict=True):
        variable.assign(value)


def count_params(variables: Sequence[Variable]) -> int:
    total = 0
    for variable in variables:
        n = 1
        for size in variable.shape:
            n *= size
        total += n
    return total


def stateful_message(layer: Layer) -> str:
    return (
        f'layer "{layer.name}" is stateful and needs a fixed batch size: give `batch_shape=(batch, steps, features)` '
        f"to Input or to the first layer"
    )
