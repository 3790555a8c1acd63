"""Streams of one seqcore model over HTTP: each client's session is a stream of its own. An ASGI application, made by
`create_app`; README.md tells how to run it.

What a session may be asked (binary: float32 values, or int32 ids, little-endian, in application/octet-stream):

    POST   /sessions             -> 201 {"id": …}
    POST   /sessions/{id}/step   {"x": row} -> {"y": row}, or binary -> binary
    POST   /sessions/{id}/run    {"x": rows} -> {"y": rows}, or binary -> binary
    GET    /sessions/{id}/state  -> binary
    PUT    /sessions/{id}/state  binary -> 204
    DELETE /sessions/{id}        -> 204
    GET    /model, /health

A session lives in the worker that made it: behind several workers, route by session, or take the state along. Errors
are JSON {"error": …}: 400 what does not fit the model, 404 no such session, 409 a session in use by another request,
413 too large, 503 too many sessions. In JSON, an output that is not finite is null.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from seqcore import models

BINARY = "application/octet-stream"
Stream = Any  # what `model.stream()` makes


@dataclass(frozen=True)
class Limits:
    """What bounds a process's memory, and how long one request may hold up the others."""

    sessions: int = 10_000
    idle_seconds: float = 600.0  # a session not used for so long is gone
    body_bytes: int = 1 << 20
    reply_bytes: int = 4 << 20  # of a block's outputs as float32
    inline_bytes: int = 4 << 20  # work that reads more weights, some 0.2 ms, is a thread's, not the event loop's

    @classmethod
    def from_environment(cls) -> Limits:
        """The defaults, or what SEQCORE_MAX_SESSIONS and SEQCORE_IDLE_SECONDS say."""
        return cls(
            sessions=int(os.environ.get("SEQCORE_MAX_SESSIONS", cls.sessions)),
            idle_seconds=float(os.environ.get("SEQCORE_IDLE_SECONDS", cls.idle_seconds)),
        )


class Sessions:
    """Streams by id, the longest unused first. Of one thread, the event loop's."""

    def __init__(self, first: Stream, limits: Limits, clock: Callable[[], float]) -> None:
        self._first, self._limits, self._clock = first, limits, clock
        self._streams: OrderedDict[str, tuple[Stream, float]] = OrderedDict()

    def __len__(self) -> int:
        self._expire()
        return len(self._streams)

    def create(self) -> str:
        if len(self) >= self._limits.sessions:
            message = f"there are {self._limits.sessions} sessions, no more are allowed"
            raise HTTPException(503, message, {"Retry-After": "1"})
        key = secrets.token_hex(16)
        self._streams[key] = (self._first.copy(), self._clock())  # shares the weights
        return key

    def get(self, key: str) -> Stream:
        self._expire()
        stream, _ = self._streams.get(key) or self._unknown(key)
        self._streams[key] = (stream, self._clock())
        self._streams.move_to_end(key)
        return stream

    def delete(self, key: str) -> None:
        self._expire()
        if self._streams.pop(key, None) is None:
            self._unknown(key)

    def _expire(self) -> None:
        oldest = self._clock() - self._limits.idle_seconds
        while self._streams and next(iter(self._streams.values()))[1] < oldest:
            self._streams.popitem(last=False)

    def _unknown(self, key: str) -> NoReturn:
        raise HTTPException(
            404, f"no session {key!r} in process {os.getpid()}: deleted, idle for too long, or another process's"
        )


