"""Names of layers and models: `lstm`, `lstm_1`, … counted per process, as Keras does. Private."""

from __future__ import annotations

from collections import Counter

_used: Counter[str] = Counter()


def unique_name(base: str) -> str:
    """`base`, then `base_1`, `base_2` …"""
    n = _used[base]
    _used[base] += 1
    return f"{base}_{n}" if n else base


def clear_session(free_memory: bool = True) -> None:
    """Starts the automatic names of layers and models anew.

    Args:
        free_memory: accepted as Keras's; seqcore keeps nothing that could be freed.
    """
    _used.clear()
