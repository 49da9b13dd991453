"""Krita's layers as the library sees them, and its results as Krita's layers.

For: pixels, selection, profile, names, the recipe that a layer carries. Not for: windows, models.
Everything here talks to Krita and is called from the main thread.
"""

import json
import os
import tempfile
import zipfile

from krita import InfoObject, Krita
from PyQt5.QtCore import QByteArray

import semblance
import semblance_pixels as bytewise
import semblance_words as words

# The document's annotation of a layer; its uuid is appended.
KEY = "semblance/"

_SAMPLES = {"U8": "u8", "U16": "u16", "F16": "f16", "F32": "f32"}
_MODELS = {"RGBA": 4, "GRAYA": 2}
# Layers whose look can be read though nobody can paint on them.
_DRAWN = ("grouplayer", "vectorlayer", "filelayer", "clonelayer", "filllayer")
# What Krita gives pictures without a profile, and new ones: sRGB, or its primaries in linear light.
_CURVES = {"sRGB-elle-V2-srgbtrc.icc": "srgb", "sRGB-elle-V2-g10.icc": "linear_srgb",
           "sRGB built-in": "srgb", "Gray-D50-elle-V2-srgbtrc.icc": "srgb",
           "Gray-D50-elle-V2-g10.icc": "linear_srgb"}


class Refused(Exception):
    """The layer or picture is of a kind that cannot be edited; the text says what to do."""


def check(document, node=None):
    """`node`, or the active one, if it can be edited; raises Refused."""
    node = node or document.activeNode()
    if node is None:
        raise Refused("no layer is selected: must be 1 (click one in the layers docker)")
    kind, name = node.type(), node.name()
    if kind != "paintlayer" and kind not in _DRAWN:
        raise Refused(f"“{name}” is a {_in_words(kind)}: must be a layer with pixels "
                      "(click the layer itself, or choose the visible picture on another)")
    if kind == "grouplayer" and node.passThroughMode():
        raise Refused(f"“{name}” passes through: must be a group with a picture of its own "
                      "(turn off Pass Through, or choose the visible picture)")
    if node.animated():
        raise Refused(f"“{name}” is animated: must be one still picture "
                      "(copy the frame into a layer: Layer ▸ Copy, Paste)")
    return node


def _in_words(kind):
    for end in ("layer", "mask"):
        if kind.endswith(end):
            return f"{kind[:-len(end)]} {end}"
    return kind or "thing without a name"


