"""The preview: the result itself, at the size shown, with zoom and a before/after line.

For: Qt 5. Not for: models; it renders what it is handed. `draw` may run on any thread (it makes
images, not pixmaps), all else on the main one.
"""

import array
import struct
from functools import lru_cache

from PyQt5.QtCore import QByteArray, QRectF, QSize, Qt
from PyQt5.QtGui import QBrush, QColor, QImage, QPainter
from PyQt5.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

import semblance
import semblance_view as places
from semblance_pixels import coverage

try:
    from PyQt5.QtGui import QColorSpace
except ImportError:  # Qt before 5.14 shows wide-gamut numbers as they are
    QColorSpace = None


class Picture:
    """What is seen of the layer: before, after and where."""

    def __init__(self, view, before, after):
        self.view, self.before, self.after = view, before, after


class Preview(QWidget):
    """Shows `source` (semblance_nodes.Source) and calls `moved` when another part is to be drawn."""

    def __init__(self, moved):
        super().__init__()
        self.moved, self.source, self.picture, self.copy = moved, None, None, None
        self.zoom, self.center = None, (0.5, 0.5)
        self.canvas = _Canvas(self)
        self.zooms = QComboBox()
        self.zooms.addItems([name for name, _ in places.ZOOMS])
        self.zooms.setToolTip("At 100 % and more, drag the picture to move it")
        self.zooms.activated.connect(self._zoomed)
        self.both = QCheckBox("&Before | after")
        self.both.setToolTip("Left of the line as it was; drag the line")
        self.both.toggled.connect(lambda *_: self.canvas.update())
        bar = QHBoxLayout()
        label = QLabel("&Zoom")
        label.setBuddy(self.zooms)
        bar.addWidget(label)
        bar.addWidget(self.zooms)
        bar.addStretch()
        bar.addWidget(self.both)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.canvas, 1)
        column.addLayout(bar)

    def set_source(self, source):
        """Another picture."""
        self.source, self.copy = source, None
        self.show_picture(self.draw(None))

    def draw(self, result):
        """The part that is seen, with `result` applied (None: as it was)."""
        source, view = self.source, self.view()
        copy = self.copy
        if copy is None or copy[:2] != (source, view):
            copy = self.copy = source, view, *_copy(source, view)
        before, size, mask = copy[2:]
        after = before
        if result is not None:
            after = bytearray(before)
            src, dst = (semblance.pixels(data, *size, "u8", "bgra", "straight")
                        for data in (bytearray(before), after))
            mask = mask and semblance.mask(mask, *size)
            result.render_reduced(semblance.Rect(*view[:4]), src, dst, mask)
        shown = QSize(*places.shown(view))
        return Picture(view, *(
            _image(data, *size).scaled(shown, Qt.IgnoreAspectRatio, Qt.SmoothTransformation)
            for data in (before, after)))

    def show_picture(self, picture):
        if picture is not None and picture is not self.picture:
            self.picture = picture
            self.canvas.update()

    def view(self):
        return places.part(self.source.width, self.source.height, self.zoom, self.center)

    def _zoomed(self, index):
        self.zoom = places.ZOOMS[index][1]
        self.moved()


class _Canvas(QWidget):
    """Paints the picture and takes hold of it, or of the line."""

    def __init__(self, preview):
        super().__init__()
        self.preview, self.split, self.drag = preview, 0.5, None
        self.setMinimumSize(places.WIDTH, places.HEIGHT)

    def _corner(self):
        after = self.preview.picture.after
        return (self.width() - after.width()) // 2, (self.height() - after.height()) // 2

    def paintEvent(self, _):
        picture = self.preview.picture
        if picture is None:
            return
        painter = QPainter(self)
        left, top = self._corner()
        width, height = picture.after.width(), picture.after.height()
        painter.fillRect(left, top, width, height, QColor(0x99, 0x99, 0x99))
        painter.fillRect(left, top, width, height, QBrush(QColor(0x66, 0x66, 0x66), Qt.Dense4Pattern))
        painter.drawImage(left, top, picture.after)
        if self.preview.both.isChecked():
            x = max(1, min(width - 1, round(width * self.split)))
            painter.setClipRect(left, top, x, height)
            painter.fillRect(left, top, x, height, QColor(0x99, 0x99, 0x99))
            painter.fillRect(left, top, x, height, QBrush(QColor(0x66, 0x66, 0x66), Qt.Dense4Pattern))
            painter.drawImage(left, top, picture.before)
            painter.fillRect(QRectF(left + x - 1, top, 1, height), Qt.white)
        painter.end()

    def _place(self, event):
        """Where the pointer is, as a part of the picture's width."""
        return (event.x() - self._corner()[0]) / self.preview.picture.after.width()

    def mousePressEvent(self, event):
        picture = self.preview.picture
        if picture is None:
            return
        near = abs(self._place(event) - self.split) * picture.after.width() < places.REACH
        line = self.preview.both.isChecked() and (near or self.preview.zoom is None)
        self.drag = "line" if line else (event.x(), event.y(), self.preview.center)

    def mouseMoveEvent(self, event):
        preview = self.preview
        if self.drag == "line":
            self.split = max(0.0, min(1.0, self._place(event)))
            self.update()
        elif self.drag is not None and preview.zoom is not None:
            x, y, center = self.drag
            preview.center = places.dragged(center, (event.x() - x, event.y() - y), preview.view(),
                                            preview.source.width, preview.source.height)

    def mouseReleaseEvent(self, _):
        if self.drag not in (None, "line") and self.preview.zoom is not None:
            self.preview.moved()
        self.drag = None


