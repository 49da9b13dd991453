"""GIMP's layers as the library sees them, and its results as GIMP's layers.

For: pixels, selection, profile, names, the recipe that a layer carries. Not for: windows, models.
Everything here talks to GIMP and is called from the main thread.
"""

import json
import struct

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
from gi.repository import Gegl, Gimp  # noqa: E402

import semblance  # noqa: E402
import semblance_pixels as pixels  # noqa: E402
import semblance_words as words  # noqa: E402

RECIPE, SELECTION = "semblance-recipe", "semblance-selection"

# What GIMP's precisions store (None: the library has no such samples) and along which curve.
_SAMPLES = {"U8": "u8", "U16": "u16", "U32": None, "HALF": "f16", "FLOAT": "f32", "DOUBLE": None}
_CURVES = ("NON_LINEAR", "LINEAR", "PERCEPTUAL")
_PRECISIONS = {getattr(Gimp.Precision, f"{samples}_{curve}"): (stored, curve)
               for samples, stored in _SAMPLES.items() for curve in _CURVES}


class Refused(Exception):
    """The layer or image is of a kind that cannot be edited; the text says what to do."""


def check(image, drawables):
    """The one layer among `drawables`; raises Refused."""
    layers = [d for d in drawables if isinstance(d, Gimp.Layer)]
    if len(drawables) != 1:
        raise Refused(f"{len(drawables)} layers are selected: must be 1 (select one layer)")
    if not layers:
        raise Refused(f"“{drawables[0].get_name()}” is not a layer: must be one "
                      "(click the layer beside its mask or channel)")
    if image.get_base_type() == Gimp.ImageBaseType.INDEXED:
        raise Refused("the image is indexed: must be RGB or grey, for an edit needs colours that no "
                      "palette has (Image ▸ Mode ▸ RGB)")
    return layers[0]


class Source(pixels.Taken):
    """The pixels of a layer, or of all that is visible (but `hidden`), read once.

    `pixels()` describes them in the layer's own format; `mask` is the selection in the layer's
    coordinates, or `selection` (coverage, place) where nothing is selected, or None.
    """

    def __init__(self, image, layer, visible=False, selection=None, hidden=None):
        self.image, self.layer, self.visible = image, layer, visible
        drawable = layer
        if visible:
            drawable = _all_visible(image, hidden)
        self.width, self.height = drawable.get_width(), drawable.get_height()
        self.x, self.y = (0, 0) if visible else layer.get_offsets()[1:]
        self.gray = image.get_base_type() == Gimp.ImageBaseType.GRAY
        self.has_alpha = drawable.has_alpha()
        stored, self.curve = _PRECISIONS[image.get_precision()]
        self.native = stored is not None
        self.samples = stored or "f32"
        self.drawable, self.buffer = drawable, drawable.get_buffer()
        rect = self.rect()
        self.bytes = bytearray(self.buffer.get(
            rect, 1.0, None if self.native else self.format(), Gegl.AbyssPolicy.NONE))
        self.icc = self._profile()
        self.mask_bytes, self.mask_at = self._selection()
        if self.mask_bytes is None and selection is not None:
            self.mask_bytes, self.mask_at = selection

    def rect(self):
        return Gegl.Rectangle.new(0, 0, self.width, self.height)

    def format(self, samples=None):
        """The babl name of this kind of pixels."""
        mark = {"NON_LINEAR": "'", "LINEAR": "", "PERCEPTUAL": "~"}[self.curve]
        letters = "Y" if self.gray else "RGB"
        name = "".join(letter + mark for letter in letters) + ("A" if self.has_alpha else "")
        return name + {"u8": " u8", "u16": " u16", "f16": " half", "f32": " float"}[
            samples or self.samples]

    def kind(self):
        """The type of a layer for these pixels."""
        if self.gray:
            return Gimp.ImageType.GRAYA_IMAGE if self.has_alpha else Gimp.ImageType.GRAY_IMAGE
        return Gimp.ImageType.RGBA_IMAGE if self.has_alpha else Gimp.ImageType.RGB_IMAGE

    def pixels(self, data=None):
        """Describes `data` (its own bytes where left out) for the library."""
        order = ("gray" if self.gray else "rgb") + (
            ("_alpha" if self.gray else "a") if self.has_alpha else "")
        return semblance.pixels(
            self.bytes if data is None else data, self.width, self.height, self.samples, order,
            "straight" if self.has_alpha else None,
            "linear_srgb" if self.curve == "LINEAR" else "srgb", icc=self.icc)

    def is_plain(self):
        """Whether a full copy above the layer looks as the copy alone."""
        layer = self.layer
        if self.visible:
            return True
        if layer.get_opacity() < 100 or layer.get_mask() is not None or layer.is_group():
            return False
        if layer.get_mode() not in (Gimp.LayerMode.NORMAL, Gimp.LayerMode.NORMAL_LEGACY):
            return False
        if not self.has_alpha:
            return True
        return pixels.opaque(self.bytes, self.samples, 2 if self.gray else 4)

    def _profile(self):
        """The profile of these numbers, or None where they are sRGB or linear sRGB."""
        profile = self.image.get_color_profile()
        # What was read under a format's name was converted from the profile.
        if profile is None or not self.native:
            return None
        if self.curve == "LINEAR" and not profile.is_linear():
            profile = profile.new_linear_from_color_profile()
        elif self.curve == "PERCEPTUAL":
            profile = profile.new_srgb_trc_from_color_profile()
        return bytes(profile.get_icc_profile()) if profile is not None else None

    def _selection(self):
        """The selection's coverage and place on the canvas; (None, None) where nothing is selected."""
        _, some, left, top, right, bottom = Gimp.Selection.bounds(self.image)
        if not some:
            return None, None
        width, height = right - left, bottom - top
        precision = self.image.get_precision()
        samples = "u8" if _PRECISIONS[precision][0] == "u8" else "f32"
        data = self.image.get_selection().get_buffer().get(
            Gegl.Rectangle.new(left, top, width, height), 1.0,
            "Y u8" if samples == "u8" else "Y float", Gegl.AbyssPolicy.NONE)
        return bytearray(data), (left, top, width, height, samples)


