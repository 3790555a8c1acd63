"""What users call their own metrics in files: names that are registered in the process, or known for a while. Private:
public in `saving` and `utils`, used where files and descriptions are read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from ._config import check_mapping, optional, text

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

classes: list[type] = []  # whose subclasses may have names: Metric, which stands above this module
_registered: dict[str, Any] = {}  # by "package>name"
_names: dict[Any, str] = {}  # the other way
_scope: ContextVar[dict[str, Any] | None] = ContextVar("_scope", default=None)


def _checked(objects: Any, where: str) -> dict[str, Any]:
    named = {str(name): given for name, given in check_mapping(objects or {}, where).items()}
    for name, given in named.items():
        if not callable(given) or (isinstance(given, type) and not issubclass(given, tuple(classes))):
            raise ValueError(f"{where}: expected metric classes and functions only, got {name!r}: {given!r}")
    return named


def with_registered(custom_objects: Any) -> dict[str, Any]:
    """What is known by name: what was given, and before that, as in Keras, what is registered and what is in scope.

    Raises:
        ValueError: something of it is no metric class and no function.
    """
    given = _checked(custom_objects, "`custom_objects`")
    return {**given, **_checked(_registered, "get_custom_objects()"), **(_scope.get() or {})}


def key_of(name: Any, known: Mapping[str, Any]) -> str | None:
    """Under what key `known` has what a file calls `name`; None where it has not. The file may say a package, which
    whoever gives the object need not."""
    if not isinstance(name, str):
        return None
    return next((key for key in (name, name.rpartition(">")[2]) if key in known), None)


class CustomObjectScope:
    """Within `with custom_object_scope({name: object}):` these names are known to `load_model` and
    `metrics.deserialize`, in this thread, as if they were given as `custom_objects`. Of scopes in scopes the innermost
    counts alone.

    Args:
        custom_objects: your own metric classes and functions by name.

    Raises:
        ValueError: `custom_objects` is no dict, or there is something else in it.

    Example:
        >>> from seqcore import metrics, saving
        >>> class Own(metrics.MeanAbsoluteError):
        ...     pass
        >>> with saving.custom_object_scope({"Own": Own}):
        ...     metric = metrics.deserialize({"class_name": "Own", "config": {}})
        >>> type(metric) is Own
        True
    """

    def __init__(self, custom_objects: Mapping[str, Any] | None) -> None:
        self.custom_objects = _checked(custom_objects, "`custom_objects`")
        self._outer: list[dict[str, Any] | None] = []

    def __enter__(self) -> Self:
        self._outer.append(_scope.get())
        _scope.set(dict(self.custom_objects))
        return self

    def __exit__(self, *_: object) -> None:
        _scope.set(self._outer.pop())


custom_object_scope = CustomObjectScope


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[T], T]:
    """Decorates a metric class or function of your own: files call it "package>name" from then on, and are read
    without `custom_objects` where it is registered.

    Args:
        package: the first part of the name.
        name: the second one; the object's own where None.

    Raises:
        ValueError: `package` or `name` is no string, or what is decorated no metric class and no function (files know
            no layers, losses, … of your own).

    Example:
        >>> from seqcore import metrics, saving
        >>> @saving.register_keras_serializable("my_package")
        ... class Own(metrics.MeanAbsoluteError):
        ...     pass
        >>> saving.get_registered_name(Own)
        'my_package>Own'
        >>> metrics.serialize(Own())["class_name"]
        'my_package>Own'
    """
    text(package, "`package` of register_keras_serializable")
    optional(text)(name, "`name` of register_keras_serializable")

    def register(given: T) -> T:
        own = getattr(given, "__name__", type(given).__name__) if name is None else name
        _checked({own: given}, "register_keras_serializable")
        _registered[f"{package}>{own}"] = given
        _names[given] = f"{package}>{own}"
        return given

    return register


def get_custom_objects() -> dict[str, Any]:
    """What is registered, by its names: the dict itself, into which you may put more."""
    return _registered


def get_registered_name(obj: Any) -> str:
    """The name under which a metric class or function was registered; else its own, or its class's."""
    try:
        known = _names.get(obj)
    except TypeError:  # no key of dicts: nor was it registered
        known = None
    return known or str(getattr(obj, "__name__", type(obj).__name__))


def get_registered_object(
    name: str, custom_objects: Mapping[str, Any] | None = None, module_objects: Mapping[str, Any] | None = None
) -> Any:
    """What has this name: in the scope, registered, in `custom_objects` or in `module_objects`, the first of these that
    has it. None where none has."""
    places = (_scope.get(), _registered, custom_objects, module_objects)
    return next((known[name] for known in places if known and name in known), None)
