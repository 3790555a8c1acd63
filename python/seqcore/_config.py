"""Arguments declared once. Every class that a file may describe (layers, losses, optimizers, initializers …) lists its
arguments as `arg(…)` fields; the constructor, its signature, `get_config` and `from_config` all follow from that list.
Private: imported by the public modules, never by users."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self, dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        return lambda cls: cls


Convert = Callable[[Any, str], Any]
_MISSING: Any = object()
UNSET: Any = None  # for class attributes of any type that are no arguments


class Arg:
    """One declared argument: how it is checked (`convert(value, where)`), its default, whether configs carry it, the
    attribute that holds it where that has another name, and the argument that it comes right after where it is declared
    elsewhere."""

    __slots__ = ("after", "attribute", "convert", "default", "in_config", "kw_only")

    def __init__(self, convert: Convert, default: Any, kw_only: bool, in_config: bool, attribute: str | None,
                 after: str | None) -> None:  # fmt: skip
        self.convert, self.default, self.kw_only = convert, default, kw_only
        self.in_config, self.attribute, self.after = in_config, attribute, after


def arg(convert: Convert, *, default: Any = _MISSING, kw_only: bool = False, in_config: bool = True,
        attribute: str | None = None, after: str | None = None) -> Any:  # fmt: skip
    """Declares one argument of a `Configurable`. The default passes through `convert` like any other value."""
    return Arg(convert, default, kw_only, in_config, attribute, after)


class _SignatureOf:
    """A class's signature, made when somebody asks: at import nobody does."""

    def __get__(self, instance: object, cls: type[Configurable]) -> inspect.Signature:
        made: inspect.Signature | None = vars(cls).get("_signature")
        if made is None:
            kind = inspect.Parameter
            ordered = sorted(cls._args.items(), key=lambda item: item[1].kw_only)
            made = inspect.Signature(
                [
                    kind(
                        name,
                        kind.KEYWORD_ONLY if a.kw_only and not cls._by_position else kind.POSITIONAL_OR_KEYWORD,
                        default=kind.empty if a.default is _MISSING else a.default,
                    )
                    for name, a in ordered
                ]
            )
            cls._signature = made
        return made