def _copy(source, view):
    """The part's pixels, at the size shown or, enlarged, their own; that size; their mask."""
    left, width = view[0], view[2]
    rows, size = places.sampled(view)
    image = _image(_eight_bits(source, left, width, rows), width, len(rows))
    if source.icc and QColorSpace is not None:
        space = QColorSpace.fromIccProfile(QByteArray(source.icc))
        if space.isValid():
            image.setColorSpace(space)
            image.convertToColorSpace(QColorSpace(QColorSpace.SRgb))
    mask = coverage(source, left, width, rows)
    if (width, len(rows)) != size:
        image = image.scaled(*size, Qt.IgnoreAspectRatio, Qt.SmoothTransformation)
        if mask is not None:
            gray = QImage(bytes(mask), width, len(rows), width, QImage.Format_Grayscale8)
            gray = gray.convertToFormat(QImage.Format_ARGB32).scaled(
                *size, Qt.IgnoreAspectRatio, Qt.SmoothTransformation)
            mask = bytearray(_bytes(gray)[::4])
    return _bytes(image), size, mask


def _image(data, width, height):
    """An image of its own from BGRA bytes."""
    return QImage(bytes(data), width, height, width * 4, QImage.Format_ARGB32).copy()


def _bytes(image):
    image = image.convertToFormat(QImage.Format_ARGB32)
    return image.constBits().asstring(image.width() * image.height() * 4)


def _eight_bits(source, left, width, rows):
    """These columns and rows as BGRA bytes to be looked at."""
    size, whole = source.size, memoryview(source.bytes)
    data = b"".join(whole[(y * source.width + left) * size:][:width * size] for y in rows)
    linear = source.curve == "linear_srgb" and source.icc is None
    step = source.channels
    if source.samples == "u8":
        colors, alpha = data.translate(_table("u8", linear)), data[step - 1::step]
    elif source.samples == "u16" and not linear:
        colors = data[1::2]
        alpha = colors[step - 1::step]
    else:
        halves = array.array("H", data)
        if source.samples == "f32":
            halves = halves[1::2]  # the upper halves of floats are floats too, exact enough to see
        kind = {"f32": "bf16"}.get(source.samples, source.samples)
        colors = bytes(map(_table(kind, linear).__getitem__, halves))
        alpha = bytes(map(_table(kind, False).__getitem__, halves[step - 1::step]))
    if source.order == "bgra":
        order = 0, 1, 2
    else:
        order = (0, 0, 0) if source.gray else (2, 1, 0)
    out = bytearray(4 * width * len(rows))
    for at, channel in enumerate(order):
        out[at::4] = colors[channel::step]
    out[3::4] = alpha
    return out


@lru_cache(maxsize=None)
def _table(kind, linear):
    """A byte for each number of a sample's bits, along sRGB's curve where they are linear light."""
    if kind == "u8":
        values = [at / 255 for at in range(256)]
    elif kind == "u16":
        values = [at / 65535 for at in range(65536)]
    elif kind == "f16":
        values = struct.unpack("<65536e", struct.pack("<65536H", *range(65536)))
    else:
        values = struct.unpack("<65536f", b"".join(b"\0\0" + at.to_bytes(2, "little")
                                                   for at in range(65536)))
    return bytes(map(_seen if linear else _byte, values))


def _byte(value):
    return 255 if value >= 1 else round(value * 255) if value > 0 else 0


def _seen(value):
    """Linear light to a byte."""
    if not 0 < value < 1:
        return _byte(value)
    return _byte(12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055)
