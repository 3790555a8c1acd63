"""HDF5 and zip files. In those from elsewhere links and storage outside the file are refused, and sizes are compared
with what the file holds before memory is taken. New ones are made in memory."""

from __future__ import annotations

import importlib
import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from .._config import check_mapping

_MOST_OBJECTS = 200_000  # groups and datasets in a file
SMALL = 1 << 16  # bytes that may be claimed without being there
LARGEST_RATIO = 64  # of what packed data claim to be to what they are
LARGEST_TEXT = 1 << 26
DAMAGED = (ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
            UnicodeError, struct.error, zipfile.BadZipFile, zlib.error)  # fmt: skip


def h5py_module() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError(
            "Keras's files are read and written by h5py, which is not installed: pip install 'seqcore[keras-files]'"
        ) from error


@contextmanager
def named(path: str) -> Iterator[None]:
    """All that can be wrong with a file is a ValueError that begins with its path."""
    try:
        yield
    except ImportError:
        raise
    except DAMAGED as error:
        raise ValueError(f"{path}: the file is damaged: {type(error).__name__}: {error}") from error
    except ValueError as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: {error}") from error


class Hdf5:
    """An HDF5 file's groups and datasets by their paths, each of them inside the file and as large as it says."""

    def __init__(self, file: BinaryIO) -> None:
        h5py = h5py_module()
        self._links, self._size = (h5py.SoftLink, h5py.ExternalLink), file.seek(0, os.SEEK_END)
        self._stored = 0  # bytes of all datasets so far; no two share any
        file.seek(0)
        try:
            self.root = h5py.File(file, "r")
        except OSError as error:
            raise ValueError(f"no HDF5 file: {error}") from error
        self.groups: dict[str, Any] = {"": self.root}
        self.datasets: dict[str, Any] = {}
        seen, pending = {h5py.h5o.get_info(self.root.id).addr}, [("", self.root)]
        while pending:
            path, group = pending.pop()
            for name in group:
                # Files written on Windows may have backslashes in names.
                inner = f"{path}/{name}".replace("\\", "/").strip("/")
                link = group.get(name, getlink=True)
                if isinstance(link, self._links):
                    raise ValueError(f"`{inner}` is a link ({type(link).__name__}), which is refused")
                if len(seen) + len(self.datasets) > _MOST_OBJECTS:
                    raise ValueError(f"expected at most {_MOST_OBJECTS} groups and datasets")
                item = group[name]
                if isinstance(item, h5py.Dataset):
                    self._check(inner, item)
                    self.datasets[inner] = item
                elif isinstance(item, h5py.Group):
                    address = h5py.h5o.get_info(item.id).addr
                    if address in seen:
                        raise ValueError(f"`{inner}` is a group that stands elsewhere too, which is refused")
                    seen.add(address)
                    self.groups[inner] = item
                    pending.append((inner, item))

    def _check(self, path: str, dataset: Any) -> None:
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"`{path}`: its data lie outside the file, which is refused")
        if dataset.shape is None:
            raise ValueError(f"`{path}`: expected an array, got an empty dataset")
        if dataset.id.get_create_plist().get_nfilters():  # Keras packs nothing
            raise ValueError(f"`{path}`: expected data as they are, got packed ones")
        stored, shape = dataset.id.get_storage_size(), dataset.shape
        self._stored += stored
        claimed = max(math.prod(shape), math.prod(dataset.chunks or ())) * dataset.dtype.itemsize
        if self._stored > self._size or claimed > max(SMALL, stored):
            raise ValueError(
                f"`{path}`: shape {shape} claims {claimed} bytes; {stored} are stored in a file of {self._size} bytes"
            )

    def attribute(self, group: str, name: str) -> Any:
        """An attribute's value, None where there is none; only text is ever expected."""
        attributes = self.groups[group].attrs
        if name not in attributes:
            return None
        found = attributes.get_id(name)
        kind = found.dtype.kind
        if math.prod(found.shape or ()) * found.dtype.itemsize > max(SMALL, LARGEST_RATIO * self._size):
            raise ValueError(f"attribute `{name}` of `/{group}`: shape {found.shape} does not fit in the file")
        if 0 in (found.shape or ()):
            return []
        if kind != "S" and not (kind == "O" and h5py_module().check_string_dtype(found.dtype)):
            raise ValueError(f"attribute `{name}` of `/{group}`: expected text, got dtype {found.dtype}")
        return attributes[name]

    def dataset(self, path: str) -> Any:
        if path not in self.datasets:
            raise ValueError(f"`{path}` is listed, but not in the file")
        return self.datasets[path]

    def text(self, group: str, name: str) -> str | None:
        value = self.attribute(group, name)
        return None if value is None else _text(value, f"attribute `{name}` of `/{group}`")

    def texts(self, group: str, name: str) -> list[str] | None:
        """A list of strings; a long one stands in chunks `name0`, `name1` …"""
        whole = self.attribute(group, name)
        if whole is not None:
            return [_text(v, f"attribute `{name}` of `/{group}`") for v in whole]
        chunks: list[str] = []
        for i in range(_MOST_OBJECTS):
            chunk = self.attribute(group, f"{name}{i}")
            if chunk is None:
                return chunks if i else None
            chunks += [_text(v, f"attribute `{name}{i}` of `/{group}`") for v in chunk]
        raise ValueError(f"attribute `{name}` of `/{group}`: too many chunks")


def _text(value: Any, where: str) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected text, got {type(value).__name__}")
    return str(value)


def read_json(text: str | bytes | None, where: str) -> dict[str, Any]:
    try:
        return dict(check_mapping(json.loads(text or "{}"), where))
    except (json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: no JSON: {error}") from error


class Zip:
    """The members of a `.keras` file."""

    def __init__(self, file: BinaryIO) -> None:
        try:
            self._zip = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise ValueError(f"no zip file: {error}") from error
        self._members = Counter(self._zip.namelist())

    def read(self, name: str, most: float = math.inf) -> bytes:
        if self._members[name] != 1:
            raise ValueError(f"expected one member `{name}`, got {self._members[name]}: {sorted(self._members)[:8]}")
        info = self._zip.getinfo(name)
        packed = info.compress_size
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"member `{name}`: expected it stored or deflated, and not encrypted")
        if info.file_size > most or info.file_size > max(SMALL, LARGEST_RATIO * packed):
            raise ValueError(f"member `{name}` claims {info.file_size} bytes, of which {packed} are stored")
        with self._zip.open(info) as member:
            return member.read(info.file_size)


def new_hdf5(fill: Callable[[Any], None]) -> memoryview:
    """An HDF5 file with what `fill` puts into it."""
    content = io.BytesIO()
    with h5py_module().File(content, "w") as file:
        fill(file)
    return content.getbuffer()


def new_zip(members: Mapping[str, bytes | memoryview]) -> memoryview:
    """A zip file, its members stored as they are."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getbuffer()
