"""The C interface from a language that only knows how to call C: Python's ctypes, here. No seqcore module is imported.

python ctypes_client.py LIBRARY MODEL.safetensors < rows.txt
"""

import ctypes
import sys

FLOAT32 = 0


class StreamInfo(ctypes.Structure):
    _fields_ = [
        ("streams", ctypes.c_int64),
        ("takes_ids", ctypes.c_int),
        ("features", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("state_count", ctypes.c_int64),
    ]


def main(library: str, path: str) -> None:
    seqcore = ctypes.CDLL(library)
    seqcore.seqcore_last_error.restype = ctypes.c_char_p
    for name in ("create", "get_info", "step", "free"):
        getattr(seqcore, f"seqcore_stream_{name}").argtypes = {
            "create": [ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int, ctypes.c_void_p],
            "get_info": [ctypes.c_void_p, ctypes.c_void_p],
            "step": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t],
            "free": [ctypes.c_void_p],
        }[name]

    def call(name: str, *arguments: object) -> None:
        if getattr(seqcore, f"seqcore_{name}")(*arguments) != 0:
            sys.exit(seqcore.seqcore_last_error().decode())

    model, stream, info = ctypes.c_void_p(), ctypes.c_void_p(), StreamInfo()
    call("model_load", path.encode(), ctypes.byref(model))
    call("stream_create", model, FLOAT32, 1, 1, ctypes.byref(stream))
    call("stream_get_info", stream, ctypes.byref(info))
    x, y = (ctypes.c_float * info.features)(), (ctypes.c_float * info.outputs)()
    for line in sys.stdin:
        x[:] = [float(word) for word in line.split()]
        call("stream_step", stream, x, info.features, y, info.outputs)
        print(*(value.hex() for value in y))
    call("stream_free", stream)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
