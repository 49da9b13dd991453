"""The preview: the result itself, at the size shown, with zoom and a before/after line.

For: GTK 3. Not for: models; it renders what it is handed. `draw` may run on any thread, all else on
the main one. Drawing goes through GdkPixbuf, so that no cairo module for Python is needed.
"""

import gi

gi.require_version("Gdk", "3.0")
gi.require_version("Gtk", "3.0")
gi.require_version("Gegl", "0.4")
from gi.repository import GdkPixbuf, Gegl, GLib, Gdk, Gtk  # noqa: E402

import semblance  # noqa: E402
import semblance_view as places  # noqa: E402
from semblance_pixels import coverage  # noqa: E402


class Picture:
    """What is seen of the layer: before, after and where."""

    def __init__(self, view, before, after):
        self.view, self.before, self.after = view, before, after


class Preview(Gtk.Box):
    """Shows `source` (semblance_layers.Source) and calls `moved` when another part is to be drawn."""

    def __init__(self, moved):
        super().__init__(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        self.moved, self.source, self.shown, self.picture = moved, None, None, None
        self.copy = None
        self.zoom, self.center, self.split, self.drag = None, (0.5, 0.5), 0.5, None

        self.image = Gtk.Image()
        self.image.set_size_request(places.WIDTH, places.HEIGHT)
        box = Gtk.EventBox()
        box.add(self.image)
        box.add_events(Gdk.EventMask.BUTTON_PRESS_MASK | Gdk.EventMask.BUTTON_RELEASE_MASK
                       | Gdk.EventMask.POINTER_MOTION_MASK)
        box.connect("button-press-event", self._press)
        box.connect("motion-notify-event", self._motion)
        box.connect("button-release-event", self._release)
        self.pack_start(box, True, True, 0)

        bar = Gtk.Box(spacing=6)
        self.zooms = Gtk.ComboBoxText()
        for name, _ in places.ZOOMS:
            self.zooms.append_text(name)
        self.zooms.set_active(0)
        self.zooms.set_tooltip_text("At 100 % and more, drag the picture to move it")
        self.zooms.connect("changed", self._zoomed)
        label = Gtk.Label.new_with_mnemonic("_Zoom")
        label.set_mnemonic_widget(self.zooms)
        bar.pack_start(label, False, False, 0)
        bar.pack_start(self.zooms, False, False, 0)
        self.both = Gtk.CheckButton.new_with_mnemonic("_Before | after")
        self.both.set_tooltip_text("Left of the line as it was; drag the line")
        self.both.connect("toggled", lambda *_: self._compose())
        bar.pack_end(self.both, False, False, 0)
        self.pack_start(bar, False, False, 0)

    def set_source(self, source):
        """Another picture. Read here, in the main thread, once."""
        self.source, self.copy = source, None
        self.shown = bytearray(source.buffer.get(source.rect(), 1.0, "R'G'B'A u8",
                                                 Gegl.AbyssPolicy.NONE))
        self.show_picture(self.draw(None))

    def draw(self, result):
        """The part that is seen, with `result` applied (None: as it was)."""
        view = self._view()
        copy = self.copy
        if copy is None or copy[0] != view:
            copy = self.copy = view, *self._copy(view)
        _, before, size, mask = copy
        after = before
        if result is not None:
            after = bytearray(before)
            src, dst = (semblance.pixels(data, *size, "u8", "rgba", "straight")
                        for data in (bytearray(before), after))
            mask = mask and semblance.mask(mask, *size)
            result.render_reduced(semblance.Rect(*view[:4]), src, dst, mask)
        shown = places.shown(view)
        return Picture(view, *(_on_screen(_pixbuf(data, *size), shown, self.source.has_alpha)
                               for data in (before, after)))

    def _copy(self, view):
        """The part's pixels, at the size shown or, enlarged, their own; that size; their mask."""
        left, width = view[0], view[2]
        rows, size = places.sampled(view)
        line, whole = width * 4, memoryview(self.shown)
        data = b"".join(whole[(y * self.source.width + left) * 4:][:line] for y in rows)
        mask = coverage(self.source, left, width, rows)
        if view[4] >= 1:
            return data, size, mask
        data = _reduced(data, width, len(rows), size)
        if mask is not None:
            mask = bytearray(4 * len(mask)), mask
            for channel in range(4):
                mask[0][channel::4] = mask[1] if channel < 3 else b"\xff" * len(mask[1])
            mask = bytearray(_reduced(bytes(mask[0]), width, len(rows), size)[::4])
        return data, size, mask

    def show_picture(self, picture):
        if picture is not None and picture is not self.picture:
            self.picture = picture
            self._compose()

    def _view(self):
        return places.part(self.source.width, self.source.height, self.zoom, self.center)

    def _compose(self):
        if self.picture is None:
            return
        after = self.picture.after
        if self.both.get_active():
            after = after.copy()
            width, height = after.get_width(), after.get_height()
            x = max(1, min(width - 1, round(width * self.split)))
            self.picture.before.copy_area(0, 0, x, height, after, 0, 0)
            after.new_subpixbuf(x - 1, 0, 1, height).fill(0xFFFFFFFF)
        self.image.set_from_pixbuf(after)

    def _zoomed(self, zooms):
        self.zoom = places.ZOOMS[zooms.get_active()][1]
        self.moved()

    def _place(self, event):
        """Where the pointer is, as a part of the picture's width."""
        width = self.picture.after.get_width()
        return (event.x - (self.image.get_allocated_width() - width) / 2) / width

    def _press(self, _, event):
        if self.picture is None:
            return
        near = abs(self._place(event) - self.split) * self.picture.after.get_width() < places.REACH
        line = self.both.get_active() and (near or self.zoom is None)
        self.drag = "line" if line else (event.x, event.y, self.center)

    def _motion(self, _, event):
        if self.drag == "line":
            self.split = max(0.0, min(1.0, self._place(event)))
            self._compose()
        elif self.drag is not None and self.zoom is not None:
            x, y, center = self.drag
            self.center = places.dragged(center, (event.x - x, event.y - y), self._view(),
                                         self.source.width, self.source.height)

    def _release(self, *_):
        if self.drag not in (None, "line") and self.zoom is not None:
            self.moved()
        self.drag = None


def _pixbuf(data, width, height):
    return GdkPixbuf.Pixbuf.new_from_bytes(GLib.Bytes.new(bytes(data)), GdkPixbuf.Colorspace.RGB,
                                           True, 8, width, height, width * 4)


def _on_screen(pixbuf, size, has_alpha):
    """As it is on the screen, over squares where it is not opaque."""
    if has_alpha:
        return pixbuf.composite_color_simple(*size, GdkPixbuf.InterpType.BILINEAR, 255, 8, 0x999999,
                                             0x666666)
    # Left as it is where it can be: compositing makes it darker by one.
    if (pixbuf.get_width(), pixbuf.get_height()) == size:
        return pixbuf
    return pixbuf.scale_simple(*size, GdkPixbuf.InterpType.BILINEAR)


def _reduced(data, width, height, size):
    """RGBA bytes at another size."""
    return _pixbuf(data, width, height).scale_simple(
        *size, GdkPixbuf.InterpType.BILINEAR).read_pixel_bytes().get_data()
