"""Optimizers: declarations. The core makes the updates."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from .. import _engine
from .._config import (
    UNSET,
    Configurable,
    Registry,
    arg,
    boolean,
    fraction,
    non_negative,
    number,
    optional,
    positive_int,
    snake_case,
    text,
    to_config,
)
from .._variable import Variable
from . import schedules
from .schedules import LearningRateSchedule

__all__ = [
    "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lion", "Nadam", "Optimizer", "RMSprop",
    "deserialize", "get", "schedules", "serialize",
]  # fmt: skip

LearningRate = float | LearningRateSchedule | dict[str, Any] | Callable[[], float]


class _Called(LearningRateSchedule):
    """A function without arguments in a schedule's place."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self.function = function

    def __call__(self, step: Any) -> float:
        return float(_learning_rate(self.function(), "`learning_rate`, as the function gave it"))


def _learning_rate(value: Any, where: str) -> Any:
    if isinstance(value, LearningRateSchedule):
        return value
    if isinstance(value, Mapping):
        return schedules.deserialize(value)
    if callable(value) and not isinstance(value, type):
        return _Called(value)
    return float(np.float32(schedules.rate(value, where)))  # Keras keeps it as a float32


def _not_positive(value: Any, where: str) -> float:
    if number(value, where) > 0:
        raise ValueError(f"{where}: expected a number <= 0, got {value!r}")
    return float(value)


