"""`Variable`: a small view of a number or array that lives elsewhere, in a compiled model or an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _engine, initializers
from ._config import dtype_name, sizes


class Variable(np.lib.mixins.NDArrayOperatorsMixin):
    """A named value that can be read as an array and assigned. Arithmetic, comparisons, indexing and `len` are its
    array's; hashes, and `==` between variables, are those of the variable itself, so that it can be a key.

    A weight's truth lives in one compiled model, its home. Layers shared by several models keep one Variable each;
    the model that trains next takes the home over, the others fetch from it (`_network.Network.pull`).

    Args:
        initializer: the value; or how it begins, a name, an initializer or a function, together with `shape`.
        shape: the value's.
        dtype: float32, or what an array of integers or booleans has, where not given.
        trainable: kept as an attribute.
        autocast, aggregation, synchronization: accepted as Keras's.
        name: a name.

    Example:
        >>> import seqcore
        >>> v = seqcore.Variable([1.0, 2.0])
        >>> v.assign_add([1.0, 1.0]).numpy().tolist()
        [2.0, 3.0]
    """

    __slots__ = ("_core", "_index", "_read", "_write", "constraint", "dtype", "name", "path", "regularizer", "shape",
                 "statistic", "trainable")  # fmt: skip

    def __init__(self, initializer: Any, shape: Any = None, dtype: Any = None, trainable: bool = True,
                 autocast: bool = True, aggregation: str | None = "none", synchronization: str = "auto",
                 name: str = "variable") -> None:  # fmt: skip
        made = initializer
        if isinstance(initializer, str) or callable(initializer):
            if shape is None:
                raise ValueError("`shape` of Variable: expected a shape beside an initializer, got None")
            made = initializers.convert(initializer, "`initializer` of Variable")
            made = made and made(sizes(shape, "`shape` of Variable"), dtype=dtype)
        array = _engine.to_array(made, "initializer")
        if shape is not None and array.shape != sizes(shape, "`shape` of Variable"):
            raise ValueError(f"`shape` of Variable: expected that of the value, {array.shape}, got {shape}")
        if dtype is not None:
            dtype = dtype_name(dtype, "`dtype` of Variable")
        elif array.dtype.kind == "f":
            dtype = "float32"
        else:
            dtype = str(array.dtype) if hasattr(made, "dtype") or array.dtype.kind == "b" else "int32"
        held = np.array(array, dtype)
        self._begin(name, held.shape, held.copy, lambda value: np.copyto(held, value), dtype)
        self.trainable = trainable

    def _begin(self, name: str, shape: tuple[int, ...], read: Callable[[], Any] | None,
               write: Callable[[_engine.Array], None] | None, dtype: str) -> None:  # fmt: skip
        self.name = self.path = name
        self.shape, self.dtype, self.trainable = shape, dtype, True
        self.statistic = False  # moved by its layer in training, by no gradient
        self.regularizer: Any = None  # what its layer was given for it
        self.constraint: Any = None
        self._read, self._write = read, write
        self._core: _engine.CoreModel | None = None
        self._index = -1

    @classmethod
    def view(cls, name: str, shape: tuple[int, ...], read: Callable[[], Any] | None = None,
             write: Callable[[_engine.Array], None] | None = None, dtype: str = "float32") -> Variable:  # fmt: skip
        """What `read` gives and `write`, if there is one, changes."""
        self = cls.__new__(cls)
        self._begin(name, shape, read, write, dtype)
        return self

    @classmethod
    def of_weight(cls, core: _engine.CoreModel, index: int, weight: _engine.CoreWeight, path: str) -> Variable:
        self = cls.view(path.rpartition("/")[2], weight.shape)
        self.path, self.statistic, self.trainable = path, weight.statistic, not weight.statistic
        self.move_to(core, index)
        return self

    def move_to(self, core: _engine.CoreModel, index: int) -> None:
        self._core, self._index = core, index

    @property
    def core(self) -> _engine.CoreModel | None:
        return self._core

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy has a value of its own.
        return _detached, (self.path, self.numpy(), self.trainable)

    def __eq__(self, other: Any) -> Any:
        return self is other if other is None or isinstance(other, Variable) else self.numpy() == other

    def __ne__(self, other: Any) -> Any:
        return self is not other if other is None or isinstance(other, Variable) else self.numpy() != other

    __hash__ = object.__hash__

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(out, Variable) for out in kwargs.get("out", ())):
            raise TypeError(f"`{self.path}`: a variable is changed by assign, assign_add and assign_sub only")
        ready = [v.numpy() if isinstance(v, Variable) else v for v in inputs]
        return getattr(ufunc, method)(*ready, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        value = self.numpy()
        value.flags.writeable = False  # a copy: writing to it would change nothing
        return value[key]

    def __len__(self) -> int:
        return len(self.numpy())

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def numpy(self) -> _engine.Array:
        """A copy of the value."""
        if self._core is not None:
            return self._core.get_weight(self._index)
        assert self._read is not None
        return np.asarray(self._read(), self.dtype)

    @property
    def value(self) -> _engine.Array:
        return self.numpy()

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def check(self, value: Any) -> _engine.Array:
        """`value` ready to be assigned; ValueError where its shape is another."""
        if self.dtype == "float32":
            array: _engine.Array = _engine.to_float(value, self.name)
        else:
            array = _engine.to_array(value, self.name).astype(self.dtype, copy=False)
        if array.shape != self.shape:
            raise ValueError(f"`{self.path}`: expected shape {self.shape}, got {array.shape}")
        return array

    def assign(self, value: Any) -> Variable:
        """Replaces the value; the shape stays."""
        array = self.check(value)
        if self._core is not None:
            self._core.set_weight(self._index, array)
        elif self._write is not None:
            self._write(array)
        else:
            raise TypeError(f"`{self.path}` is read-only")
        return self

    def assign_add(self, value: Any) -> Variable:
        """Adds `value`."""
        return self.assign(self.numpy() + np.asarray(value))

    def assign_sub(self, value: Any) -> Variable:
        """Subtracts `value`."""
        return self.assign(self.numpy() - np.asarray(value))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> _engine.Array:
        value = self.numpy()
        return value if dtype is None else value.astype(dtype)

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __index__(self) -> int:
        if np.dtype(self.dtype).kind != "i":
            raise TypeError(f"`{self.path}` of dtype {self.dtype} is no integer")
        return int(self.numpy())

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}>"


def _detached(path: str, value: _engine.Array, trainable: bool) -> Variable:
    variable = Variable(value, dtype=value.dtype, trainable=trainable, name=path.rpartition("/")[2])
    variable.path = path
    return variable