def _all_visible(image, hidden):
    """A layer outside the image with what is seen of it, `hidden` left out."""
    if hidden is None or not hidden.get_visible():
        return Gimp.Layer.new_from_visible(image, image, "visible")
    image.undo_freeze()
    try:
        hidden.set_visible(False)
        return Gimp.Layer.new_from_visible(image, image, "visible")
    finally:
        hidden.set_visible(True)
        image.undo_thaw()


def memory(layer):
    """What a layer carries, or None: (recipe, its source layer or None, visible, selection or None, the
    folder of its model, "" for the embedded one, None where it is not said)."""
    parasite = layer.get_parasite(RECIPE)
    if parasite is None:
        return None
    try:
        kept = json.loads(bytes(parasite.get_data()).decode())
        recipe, visible = kept["recipe"], kept["source"] == "visible"
        tattoo, model = int(kept["layer"]), kept.get("model")
    except (ValueError, KeyError, TypeError):
        return None
    recipe.pop(words.STAMP, None)
    selection = None
    parasite = layer.get_parasite(SELECTION)
    if parasite is not None:
        head, _, packed = bytes(parasite.get_data()).partition(b"\n")
        x, y, width, height, samples = head.decode().split()
        place = int(x), int(y), int(width), int(height), samples
        selection = pixels.unpacked(packed), place
    return recipe, layer.get_image().get_layer_by_tattoo(tattoo), visible, selection, model


def add(source, data, recipe, model, replaces=None):
    """Puts a result of the model in a folder into the image as one undo step; returns the new layer.

    It lies above its source, or in the place of `replaces`. A full copy above a layer that is not
    opaque would blend twice: then the original is hidden. Else, with a selection, a layer mask
    shows the new layer only where something was selected.
    """
    image, layer = source.image, source.layer
    plain = source.is_plain()
    new = _layer(source, data)
    image.undo_group_start()
    try:
        new.set_name(words.title(recipe) or "Semblance")
        over = replaces or layer
        if source.visible and replaces is None:
            image.insert_layer(new, None, 0)
        else:
            image.insert_layer(new, over.get_parent(), image.get_item_position(over))
        if source.mask_bytes is not None and plain:
            _show_only_selected(new, source)
        new.update(0, 0, source.width, source.height)
        _remember(new, recipe, source, model)
        new.set_visible(True)
        if replaces is not None:
            image.remove_layer(replaces)
        if not plain:
            layer.set_visible(False)
        image.set_selected_layers([new])
        if new.get_mask() is not None:
            new.set_edit_mask(False)  # the next edit is of the layer, not of its mask
    except Exception:
        if new.is_attached_to_image():  # half a result is none
            image.remove_layer(new)
        raise
    finally:
        image.undo_group_end()
    return new


