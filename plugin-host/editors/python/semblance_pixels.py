"""Pixels as plain bytes: whether they are opaque, what is selected of them, how that is kept.

For: every editor's plug-in. Not for: any editor's layers, nor colours, which the library knows.
"""

import base64
import struct
import zlib

BYTES = {"u8": 1, "u16": 2, "f16": 2, "f32": 4}
# Rows of about so many bytes are worked on at once where a copy is made.
BAND = 1 << 26


def opaque(data, samples, channels):
    """Whether the last channel is full everywhere."""
    full = {"u8": b"\xff", "u16": b"\xff\xff", "f16": struct.pack("<e", 1.0),
            "f32": struct.pack("<f", 1.0)}[samples]
    step = channels * len(full)
    count = len(data) // step
    return all(data[step - len(full) + at::step].count(value) == count
               for at, value in enumerate(full))


def coverage(source, left, width, rows):
    """The selection over these columns and rows of the layer, a byte a pixel; None without one.

    `source` has the layer's place (x, y) and the selection: its bytes `mask_bytes` and, on the
    canvas, `mask_at` (x, y, width, height, samples).
    """
    if source.mask_bytes is None:
        return None
    x, y, w, h, samples = source.mask_at
    if samples == "u8":
        cover = source.mask_bytes
    else:
        cover = bytes(round(max(0.0, min(1.0, v)) * 255)
                      for v in memoryview(bytes(source.mask_bytes)).cast("f"))
    x, y = x - source.x - left, y - source.y
    first, last = max(0, x), max(0, min(width, x + w))
    out = bytearray()
    for row in rows:
        line = bytearray(width)
        if y <= row < y + h and first < last:
            begin = (row - y) * w - x
            line[first:last] = cover[begin + first:begin + last]
        out += line
    return out


def only_selected(source, data):
    """`data` of the whole layer with zeros wherever the selection is 0."""
    size = len(data) // (source.width * source.height)
    line, whole = source.width * size, memoryview(data)
    rows = max(1, BAND // line)
    out = bytearray()
    for top in range(0, source.height, rows):
        part = range(top, min(source.height, top + rows))
        cover = coverage(source, 0, source.width, part).translate(b"\0" + b"\xff" * 255)
        wide = bytearray(len(cover) * size)
        for at in range(size):
            wide[at::size] = cover
        # One long number each: Python has no faster "and" of bytes.
        kept = (int.from_bytes(wide, "little")
                & int.from_bytes(whole[top * line:top * line + len(wide)], "little"))
        out += kept.to_bytes(len(wide), "little")
    return out


def packed(mask_bytes):
    """A selection's bytes as short text."""
    return base64.b64encode(zlib.compress(bytes(mask_bytes), 6)).decode()


def unpacked(text):
    """What `packed` was given; raises ValueError."""
    try:
        return bytearray(zlib.decompress(base64.b64decode(text)))
    except zlib.error as error:
        raise ValueError(str(error)) from None
