"""The table that `model.summary()` prints: Keras's, drawn by tabulate, which is imported only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def size_text(params: int) -> str:
    """`18,948 (74.02 KB)`: numbers of float32."""
    size = float(params * 4)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            break
        size /= 1024
    return f"{params:,} ({size:.2f} {unit})"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str]) -> str:
    """The rows as Keras draws them: heavy lines around the head, light ones below."""
    from tabulate import DataRow, Line, TableFormat, tabulate

    style = TableFormat(
        lineabove=Line("┏", "━", "┳", "┓"),
        linebelowheader=Line("┡", "━", "╇", "┩"),
        linebetweenrows=Line("├", "─", "┼", "┤"),
        linebelow=Line("└", "─", "┴", "┘"),
        headerrow=DataRow("┃", "┃", "┃"),
        datarow=DataRow("│", "│", "│"),
        padding=1,
        with_header_hide=None,
    )
    return str(tabulate(rows, headers=headers, tablefmt=style, colalign=align, disable_numparse=True))


def print_summary(model: Any, line_length: int | None, print_fn: Callable[[str], Any] | None, show_trainable: bool,
                  layer_range: Sequence[str] | None) -> None:  # fmt: skip
    layers, shapes = model.layers, model.layer_shapes()
    shown = list(zip(layers, shapes, strict=True))
    if layer_range is not None:
        names = [layer.name for layer in layers]
        if len(layer_range) != 2 or any(n not in names for n in layer_range):
            raise ValueError(f"`layer_range`: expected the names of two layers, of {names}; got {list(layer_range)}")
        shown = shown[names.index(layer_range[0]) : names.index(layer_range[1]) + 1]
    # Keras's widths, for a line of 80; tabulate puts two more characters beside a head.
    widths = [round(w * (line_length or 80) / 80) - 2 for w in (31, 22, 13)]
    headers = ["Layer (type)".ljust(widths[0]), "Output Shape".ljust(widths[1]), "Param #".rjust(widths[2])]
    headers += ["Trainable"] if show_trainable else []
    rows = []
    for layer, shape in shown:
        params = f"{layer.count_params():,}" if layer.built else "0 (unbuilt)" if shape is None else "0"
        row = [f"{layer.name} ({type(layer).__name__})", "?" if shape is None else str(shape), params]
        rows.append([*row, *(["Y" if layer.trainable else "N"] if show_trainable else [])])
    write = print_fn or print
    write(f'Model: "{model.name}"')
    write(table(headers, rows, ("left", "left", "right", "center")[: len(headers)]))
    trainable = sum(_count(v) for v in model.trainable_weights)
    frozen = sum(_count(v) for v in model.non_trainable_weights)
    optimizer = model.count_optimizer_params()
    write(f" Total params: {size_text(trainable + frozen + optimizer)}")
    write(f" Trainable params: {size_text(trainable)}")
    write(f" Non-trainable params: {size_text(frozen)}")
    if optimizer:
        write(f" Optimizer params: {size_text(optimizer)}")


def _count(variable: Any) -> int:
    n = 1
    for size in variable.shape:
        n *= size
    return n