class Optimizer(Configurable):
    """Base of all optimizers.

    Args:
        learning_rate: a number, a schedule, or a function without arguments, which is asked before each batch. Configs
            and files hold what functions and schedules of your own give then; `.keras` files are refused. `lr` is
            another name for it.
        weight_decay: share of each weight taken off at every update, times the learning rate.
        clipnorm: the largest norm of one weight's gradient. Of the three clips at most one may be given.
        clipvalue: the largest absolute value in a gradient.
        global_clipnorm: the largest norm of all gradients together.
        use_ema: whether averages of the weights are kept, to replace the weights at the end of `fit`.
        ema_momentum: how slowly the averages move.
        ema_overwrite_frequency: replace the weights every so many updates as well.
        loss_scale_factor: the loss is multiplied by it, the gradients divided.
        gradient_accumulation_steps: how many batches make one update.
        name: a name.
    """

    learning_rate: Any = arg(_learning_rate, default=0.001, attribute="_learning_rate")
    weight_decay: float | None = arg(optional(non_negative), default=None, kw_only=True)
    clipnorm: float | None = arg(optional(non_negative), default=None, kw_only=True)
    clipvalue: float | None = arg(optional(non_negative), default=None, kw_only=True)
    global_clipnorm: float | None = arg(optional(non_negative), default=None, kw_only=True)
    use_ema: bool = arg(boolean, default=False, kw_only=True)
    ema_momentum: float = arg(fraction, default=0.99, kw_only=True)
    ema_overwrite_frequency: int | None = arg(optional(positive_int), default=None, kw_only=True)
    loss_scale_factor: float | None = arg(optional(non_negative), default=None, kw_only=True)
    gradient_accumulation_steps: int | None = arg(optional(positive_int), default=None, kw_only=True)
    name: str | None = arg(optional(text), default=None, kw_only=True)
    lr: float | None = arg(optional(_learning_rate), default=None, kw_only=True, in_config=False, attribute="_lr")

    _ignored = frozenset({"decay", "jit_compile", "is_legacy_optimizer"})
    _learning_rate = UNSET
    _lr = UNSET
    _slots: ClassVar[tuple[tuple[str, ...], ...]] = ()  # Keras's groups of slots, see `slot_order`

    def _setup(self) -> None:
        if self.name is None:
            self.name = snake_case(type(self).__name__)
        if self._lr is not None:
            self._learning_rate = self._lr
        given = {k: getattr(self, k) for k in ("clipnorm", "clipvalue", "global_clipnorm")}
        if sum(v is not None for v in given.values()) > 1:
            raise ValueError(
                f"{type(self).__name__}: expected at most one of clipnorm, clipvalue, global_clipnorm, got {given}"
            )
        if self.gradient_accumulation_steps == 1:
            raise ValueError("`gradient_accumulation_steps`: expected at least 2, got 1")
        self._core: _engine.CoreModel | _engine.CoreOptimizer | None = None
        self._applied: list[Variable] = []  # of `apply`, where no model holds the slots
        self._kept_whole: tuple[list[Variable], list[str]] = ([], [])  # what weight decay leaves alone

    def exclude_from_weight_decay(
        self, var_list: Iterable[Variable] | None = None, var_names: Iterable[str] | None = None
    ) -> None:
        """Says which weights `weight_decay` leaves alone. To be called before the first update; a later call replaces
        what an earlier one said.

        Args:
            var_list: the weights.
            var_names: regular expressions: weights whose names hold a match of one, as "bias" or "gamma".

        Raises:
            TypeError, ValueError: what is no weight, or no expression; or the optimizer has made an update.

        Example:
            >>> from seqcore import optimizers
            >>> optimizer = optimizers.AdamW()
            >>> optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        """
        if self._core is not None and self.batches(self._core):
            raise ValueError(
                f"exclude_from_weight_decay: expected a call before the first update, the optimizer has seen "
                f"{self.batches(self._core)} batches"
            )
        if isinstance(var_names, str):
            raise TypeError(f"`var_names`: expected a list of strings, got {var_names!r}")
        variables, names = list(var_list or ()), list(var_names or ())
        for variable in variables:
            if not isinstance(variable, Variable):
                raise TypeError(f"`var_list`: expected a list of weights, got {variable!r} in it")
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"`var_names`: expected a list of strings, got {name!r} in it")
            try:
                re.compile(name)
            except re.error as error:
                raise ValueError(f"`var_names`: {name!r} is no regular expression: {error}") from None
        self._kept_whole = variables, names

    def decays(self, variables: Iterable[Variable]) -> list[bool]:
        """Of each weight whether `weight_decay`, if there is one, takes something off it."""
        kept, names = self._kept_whole
        ids = {id(v) for v in kept}
        return [id(v) not in ids and not any(re.search(name, v.name) for name in names) for v in variables]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.schedule is not None and not schedules.is_known(self.schedule):
            config["learning_rate"] = self.current_learning_rate(self._core)
        return config

    def describe(self) -> dict[str, Any]:
        """What the core is told: the config, with the learning rate as a number (a schedule's is set at each batch)."""
        rate = self._learning_rate if self.schedule is None else 0.0
        return {"class_name": type(self).__name__, "config": {**super().get_config(), "learning_rate": rate}}

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy has the arguments; the state, and single weights, are the compiled model's.
        arguments = {k: getattr(self, a.attribute or k) for k, a in self._args.items() if a.in_config}
        return _copy, (type(self), arguments, self._kept_whole[1])

    def state(self, core: _engine.CoreModel) -> tuple[int, int, list[tuple[str, _engine.Float]]] | None:
        """The counters and slots, where that compiled model holds them."""
        return (core.iterations, core.accumulated, core.optimizer_variables()) if core is self._core else None

    def bind(
        self, core: _engine.CoreModel, state: tuple[int, int, list[tuple[str, _engine.Float]]] | None = None
    ) -> None:
        """The compiled model that holds the slots and the counter from now on, with the state that it goes on from."""
        self._core, self._applied = core, []
        if state is not None:
            core.iterations, core.accumulated, slots = state
            known = {name for name, _ in core.optimizer_variables()}
            core.set_optimizer_variables([slot for slot in slots if slot[0] in known])

    @property
    def schedule(self) -> LearningRateSchedule | None:
        """The schedule (or the function that stands for one), where there is one."""
        return self._learning_rate if isinstance(self._learning_rate, LearningRateSchedule) else None

    def build(self, variables: Iterable[Variable]) -> None:
        """Makes the slots for variables that `apply` changes; it does so itself where this was not called.

        Args:
            variables: a list of variables.

        Raises:
            TypeError, ValueError: there is something else in it, or a variable twice; or a compiled model holds the
                optimizer's slots.
        """
        if isinstance(self._core, _engine.CoreModel):
            raise ValueError(
                f'optimizer "{self.name}" belongs to a compiled model, whose training makes the updates: expected one '
                f"that `compile` was not given"
            )
        variables = list(variables)
        for variable in variables:
            if not isinstance(variable, Variable) or variable.dtype != "float32":
                raise TypeError(f"`variables`: expected variables of float32, got {variable!r} in it")
        if len({id(v) for v in variables}) < len(variables):
            raise ValueError(f"`variables`: expected each once, got {[v.path for v in variables]}")
        self._core = _engine.core_optimizer(self.describe(), [v.shape for v in variables])
        self._applied = variables

    def apply(self, grads: Iterable[Any], trainable_variables: Iterable[Variable] | None = None) -> None:
        """One update of variables that no compiled model trains, by gradients of the caller's; their constraints
        follow. A gradient that is not finite skips it, with a warning.

        Args:
            grads: a gradient for each variable, or None for those that stay.
            trainable_variables: the variables, the same at every call; those of `build` where not given.

        Raises:
            ValueError, TypeError: gradients and variables do not belong together, or as `build`.

        Example:
            >>> import seqcore
            >>> v = seqcore.Variable([1.0, 2.0])
            >>> seqcore.optimizers.SGD(0.5).apply([[1.0, -1.0]], [v])
            >>> v.numpy().tolist()
            [0.5, 2.5]
        """
        given = list(grads)
        chosen = self._applied if trainable_variables is None else list(trainable_variables)
        if len(given) != len(chosen):
            raise ValueError(f"`grads`: expected one for each of {len(chosen)} variables, got {len(given)}")
        if all(g is None for g in given):
            raise ValueError("No gradients provided for any variable.")
        left = [v.path for g, v in zip(given, chosen, strict=True) if g is None]
        if left:
            warnings.warn(f"`grads`: there is none for the variables {left}, they stay as they are", stacklevel=2)
        if not self._applied:
            self.build(chosen)
        places = {id(v): i for i, v in enumerate(self._applied)}
        for variable in chosen:
            if id(variable) not in places:
                raise ValueError(
                    f"`trainable_variables`: expected some of those of the first call, "
                    f"{[v.path for v in self._applied]}, got {variable!r}"
                )
        pairs = [(_engine.to_float(g, "grads"), v) for g, v in zip(given, chosen, strict=True) if g is not None]
        for g, v in pairs:
            if g.shape != v.shape:
                raise ValueError(f"`grads`: expected shape {v.shape} for `{v.path}`, got {g.shape}")
        core, ready = self._core, [v for _, v in pairs]
        assert isinstance(core, _engine.CoreOptimizer)
        core.learning_rate = self.current_learning_rate(core)
        values = core.apply(
            [places[id(v)] for v in ready], [v.check(v) for v in ready], [g for g, _ in pairs], self.decays(ready)
        )
        if values is None:
            warnings.warn("a gradient is not finite: the update was skipped", RuntimeWarning, stacklevel=2)
            return
        for variable, value in zip(ready, values, strict=True):
            variable.assign(value)
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Variable:
        """As `apply`, of pairs (gradient, variable).

        Returns:
            `iterations`.
        """
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [v for _, v in pairs])
        return self.iterations

    def current_learning_rate(self, core: _engine.CoreModel | _engine.CoreOptimizer | None) -> float:
        """The rate of the next batch. A schedule counts batches, also those that only accumulate, as Keras's do."""
        if self.schedule is None:
            return float(self._learning_rate)
        return float(self.schedule(0 if core is None else self.batches(core)))

    def batches(self, core: _engine.CoreModel | _engine.CoreOptimizer) -> int:
        """How many batches a compiled model was trained on, also those that only accumulate: Keras's iterations."""
        return core.iterations * (self.gradient_accumulation_steps or 1) + core.accumulated

    def set_rate_of(self, core: _engine.CoreModel) -> None:
        """Gives a compiled model, of those that share this optimizer, the rate of its next batch."""
        rate = self._learning_rate
        core.learning_rate = self.current_learning_rate(core) if isinstance(rate, LearningRateSchedule) else rate

    def _set_learning_rate(self, value: Any) -> None:
        rate = _learning_rate(value, "`learning_rate`")
        if self.schedule is not None and not isinstance(rate, LearningRateSchedule):
            what = "a function" if isinstance(self.schedule, _Called) else type(self.schedule).__name__
            raise TypeError(
                f"`learning_rate`: it follows a schedule ({what}) and cannot be set to a number; compile with a number "
                f"instead"
            )
        self._learning_rate = rate
        if self._core is not None and self.schedule is None:
            self._core.learning_rate = rate

    @property
    def iterations(self) -> Variable:
        """How many updates were made."""
        return Variable.view("iteration", (), read=lambda: self._core.iterations if self._core else 0, dtype="int64")

    @classmethod
    def slot_order(cls, names: Iterable[str]) -> list[str]:
        """Names of slots ("momentum/3") in Keras's order: group after group, each weight by weight."""
        have: dict[str, dict[int, str]] = {}
        for name in names:
            slot, _, index = name.partition("/")
            have.setdefault(slot, {})[int(index or 0)] = name
        ordered = []
        for group in (("average",), ("gradient_accumulator",), *cls._slots):
            present = [have[slot] for slot in group if slot in have]
            ordered += [slot[index] for index in sorted(present[0] if present else ()) for slot in present]
        return ordered

    @property
    def variables(self) -> list[Variable]:
        """iteration, learning_rate (where no schedule gives it), then the slots, in Keras's order."""
        slots = {} if self._core is None else dict(self._core.optimizer_variables())
        return [
            self.iterations,
            *([self.learning_rate] if self.schedule is None else []),
            *(Variable.view(n, slots[n].shape, read=lambda v=slots[n]: v) for n in self.slot_order(slots)),  # type: ignore[misc]
        ]