def is_binary(request: Request) -> bool:
    """The form of a request, and so of its answer."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (BINARY, "application/json"):
        raise HTTPException(415, f"Content-Type: expected {BINARY} or application/json, got {kind!r}")
    return kind == BINARY


def refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


DECODER = json.JSONDecoder(parse_constant=refuse_constant)  # made once: that costs as much as to decode a row


def from_json(body: bytes) -> Any:
    try:
        value = DECODER.decode(body.decode())
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(value, dict) or list(value) != ["x"]:
        raise ValueError('expected a JSON object {"x": …}')
    return value["x"]


def from_binary(body: bytes, kind: str) -> Any:
    if len(body) % 4:
        raise ValueError(f"expected 4 bytes for each value, got {len(body)} bytes")
    return np.frombuffer(body, kind)


def reply(y: Any, binary: bool) -> Response:
    if binary:
        return Response(y.astype("<f4", copy=False).tobytes(), media_type=BINARY)
    values = y
    if not np.isfinite(y).all():
        values = y.astype(object)
        values[~np.isfinite(y)] = None
    return JSONResponse({"y": values.tolist()})


def answered(function: Callable[[], Response]) -> Response:
    """What the function gives; what seqcore refuses becomes the client's error in seqcore's words."""
    try:
        return function()
    except (ValueError, TypeError) as error:
        raise HTTPException(400, str(error)) from None
    except RuntimeError as error:  # in use by another request
        raise HTTPException(409, str(error)) from None


class Service:
    """The endpoints."""

    def __init__(self, path: str, precision: str, limits: Limits, clock: Callable[[], float]) -> None:
        model = models.load_model(path)
        first = model.stream(precision=precision)
        self.limits = limits
        self.sessions = Sessions(first, limits, clock)
        self.features, self.outputs, self.weight_bytes = first.features, first.outputs, first.weight_bytes
        self.kind = "<i4" if first.features is None else "<f4"
        self.state_sizes = [a.size for a in first.state]
        self.description = {
            "name": model.name,
            "input": "int32" if first.features is None else "float32",
            "features": first.features,
            "outputs": first.outputs,
            "precision": precision,
            "parameters": model.count_params(),
            "weight_bytes": first.weight_bytes,
            "state_bytes": 4 * sum(self.state_sizes),
        }

    async def model(self, request: Request) -> Response:
        return JSONResponse(self.description)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "sessions": len(self.sessions), "process": os.getpid()})

    async def create(self, request: Request) -> Response:
        key = self.sessions.create()
        return JSONResponse({"id": key}, 201, {"Location": f"/sessions/{key}"})

    async def delete(self, request: Request) -> Response:
        self.sessions.delete(request.path_params["id"])
        return Response(status_code=204)

    async def step(self, request: Request) -> Response:
        binary, body = is_binary(request), await self._body(request)
        stream = self.sessions.get(request.path_params["id"])

        def work() -> Response:
            x = from_binary(body, self.kind) if binary else from_json(body)
            if binary and self.features is None and x.size == 1:
                x = x[0]
            return reply(stream.step(x), binary)

        return await self._work(work, 1)

    async def run(self, request: Request) -> Response:
        binary, body = is_binary(request), await self._body(request)
        stream = self.sessions.get(request.path_params["id"])
        width = self.features or 1

        def work() -> Response:
            x = from_binary(body, self.kind) if binary else from_json(body)
            if binary and self.features:
                if x.size % width:
                    raise ValueError(f"expected rows of {width} values, got {x.size} values")
                x = x.reshape(-1, width)
            if isinstance(x, list | np.ndarray) and 4 * self.outputs * len(x) > self.limits.reply_bytes:
                most = self.limits.reply_bytes // (4 * self.outputs)
                raise HTTPException(413, f"expected at most {most} steps in a block, got {len(x)}")
            return reply(stream.run(x), binary)

        return await self._work(work, len(body) // (4 * width))

    async def get_state(self, request: Request) -> Response:
        stream = self.sessions.get(request.path_params["id"])
        return answered(lambda: reply(np.concatenate([*stream.state, np.empty(0, np.float32)]), True))

    async def put_state(self, request: Request) -> Response:
        if not is_binary(request):
            raise HTTPException(415, f"Content-Type: expected {BINARY}, as GET gives it")
        body = await self._body(request)
        stream = self.sessions.get(request.path_params["id"])

        def work() -> Response:
            values = from_binary(body, "<f4")
            if values.size != sum(self.state_sizes):
                raise ValueError(f"state: expected {sum(self.state_sizes)} values, got {values.size}")
            stream.state = np.split(values, np.cumsum(self.state_sizes)[:-1]) if self.state_sizes else []
            return Response(status_code=204)

        return answered(work)

    async def _body(self, request: Request) -> bytes:
        body, most = bytearray(), self.limits.body_bytes
        size = int(request.headers.get("content-length", 0))
        if size <= most:
            async for piece in request.stream():
                body += piece
                size = len(body)
                if size > most:
                    break
        if size > most:
            raise HTTPException(413, f"expected a body of at most {most} bytes, got {size} or more")
        return bytes(body)

    async def _work(self, work: Callable[[], Response], steps: int) -> Response:
        if steps * self.weight_bytes <= self.limits.inline_bytes:
            return answered(work)
        return await run_in_threadpool(answered, work)


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


def create_app(
    path: str | None = None,
    precision: str | None = None,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Starlette:
    """The application; what is not given comes from SEQCORE_MODEL, SEQCORE_PRECISION and `Limits.from_environment`."""
    path = path or os.environ.get("SEQCORE_MODEL")
    if not path:
        raise RuntimeError("SEQCORE_MODEL: expected the path of a .safetensors file that `model.save` wrote")
    precision = precision or os.environ.get("SEQCORE_PRECISION", "float32")
    service = Service(path, precision, limits or Limits.from_environment(), clock)
    return Starlette(
        routes=[
            Route("/sessions/{id}/step", service.step, methods=["POST"]),
            Route("/sessions/{id}/run", service.run, methods=["POST"]),
            Route("/sessions/{id}/state", service.get_state, methods=["GET"]),
            Route("/sessions/{id}/state", service.put_state, methods=["PUT"]),
            Route("/sessions/{id}", service.delete, methods=["DELETE"]),
            Route("/sessions", service.create, methods=["POST"]),
            Route("/model", service.model, methods=["GET"]),
            Route("/health", service.health, methods=["GET"]),
        ],
        exception_handlers={HTTPException: on_http_error, ClientDisconnect: on_disconnect},
    )
