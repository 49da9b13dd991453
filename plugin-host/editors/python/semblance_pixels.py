"""Pixels as plain bytes: whether they are opaque, what is selected of them, how that is kept.

For: every editor's plug-in. Not for: any editor's layers, nor colours, which the library knows.
"""

import base64
import struct
import zlib

import semblance

BYTES = {"u8": 1, "u16": 2, "f16": 2, "f32": 4}
# Rows of about so many bytes are worked on at once where a copy is made.
BAND = 1 << 26


class Taken:
    """Pixels that a plug-in took from a layer, and what was selected: what every editor does with them.

    An editor's own class has `bytes` and `pixels(data)`, which describes such bytes for the library; the
    layer's place (x, y) and size; the selection's `mask_bytes` (None without one) and, on the canvas,
    `mask_at` (x, y, width, height, samples).
    """

    @property
    def mask(self):
        """The selection in the layer's coordinates, for the library; None without one."""
        if self.mask_bytes is None:
            return None
        x, y, width, height, samples = self.mask_at
        return semblance.mask(self.mask_bytes, width, height, samples, x - self.x, y - self.y)

    def render(self, result):
        """The result's bytes, and what it changed."""
        out = bytearray(len(self.bytes))
        tally = result.render(self.pixels(), self.pixels(out), self.mask)
        return out, tally


def opaque(data, samples, channels):
    """Whether the last channel is full everywhere."""
    full = {"u8": b"\xff", "u16": b"\xff\xff", "f16": struct.pack("<e", 1.0),
            "f32": struct.pack("<f", 1.0)}[samples]
    step = channels * len(full)
    count = len(data) // step
    return all(data[step - len(full) + at::step].count(value) == count
               for at, value in enumerate(full))


def coverage(source, left, width, rows):
    """What is selected of these columns and rows of a `Taken`, a byte a pixel; None without a selection."""
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
