"""Learning-rate schedules: functions of the number of batches trained so far, in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _engine
from .._config import (
    Configurable,
    Registry,
    anything,
    arg,
    boolean,
    non_negative,
    number,
    optional,
    positive,
    text,
    to_config,
)
from .._variable import Variable

__all__ = [
    "CosineDecay", "CosineDecayRestarts", "ExponentialDecay", "InverseTimeDecay", "LearningRateSchedule",
    "PiecewiseConstantDecay", "PolynomialDecay", "deserialize", "serialize",
]  # fmt: skip


def rate(value: Any, where: str) -> float:
    """A learning rate: a number, or the variable of an optimizer's as it is now."""
    if isinstance(value, Variable) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = float(value)
    return non_negative(value, where)


class LearningRateSchedule(Configurable):
    """Base of all schedules.

    Call arguments:
        step: the number of batches trained so far (with `gradient_accumulation_steps` there are fewer updates). An
            array of them gives an array of rates.

    Example:
        >>> from seqcore.optimizers import schedules
        >>> schedules.ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(20)
        0.025
    """

    def __call__(self, step: Any) -> Any:
        if isinstance(step, (int, float)):
            return self._at(float(step))
        steps = _engine.to_array(step, "step")
        if steps.ndim == 0:
            return self._at(float(steps))
        return np.array([self._at(float(s)) for s in steps.flat]).reshape(steps.shape)

    def _at(self, at: float) -> float:
        raise NotImplementedError(f"{type(self).__name__}.__call__")


class ExponentialDecay(LearningRateSchedule):
    """`initial · decay_rate ^ (step / decay_steps)`, in whole steps of the exponent if `staircase`."""

    initial_learning_rate: float = arg(rate)
    decay_steps: float = arg(positive)
    decay_rate: float = arg(number)
    staircase: bool = arg(boolean, default=False)
    name: str = arg(text, default="ExponentialDecay")

    def _at(self, at: float) -> float:
        power = at / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (math.floor(power) if self.staircase else power)


class InverseTimeDecay(LearningRateSchedule):
    """`initial / (1 + decay_rate · step / decay_steps)`, in whole steps if `staircase`."""

    initial_learning_rate: float = arg(rate)
    decay_steps: float = arg(positive)
    decay_rate: float = arg(number)
    staircase: bool = arg(boolean, default=False)
    name: str = arg(text, default="InverseTimeDecay")

    def _at(self, at: float) -> float:
        part = at / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * (math.floor(part) if self.staircase else part))


class PiecewiseConstantDecay(LearningRateSchedule):
    """`values[i]` up to and including step `boundaries[i]`, the last value afterwards."""

    boundaries: Sequence[float] = arg(anything)
    values: Sequence[float] = arg(anything)
    name: str = arg(text, default="PiecewiseConstant")

    def _setup(self) -> None:
        self.boundaries = [number(b, "`boundaries` of PiecewiseConstantDecay") for b in self.boundaries]
        self.values = [non_negative(v, "`values` of PiecewiseConstantDecay") for v in self.values]
        if len(self.values) != len(self.boundaries) + 1 or sorted(self.boundaries) != self.boundaries:
            raise ValueError(
                f"PiecewiseConstantDecay: expected rising `boundaries` and one more of `values`, got {self.boundaries} "
                f"and {self.values}"
            )

    def _at(self, at: float) -> float:
        return next((v for b, v in zip(self.boundaries, self.values, strict=False) if at <= b), self.values[-1])


class PolynomialDecay(LearningRateSchedule):
    """From the initial rate to `end_learning_rate` in `decay_steps`, as a power of the way left; again and again, over
    longer and longer spans, if `cycle`."""

    initial_learning_rate: float = arg(rate)
    decay_steps: float = arg(positive)
    end_learning_rate: float = arg(non_negative, default=0.0001)
    power: float = arg(number, default=1.0)
    cycle: bool = arg(boolean, default=False)
    name: str = arg(text, default="PolynomialDecay")

    def _at(self, at: float) -> float:
        span = self.decay_steps
        if self.cycle:
            span *= max(1.0, math.ceil(at / span))
        left = 1 - min(at, span) / span
        return float((self.initial_learning_rate - self.end_learning_rate) * left**self.power + self.end_learning_rate)


class CosineDecay(LearningRateSchedule):
    """A half cosine from the initial rate (or, after `warmup_steps` of a straight rise, from `warmup_target`) to
    `alpha` times it (Loshchilov and Hutter, 2016)."""

    initial_learning_rate: float = arg(rate)
    decay_steps: float = arg(positive)
    alpha: float = arg(number, default=0.0)
    name: str = arg(text, default="CosineDecay")
    warmup_target: float | None = arg(optional(non_negative), default=None)
    warmup_steps: float = arg(non_negative, default=0)

    def _at(self, at: float) -> float:
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if at <= self.warmup_steps and self.warmup_steps:
                return top + (self.warmup_target - top) * at / self.warmup_steps
            at, top = at - self.warmup_steps, self.warmup_target
        wave = 0.5 * (1 + math.cos(math.pi * min(at, self.decay_steps) / self.decay_steps))
        return top * ((1 - self.alpha) * wave + self.alpha)


class CosineDecayRestarts(LearningRateSchedule):
    """Half cosines one after another, each `t_mul` times longer and `m_mul` times as high (Loshchilov and Hutter,
    2016)."""

    initial_learning_rate: float = arg(rate)
    first_decay_steps: float = arg(positive)
    t_mul: float = arg(number, default=2.0)
    m_mul: float = arg(number, default=1.0)
    alpha: float = arg(number, default=0.0)
    name: str = arg(text, default="SGDRDecay")

    def _setup(self) -> None:
        if self.t_mul < 1:
            raise ValueError(f"`t_mul` of CosineDecayRestarts: expected a number >= 1, got {self.t_mul}")

    def _at(self, at: float) -> float:
        done = at / self.first_decay_steps
        if self.t_mul == 1.0:
            round_ = math.floor(done)
            part = done - round_
        else:
            round_ = math.floor(math.log(1 - done * (1 - self.t_mul)) / math.log(self.t_mul))
            part = (done - (1 - self.t_mul**round_) / (1 - self.t_mul)) / self.t_mul**round_
        wave = 0.5 * self.m_mul**round_ * (1 + math.cos(math.pi * part))
        return self.initial_learning_rate * ((1 - self.alpha) * wave + self.alpha)


_registry: Registry[LearningRateSchedule] = Registry(
    "learning-rate schedule",
    LearningRateSchedule,
    [ExponentialDecay, InverseTimeDecay, PiecewiseConstantDecay, PolynomialDecay, CosineDecay, CosineDecayRestarts],
)


def serialize(schedule: LearningRateSchedule) -> dict[str, Any]:
    """The {"class_name", "config"} description."""
    return dict(to_config(schedule))


def deserialize(config: Any) -> LearningRateSchedule:
    """The schedule of a {"class_name", "config"} description."""
    return _registry.deserialize(config)


def is_known(schedule: LearningRateSchedule) -> bool:
    """Whether files can describe it."""
    return type(schedule) in _registry.classes.values()