class Source(bytewise.Taken):
    """The pixels of a layer, or of all that is visible (but `hidden`), read once.

    `pixels()` describes them in the layer's own format; `mask` is the selection in the layer's
    coordinates, or `selection` (coverage, place) where nothing is selected, or None. `warning` says
    what the user should know of how they were read.
    """

    def __init__(self, document, node, visible=False, selection=None, hidden=None):
        self.document, self.node, self.visible = document, node, visible
        self.warning = ""
        document.waitForDone()
        whole = document if visible else node
        model, depth, profile = whole.colorModel(), whole.colorDepth(), whole.colorProfile()
        if model not in _MODELS or depth not in _SAMPLES:
            raise Refused(f"the {'picture' if visible else 'layer'} is {model} {depth}: must be RGB or "
                          "grey, of 8 or 16 bits or floats (Image ▸ Convert Image Color Space…)")
        if not visible and node.type() != "paintlayer" and (model, depth, profile) != (
                document.colorModel(), document.colorDepth(), document.colorProfile()):
            raise Refused(f"“{node.name()}” has other colours than the picture: must be the same "
                          "(Layer ▸ Convert ▸ Convert Layer Color Space…)")
        self.channels, self.samples = _MODELS[model], _SAMPLES[depth]
        self.gray = model == "GRAYA"
        self.size = self.channels * bytewise.BYTES[self.samples]
        bounds = document.bounds() if visible else node.bounds()
        self.x, self.y = bounds.x(), bounds.y()
        self.width, self.height = bounds.width(), bounds.height()
        if self.width < 1 or self.height < 1:
            raise Refused(f"“{node.name()}” is empty: must have pixels (paint or paste first)")
        self.curve, self.icc = self._colors(model, depth, profile)
        self.bytes = self._read(hidden)
        self.mask_bytes, self.mask_at = self._selection()
        if self.mask_bytes is None and selection is not None:
            self.mask_bytes, self.mask_at = selection

    def pixels(self, data=None):
        """Describes `data` (its own bytes where left out) for the library."""
        return semblance.pixels(self.bytes if data is None else data, self.width, self.height,
                                self.samples, self.order, "straight", self.curve, icc=self.icc)

    @property
    def order(self):
        if self.gray:
            return "gray_alpha"
        return "bgra" if self.samples in ("u8", "u16") else "rgba"

    def is_plain(self):
        """Whether a full copy above the layer looks as the copy alone."""
        node = self.node
        if self.visible:
            return True
        if node.type() != "paintlayer" or node.opacity() < 255 or node.blendingMode() != "normal":
            return False
        if node.inheritAlpha() or any(m.type() != "selectionmask" for m in node.childNodes()):
            return False
        if getattr(node, "layerStyleToAsl", str)():
            return False
        return bytewise.opaque(self.bytes, self.samples, self.channels)

    def _read(self, hidden):
        if not self.visible:
            read = self.node.pixelData if self.node.type() == "paintlayer" else (
                self.node.projectionPixelData)
            return _banded(read, self.x, self.y, self.width, self.height, self.size)
        if hidden is None or not hidden.visible():
            return _banded(self.document.pixelData, self.x, self.y, self.width, self.height, self.size)
        try:
            _show(self.document, hidden, False)
            return _banded(self.document.pixelData, self.x, self.y, self.width, self.height, self.size)
        finally:
            _show(self.document, hidden, True)

    def _colors(self, model, depth, profile):
        """(curve, None) where the numbers are sRGB or linear sRGB, else ("srgb", profile)."""
        if profile in _CURVES:
            return _CURVES[profile], None
        icc = _profile(model, depth, profile)
        if icc is None:
            self.warning = (f"the profile “{profile}” could not be had from Krita; "
                            "the layer's numbers were taken for sRGB")
        return "srgb", icc

    def _selection(self):
        """The selection's coverage and place on the canvas; (None, None) where nothing is selected."""
        selection = self.document.selection()
        if selection is None or selection.width() < 1 or selection.height() < 1:
            return None, None
        place = selection.x(), selection.y(), selection.width(), selection.height()
        return _banded(selection.pixelData, *place, 1), (*place, "u8")


def _banded(read, x, y, width, height, size):
    """Pixels, some rows at a time: Krita's byte arrays end at 2 GiB."""
    rows, out = max(1, bytewise.BAND // (width * size)), bytearray()
    for top in range(0, height, rows):
        out += read(x, y + top, width, min(rows, height - top)).data()
    if len(out) != width * height * size:
        raise Refused(f"Krita gave {len(out)} bytes of pixels: must be {width * height * size} "
                      "(this kind of layer cannot be read; merge it into a paint layer)")
    return out


def _show(document, node, visible):
    """Shows or hides a layer until the picture is drawn anew."""
    node.setVisible(visible)
    document.refreshProjection()
    document.waitForDone()


def _hide(document, node):
    """Hides a layer; where the picture has a window by Krita's own command, which undo knows."""
    toggle = Krita.instance().action("toggle_layer_visibility")
    active = Krita.instance().activeDocument()
    if toggle is not None and active is not None and active == document:
        others = [(other, other.visible()) for other in _below(document.rootNode())]
        document.setActiveNode(node)
        document.waitForDone()
        toggle.trigger()
        document.waitForDone()
        for other, visible in others:  # several may have been selected
            if other.visible() != visible and other != node:
                other.setVisible(visible)
    if node.visible():
        node.setVisible(False)


def _below(node):
    """All layers and masks below `node`."""
    for child in node.childNodes():
        yield child
        yield from _below(child)


_profiles = {}


def _profile(model, depth, name):
    """A profile's bytes, or None. Krita's Python knows only names, but a saved document has both."""
    key = model, depth, name
    if key not in _profiles:
        _profiles[key] = _saved_profile(*key)
    return _profiles[key]


def _saved_profile(model, depth, name):
    document = Krita.instance().createDocument(1, 1, "profile", model, depth, name, 72.0)
    if document is None:
        return None
    try:
        document.setBatchmode(True)
        if document.colorProfile() != name:
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "profile.kra")
            if not document.exportImage(path, InfoObject()):
                return None
            with zipfile.ZipFile(path) as file:
                for entry in file.namelist():
                    if entry.endswith("annotations/icc"):
                        return file.read(entry)
        return None
    finally:
        document.close()