def _copy(cls: type[Optimizer], arguments: dict[str, Any], kept_whole: list[str]) -> Optimizer:
    optimizer = cls(**arguments)
    optimizer.exclude_from_weight_decay(var_names=kept_whole)
    return optimizer


def _get_learning_rate(self: Optimizer) -> Variable:
    """A variable that reads as the present value and can be assigned; setting it to a number does the same."""
    return Variable.view(
        "learning_rate",
        (),
        read=lambda: self.current_learning_rate(self._core),
        write=lambda value: self._set_learning_rate(float(value)),
    )


# Beside the declared argument of that name: reading gives a Variable, setting takes a number.
Optimizer.learning_rate = property(_get_learning_rate, Optimizer._set_learning_rate)
Optimizer.lr = Optimizer.learning_rate


class SGD(Optimizer):
    """Gradient descent with momentum.

    Args:
        learning_rate: a number, a schedule or a function.
        momentum: share of the last step kept.
        nesterov: whether to look ahead.

    Example:
        >>> from seqcore import optimizers
        >>> optimizer = optimizers.SGD(0.5, momentum=0.9)
        >>> optimizer.learning_rate = 0.25
        >>> float(optimizer.learning_rate)
        0.25
    """

    learning_rate: Any = arg(_learning_rate, default=0.01, attribute="_learning_rate")
    momentum: float = arg(fraction, default=0.0)
    nesterov: bool = arg(boolean, default=False)

    _slots = (("momentum",),)


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2014).

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1, beta_2: how slowly the two moments move.
        epsilon: added to the root of the second moment, outside the bias correction.
        amsgrad: whether the largest second moment so far is used.
    """

    beta_1: float = arg(fraction, default=0.9)
    beta_2: float = arg(fraction, default=0.999)
    epsilon: float = arg(non_negative, default=1e-7)
    amsgrad: bool = arg(boolean, default=False)

    _slots = (("momentum", "velocity"), ("velocity_hat",))


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2017).

    Args:
        learning_rate: a number, a schedule or a function.
        weight_decay: share of each weight taken off at every update, times the learning rate.
        beta_1, beta_2, epsilon, amsgrad: as in Adam.
    """

    weight_decay: float = arg(non_negative, default=0.004)
    beta_1: float = arg(fraction, default=0.9)
    beta_2: float = arg(fraction, default=0.999)
    epsilon: float = arg(non_negative, default=1e-7)
    amsgrad: bool = arg(boolean, default=False)

    _slots = Adam._slots