@dataclass_transform(field_specifiers=(arg,))
class Configurable:
    """Base of everything that has a config. Subclasses declare arguments as class-level `arg(…)` fields."""

    __signature__ = _SignatureOf()
    _signature: ClassVar[inspect.Signature]
    _args: ClassVar[dict[str, Arg]] = {}
    # Keras words that have no meaning here; accepted and dropped.
    _ignored: ClassVar[frozenset[str]] = frozenset()
    # The same, where they are None or False: on, they would change results.
    _off: ClassVar[frozenset[str]] = frozenset()
    # Whether arguments that are declared `kw_only` may be given by position, behind the others.
    _by_position: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._args = {}
        for base in reversed(cls.__mro__):
            own = vars(base).get("_own_args")
            if own is None:
                own = {name: value for name, value in vars(base).items() if isinstance(value, Arg)}
                if base is cls:
                    for name in own:
                        delattr(cls, name)
                    cls._own_args = own  # type: ignore[attr-defined]
            for name, declared in own.items():
                cls._args.pop(name, None)  # declared anew: takes its new place
                cls._args[name] = declared
        for name in [n for n, a in cls._args.items() if a.after in cls._args]:
            moved = cls._args.pop(name)
            names = list(cls._args)
            names.insert(names.index(str(moved.after)) + 1, name)
            cls._args = {n: moved if n == name else cls._args[n] for n in names}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        cls = type(self)
        signature = cls.__signature__
        off = {k for k in cls._off if kwargs.get(k) in (None, False)}
        unknown = {k: v for k, v in kwargs.items() if not (k in cls._args or k in cls._ignored or k in off)}
        if unknown:
            raise ValueError(
                f"{cls.__name__}: unrecognized keyword arguments {unknown}; expected some of {list(cls._args)}"
            )
        try:
            bound = signature.bind(*args, **{k: v for k, v in kwargs.items() if k in cls._args})
        except TypeError as error:
            raise TypeError(f"{cls.__name__}: {error}") from None
        for name, a in cls._args.items():
            value = bound.arguments.get(name, a.default)
            setattr(self, a.attribute or name, a.convert(value, f"`{name}` of {cls.__name__}"))
        self._setup()

    def _setup(self) -> None:
        """Runs after the arguments are set: what they say together is checked here."""

    def get_config(self) -> dict[str, Any]:
        """The arguments as JSON-ready values; `from_config` undoes it."""
        return {name: to_config(getattr(self, a.attribute or name)) for name, a in self._args.items() if a.in_config}

    def _description(self) -> dict[str, Any] | None:
        """What stands for it in the configs of others."""
        return {"class_name": type(self).__name__, "config": self.get_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Makes an instance from what `get_config` returned. Unknown keys are refused unless their value is null."""
        check_mapping(config, f"the config of {cls.__name__}")
        return cls(**{str(k): v for k, v in config.items() if v is not None or k in cls._args})

    def __repr__(self) -> str:
        shown = {k: v for k, v in self.get_config().items() if v is not None}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


def to_config(value: Any) -> Any:
    """JSON-ready form: nested configurables become {"class_name", "config"}, functions their names."""
    if isinstance(value, Configurable):
        return value._description()
    if isinstance(value, (list, tuple)):
        return [to_config(v) for v in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str, dict)):
        return value
    return str(value.__name__)


def check_mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected a dict, got {type(value).__name__}")
    return value


def snake_case(name: str) -> str:
    """`SimpleRNN` → `simple_rnn`, `LSTM` → `lstm`, `GlobalMaxPooling1D` → `global_max_pooling1d`."""
    out = []
    for i, c in enumerate(name):
        new_word = c.isupper() and i > 0 and (name[i - 1].islower() or name[i + 1 : i + 2].islower())
        out.append("_" + c if new_word else c)
    return "".join(out).lower()


T = TypeVar("T", bound=Configurable)


class Registry(Generic[T]):
    """A closed list of classes, found by name. Nothing is ever imported or evaluated to find one."""

    def __init__(self, kind: str, base: type[T], classes: list[type[T]], **aliases: Callable[[], T]) -> None:
        self.kind, self.base = kind, base
        self.classes: dict[str, type[T]] = {}
        self._by_name: dict[str, Callable[[], T]] = dict(aliases)
        self.add(classes)

    def add(self, classes: list[type[T]]) -> None:
        for c in classes:
            self.classes[c.__name__] = c
            self._by_name.setdefault(c.__name__, c)
            self._by_name.setdefault(snake_case(c.__name__), c)

    def get(self, identifier: Any, where: str = "") -> T | None:
        """None, an instance, a class, a name or a {"class_name", "config"} dict."""
        if identifier is None or isinstance(identifier, self.base):
            return identifier
        if isinstance(identifier, str) and identifier in self._by_name:
            return self._by_name[identifier]()
        if isinstance(identifier, type) and issubclass(identifier, self.base):
            return identifier()
        if isinstance(identifier, Mapping):
            return self.deserialize(identifier, where)
        raise ValueError(
            f"{where + ': ' if where else ''}unknown {self.kind} {identifier!r}; "
            f"known: {', '.join(sorted(self._by_name))}"
        )

    def deserialize(self, config: Any, where: str = "") -> T:
        config = check_mapping(config, where or f"the description of a {self.kind}")
        name = config.get("class_name")
        found = self._by_name.get(name) if isinstance(name, str) else None
        if not isinstance(found, type) or not issubclass(found, self.base):
            raise ValueError(f"unknown {self.kind} {name!r}; known: {', '.join(sorted(self.classes))}")
        return found.from_config(config.get("config") or {})

    def convert(self, value: Any, where: str) -> T | None:
        """As an argument's `convert`: None stays None. The core knows no classes of the user's own."""
        found = self.get(value, where)
        if found is not None and type(found) not in self.classes.values():
            raise ValueError(
                f"{where}: expected a {self.kind} of seqcore's own, one of {', '.join(sorted(self.classes))}; got "
                f"{type(found).__name__}"
            )
        return found


# ---- the checks of plain values


def integer(value: Any, where: str, low: int | None = None) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{where}: expected {'a positive integer' if low == 1 else 'an integer'}, got {value!r}")
    if low is not None and value < low:
        raise ValueError(
            f"{where}: expected an integer >= {low}, got {value!r}"
            if low != 1
            else f"{where}: expected a positive integer, got {value!r}"
        )
    return int(value)


def positive_int(value: Any, where: str) -> int:
    # 64.0 is what arithmetic on sizes gives; Keras's scripts pass it.
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return integer(value, where, low=1)


def non_negative_int(value: Any, where: str) -> int:
    return integer(value, where, low=0)


def boolean(value: Any, where: str) -> bool:
    if not isinstance(value, (bool, int, float, np.generic)) or value not in (0, 1):
        raise ValueError(f"{where}: expected True or False, got {value!r}")
    return bool(value)


def number(value: Any, where: str) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{where}: expected a number, got {value!r}")
    if not np.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got {value!r}")
    return float(value)


def fraction(value: Any, where: str) -> float:
    if not 0.0 <= number(value, where) <= 1.0:
        raise ValueError(f"{where}: expected a float between 0 and 1, got {value!r}")
    return float(value)


def non_negative(value: Any, where: str) -> float:
    if number(value, where) < 0:
        raise ValueError(f"{where}: expected a number >= 0, got {value!r}")
    return float(value)


def positive(value: Any, where: str) -> float:
    if number(value, where) <= 0:
        raise ValueError(f"{where}: expected a number > 0, got {value!r}")
    return float(value)


def text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected a string, got {value!r}")
    return value


_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16",
           "float32", "float64")  # fmt: skip
_PYTHON_TYPES: dict[Any, str] = {bool: "bool", int: "int32", float: "float32"}


def dtype_name(value: Any, where: str) -> str:
    """The name of a dtype: a string, one of NumPy's types or dtypes, a type of Python's; None is "float32"."""
    if isinstance(value, Mapping):  # Keras's DTypePolicy
        value = check_mapping(value.get("config", {}), where).get("name")
    name = "float32" if value is None else value
    if isinstance(name, np.dtype):
        name = name.name
    elif isinstance(name, type):
        name = _PYTHON_TYPES.get(name) or name.__name__.rstrip("_")
    if not isinstance(name, str) or name not in _DTYPES:
        raise ValueError(f"{where}: expected one of {list(_DTYPES)}, got {value!r}")
    return name


def seed_or_none(value: Any, where: str) -> int | None:
    """None, or an integer in [0, 2**53): what a JSON number holds exactly."""
    if value is None:
        return None
    if not 0 <= integer(value, where) < 2**53:
        raise ValueError(f"{where}: expected an integer in [0, 2**53), got {value!r}")
    return int(value)


def anything(value: Any, where: str) -> Any:
    return value


def optional(convert: Convert) -> Convert:
    return lambda value, where: None if value is None else convert(value, where)


def one_of(*choices: Any) -> Convert:
    def convert(value: Any, where: str) -> Any:
        if isinstance(value, np.ndarray) or value not in choices:
            raise ValueError(f"{where}: expected one of {list(choices)}, got {value!r}")
        return value

    return convert


def sizes(value: Any, where: str) -> tuple[int | None, ...]:
    """A shape; None stands for any size."""
    if isinstance(value, (int, np.integer)):
        value = (value,)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where}: expected a tuple of integers or None, got {value!r}")
    return tuple(None if n is None else integer(n, where, low=1) for n in value)