def _by_id(node, uuid):
    """The node with this uuid below `node`, or None."""
    return next((one for one in _below(node) if one.uniqueId().toString() == uuid), None)


def _key(node):
    return KEY + node.uniqueId().toString().strip("{}")


def memory(document, node):
    """What a layer carries, or None: (recipe, its source layer or None, visible, selection or None,
    the folder of its model or "")."""
    kept = bytes(document.annotation(_key(node)).data())
    if not kept:
        return None
    try:
        kept = json.loads(kept.decode())
        recipe, visible, selection = kept["recipe"], kept["source"] == "visible", None
        if kept.get("selection"):
            place, packed = kept["selection"]
            selection = bytewise.unpacked(packed), tuple(place)
        recipe.pop(words.STAMP, None)
        below = _by_id(document.rootNode(), kept["layer"])
        return recipe, below, visible, selection, str(kept.get("model", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def add(source, data, recipe, replaces=None, model=""):
    """Puts a result of the model in the folder `model` into the picture; returns the new layer.

    It lies above its source, or in the place of `replaces`. A full copy above a layer that is not
    opaque would blend twice: then the original is hidden. Else, with a selection, the new layer has
    only what was selected.
    """
    document, node = source.document, source.node
    plain = source.is_plain()
    new = _layer(source, data, plain)
    new.setName(words.title(recipe) or "Semblance")
    if source.visible and replaces is None:
        # The picture's selection is a mask among the layers.
        layers = [one for one in document.topLevelNodes() if one.type() != "selectionmask"]
        added = document.rootNode().addChildNode(new, layers[-1])
    else:
        over = replaces or node
        added = over.parentNode().addChildNode(new, over)
    if not added:
        raise Refused("Krita did not take the new layer: nothing was changed "
                      "(is the group above it locked?)")
    _remember(new, recipe, source, model)
    if replaces is not None:
        replaces.remove()
    if not plain and node.visible():
        _hide(document, node)
    document.refreshProjection()
    document.waitForDone()
    document.setActiveNode(new)
    return new


def _layer(source, data, plain):
    """A layer, in no picture yet, with these pixels and the source's opacity, mode and masks."""
    document, node = source.document, source.node
    if not source.visible and node.type() == "paintlayer":
        new = node.duplicate()
        new.setLocked(False)
        new.setAlphaLocked(False)
        new.setVisible(True)
    else:
        new = document.createNode("", "paintlayer")
        if not source.visible and node.opacity() < 255:
            new.setOpacity(node.opacity())
        if not source.visible and node.blendingMode() != "normal":
            new.setBlendingMode(node.blendingMode())
    if plain and source.mask_bytes is not None:
        data = bytewise.only_selected(source, data)
    line = source.width * source.size
    rows = max(1, bytewise.BAND // line)
    for top in range(0, source.height, rows):
        part = bytes(memoryview(data)[top * line:(top + rows) * line])
        new.setPixelData(QByteArray(part), source.x, source.y + top, source.width,
                         len(part) // line)
    return new


def _remember(new, recipe, source, model):
    """Keeps the recipe and its model, where the pixels came from and what was selected, under the layer's
    uuid."""
    kept = {"recipe": recipe, "source": "visible" if source.visible else "layer",
            "layer": source.node.uniqueId().toString()}
    if model:
        kept["model"] = model
    if source.mask_bytes is not None:
        kept["selection"] = source.mask_at, bytewise.packed(source.mask_bytes)
    source.document.setAnnotation(_key(new), "Semblance: how a layer was made",
                                  QByteArray(json.dumps(kept).encode()))