class RMSprop(Optimizer):
    """RMSprop (Hinton, Tieleman, 2012), plain or centered (Graves, 2013).

    Args:
        learning_rate: a number, a schedule or a function.
        rho: how slowly the mean of the squared gradients moves.
        momentum: share of the last step kept.
        epsilon: added to that mean, inside the root.
        centered: whether the variance stands in the mean square's place.
    """

    rho: float = arg(fraction, default=0.9)
    momentum: float = arg(fraction, default=0.0)
    epsilon: float = arg(non_negative, default=1e-7)
    centered: bool = arg(boolean, default=False)

    _slots = (("velocity",), ("momentum",), ("average_gradient",))


class Nadam(Optimizer):
    """Adam with Nesterov's momentum (Dozat, 2016).

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1, beta_2: how slowly the two moments move.
        epsilon: added to the root of the second moment, inside the bias correction.
    """

    beta_1: float = arg(fraction, default=0.9)
    beta_2: float = arg(fraction, default=0.999)
    epsilon: float = arg(non_negative, default=1e-7)

    _slots = (("momentum", "velocity"), ("u_product",))


class Adamax(Optimizer):
    """Adam with the largest gradient, slowly forgotten, in the second moment's place (Kingma and Ba, 2014).

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1: how slowly the first moment moves.
        beta_2: how slowly the largest gradient is forgotten.
        epsilon: added to it.
    """

    beta_1: float = arg(fraction, default=0.9)
    beta_2: float = arg(fraction, default=0.999)
    epsilon: float = arg(non_negative, default=1e-7)

    _slots = (("momentum", "norm"),)


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients (Duchi, Hazan and Singer, 2011).

    Args:
        learning_rate: a number, a schedule or a function.
        initial_accumulator_value: what that sum begins with.
        epsilon: added to it, inside the root.
    """

    initial_accumulator_value: float = arg(non_negative, default=0.1)
    epsilon: float = arg(non_negative, default=1e-7)

    _slots = (("accumulator",),)


class Adadelta(Optimizer):
    """Gradients divided by the root of their mean square, multiplied by that of the steps (Zeiler, 2012). The paper's
    `learning_rate` is 1.

    Args:
        learning_rate: a number, a schedule or a function.
        rho: how slowly the two means move.
        epsilon: added to them, inside the roots.
    """

    rho: float = arg(fraction, default=0.95)
    epsilon: float = arg(non_negative, default=1e-7)

    _slots = (("accumulated_grad", "accumulated_delta_var"),)


class Ftrl(Optimizer):
    """Follow the regularized leader, with one learning rate a weight (McMahan and others, 2013). A learning rate of 0
    leaves the weights as they are.

    Args:
        learning_rate: a number, a schedule or a function.
        learning_rate_power: how the rate falls with the sum of all squared gradients; 0 or less.
        initial_accumulator_value: what that sum begins with.
        l1_regularization_strength, l2_regularization_strength: penalties on what the weights become; >= 0.
        l2_shrinkage_regularization_strength: a penalty on what they are, which is not in the sum; >= 0.
        beta: the paper's; >= 0.
    """

    learning_rate_power: float = arg(_not_positive, default=-0.5)
    initial_accumulator_value: float = arg(non_negative, default=0.1)
    l1_regularization_strength: float = arg(non_negative, default=0.0)
    l2_regularization_strength: float = arg(non_negative, default=0.0)
    l2_shrinkage_regularization_strength: float = arg(non_negative, default=0.0)
    beta: float = arg(non_negative, default=0.0)

    _slots = (("accumulator", "linear"),)


class Lion(Optimizer):
    """Steps of one size, in the direction of the momentum's sign (Chen and others, 2023). Its learning rate is best a
    third to a tenth of Adam's, and `weight_decay` as many times larger.

    Args:
        learning_rate: a number, a schedule or a function.
        beta_1: share of the momentum in a step's direction.
        beta_2: how slowly the momentum moves.
    """

    beta_1: float = arg(fraction, default=0.9)
    beta_2: float = arg(fraction, default=0.99)

    _slots = (("momentum",),)


_registry: Registry[Optimizer] = Registry(
    "optimizer",
    Optimizer,
    [SGD, Adam, AdamW, RMSprop, Nadam, Adamax, Adagrad, Adadelta, Ftrl, Lion],
    adamw=AdamW,
    rmsprop=RMSprop,
)


def get(identifier: Any) -> Optimizer | None:
    """The optimizer that `identifier` names: a string, a class, an instance or a description; None for None."""
    if isinstance(identifier, str):
        identifier = identifier if identifier in _registry.classes else identifier.lower()
    return _registry.get(identifier)


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """The {"class_name", "config"} description."""
    return dict(to_config(optimizer))


def deserialize(config: Any) -> Optimizer:
    """The optimizer of a {"class_name", "config"} description."""
    return _registry.deserialize(config)