def _layer(source, data):
    """A layer with these pixels and, of the source, place, opacity, mode and mask."""
    image, layer = source.image, source.layer
    # A copy of these would stay a text or a group, drawn anew over our pixels.
    alive = layer.is_group() or isinstance(layer, Gimp.TextLayer)
    if source.visible:
        new = source.drawable
    elif not alive:
        new = layer.copy()
    else:
        new = Gimp.Layer.new(image, "", source.width, source.height, source.kind(),
                             layer.get_opacity(), layer.get_mode())
        new.set_offsets(source.x, source.y)
    new.set_lock_content(False)  # GIMP ends a plug-in that writes into a locked layer
    buffer = new.get_buffer()
    if source.icc is not None:
        _write_raw(buffer, source, data)
    elif source.native:
        buffer.set(source.rect(), source.format(), bytes(data))
    else:
        _write_changed(buffer, source, data)
    buffer.flush()
    return new


def _write_raw(buffer, source, data):
    """Writes the numbers as they are into a layer of an image with a profile.

    Python can name a format only without a profile, and GEGL would convert from sRGB. So the numbers
    go into an image without one, which then takes the profile on: that changes no number.
    """
    image = source.image
    other = Gimp.Image.new_with_precision(source.width, source.height, image.get_base_type(),
                                          image.get_precision())
    other.undo_disable()
    layer = Gimp.Layer.new(other, "", source.width, source.height, source.kind(), 100,
                           Gimp.LayerMode.NORMAL)
    other.insert_layer(layer, None, 0)
    raw = layer.get_buffer()
    raw.set(source.rect(), source.format(), bytes(data))
    raw.flush()
    other.set_color_profile(image.get_color_profile())
    rect = source.rect()
    layer.get_buffer().copy(rect, Gegl.AbyssPolicy.NONE, buffer, rect)
    buffer.flush()
    other.delete()


def _write_changed(buffer, source, data):
    """Writes only the runs of pixels that changed: floats hold less than 32-bit integers do."""
    size = len(source.bytes) // (source.width * source.height)
    line, name = source.width * size, source.format()
    for y in range(source.height):
        old, new = source.bytes[y * line:(y + 1) * line], data[y * line:(y + 1) * line]
        if old == new:
            continue
        x = 0
        while x < source.width:
            if old[x * size:(x + 1) * size] == new[x * size:(x + 1) * size]:
                x += 1
                continue
            start = x
            while x < source.width and old[x * size:(x + 1) * size] != new[x * size:(x + 1) * size]:
                x += 1
            buffer.set(Gegl.Rectangle.new(start, y, x - start, 1), name,
                       bytes(new[start * size:x * size]))


def _show_only_selected(new, source):
    """A layer mask: white wherever the selection is not 0, so that the pixels' own blend shows."""
    x, y, width, height, samples = source.mask_at
    if samples == "u8":
        cover = source.mask_bytes.translate(bytes([0]) + b"\xff" * 255)
    else:
        cover = bytearray(255 if v > 0 else 0 for (v,) in struct.iter_unpack("f", source.mask_bytes))
    mask = new.create_mask(Gimp.AddMaskType.BLACK)
    new.add_mask(mask)
    buffer = mask.get_buffer()
    left, top = max(x, source.x), max(y, source.y)
    right = min(x + width, source.x + source.width)
    bottom = min(y + height, source.y + source.height)
    rows = b"".join(cover[(row - y) * width + left - x:(row - y) * width + right - x]
                    for row in range(top, bottom))
    buffer.set(Gegl.Rectangle.new(left - source.x, top - source.y, right - left, bottom - top),
               "Y u8", bytes(rows))
    buffer.flush()
    mask.update(0, 0, source.width, source.height)


def _remember(new, recipe, source, model):
    """Keeps the recipe, its model, where its pixels came from and what was selected, with the layer."""
    kept = {"recipe": recipe, "source": "visible" if source.visible else "layer",
            "layer": source.layer.get_tattoo(), "model": model}
    flags = 1 | 2  # persistent (saved with the file) and undoable
    # ASCII only: Python hands bytes above 127 to GIMP as numbers out of range.
    new.attach_parasite(Gimp.Parasite.new(RECIPE, flags, json.dumps(kept).encode("ascii")))
    new.detach_parasite(SELECTION)
    if source.mask_bytes is not None:
        head = " ".join(map(str, source.mask_at)).encode() + b"\n"
        packed = pixels.packed(source.mask_bytes).encode()
        new.attach_parasite(Gimp.Parasite.new(SELECTION, flags, head + packed))
