"""What the plug-in does in GIMP 3, checked pixel by pixel against the command line.

Run inside GIMP's Python batch interpreter by tests/editors/run, in the tree of tests/editors/tree.
Prints a line a check and ends with "all N checks passed", which the caller looks for.
"""

import json
import os
import struct
import sys
import traceback

import gi

gi.require_version("Gegl", "0.4")
from gi.repository import Gegl, Gimp, Gio  # noqa: E402

sys.dont_write_bytecode = True
sys.path.insert(0, "/repo/tests/editors")

from checks import check, finished  # noqa: E402
from gimp3 import COAST, OUT, QUIET, TOWN, command, data, edit, load  # noqa: E402


def save(image, path, profile=False):
    if not path.endswith(".tif"):
        Gimp.file_save(QUIET, image, Gio.File.new_for_path(path), None)
        return
    export = Gimp.get_pdb().lookup_procedure("file-tiff-export")
    config = export.create_config()
    config.set_property("image", image)
    config.set_property("file", Gio.File.new_for_path(path))
    config.set_property("include-color-profile", profile)
    export.run(config)


def write(drawable, format, pixels, width=None, height=None):
    buffer = drawable.get_buffer()
    buffer.set(Gegl.Rectangle.new(0, 0, width or drawable.get_width(),
                                  height or drawable.get_height()), format, pixels)
    buffer.flush()
    drawable.update(0, 0, drawable.get_width(), drawable.get_height())


def same(what, source, suffix, *options, selection=None, **arguments):
    """Whether GIMP's new layer holds the bytes that the command line makes of the same file."""
    image = load(source)
    below = image.get_selected_layers()[0]
    before = data(below)
    if selection is not None:
        mask = load(selection)
        picture = mask.get_selected_layers()[0]
        channel = Gimp.Channel.new(image, "selection", picture.get_width(), picture.get_height(),
                                   100, Gegl.Color.new("black"))
        image.insert_channel(channel, None, 0)
        write(channel, "Y' u8", data(picture)[::3])
        image.select_item(Gimp.ChannelOps.REPLACE, channel)
        mask.delete()
    new, error = edit(image, [below], **arguments)
    if new is None:
        check(f"{what}: {error}", False)
        return
    expected = load(command(source, f"cli-{what.replace(' ', '-')}{suffix}", *options))
    theirs = expected.get_selected_layers()[0]
    got, wanted = data(new), data(theirs)
    check(f"{what}: equals the command line's bytes", got == wanted)
    if got != wanted:
        differ = sum(a != b for a, b in zip(got, wanted))
        print("      ", len(got), len(wanted), "differ", differ, got[:16], wanted[:16])
    check(f"{what}: changes the picture", got != before)
    check(f"{what}: leaves the layer below as it was", data(below) == before)
    expected.delete()
    image.delete()


def variants():
    """The picture in other forms, saved by GIMP."""
    def form(name, *steps):
        image = load(COAST)
        for step in steps:
            step(image, image.get_selected_layers()[0])
        save(image, f"{OUT}/{name}", image.get_color_profile() is not None)
        image.delete()
        return f"{OUT}/{name}"

    def translucent(image, layer):
        layer.add_alpha()
        width, height = layer.get_width(), layer.get_height()
        pixels = bytearray(data(layer))
        for y in range(height):
            pixels[y * width * 4 + 3:(y + 1) * width * 4:4] = bytes([y * 255 // height]) * width
        write(layer, "R'G'B'A u8", bytes(pixels))

    def soft(image, layer):
        width, height = layer.get_width(), layer.get_height()
        line = bytes(max(0, min(255, (x - width // 4) * 4)) for x in range(width))
        write(layer, "R'G'B' u8", b"".join(
            bytes(v for v in line for _ in range(3)) if height // 3 < y else bytes(3 * width)
            for y in range(height)))

    return {
        "8 bits with alpha": form("rgba8.png", translucent),
        "16 bits": form("rgb16.png", lambda i, _: i.convert_precision(Gimp.Precision.U16_NON_LINEAR)),
        "grey": form("gray8.png", lambda i, _: i.convert_grayscale()),
        "Adobe RGB": form("adobe.png", lambda i, _: i.set_color_profile(
            Gimp.ColorProfile.new_rgb_adobe())),
        "float": form("float.tif", lambda i, _: i.convert_precision(Gimp.Precision.FLOAT_NON_LINEAR)),
        "float with a profile": form(
            "profile.tif", lambda i, _: i.set_color_profile(Gimp.ColorProfile.new_rgb_adobe()),
            lambda i, _: i.convert_precision(Gimp.Precision.FLOAT_NON_LINEAR)),
        "selection": form("selection.png", soft),
    }


def pixels():
    forms = variants()
    same("8 bits", COAST, ".png", "-a", "sunset=0.8", attributes="sunset=0.8")
    same("two attributes and a seed", TOWN, ".png", "-a", "fog=0.6", "-a", "autumn=-0.5", "--seed",
         "7", attributes="fog=0.6, autumn=-0.5", seed=7)
    words = "a photo of a landscape", "a photo of a landscape, at night"
    same("words", COAST, ".png", "--from", words[0], "--to", words[1], "--strength", "0.7",
         from_text=words[0], to_text=words[1], text_strength=0.7)
    recipe = {"semblance": 1, "attributes": [{"name": "snow", "strength": 1}], "steps": 6}
    same("a recipe", COAST, ".png", "-a", "snow=1", "--steps", "6", recipe=json.dumps(recipe))
    for what in ("8 bits with alpha", "16 bits", "grey", "Adobe RGB", "float",
                 "float with a profile"):
        suffix = os.path.splitext(forms[what])[1]
        assume = ["--assume", "srgb"] if what == "float" else []
        same(what, forms[what], suffix, "-a", "night=0.9", *assume, attributes="night=0.9")
    same("selection", COAST, ".png", "-a", "snow=1", "--mask", forms["selection"],
         selection=forms["selection"], attributes="snow=1")


def place():
    """Offsets, layers that stick out, and exactness outside the selection."""
    image = load(COAST)
    layer = image.get_selected_layers()[0]
    width, height = layer.get_width(), layer.get_height()
    layer.set_offsets(-40, 30)
    image.select_rectangle(Gimp.ChannelOps.REPLACE, 0, 40, 100, 60)
    before = data(layer)
    new, error = edit(image, attributes="night=1")
    check(f"a layer that sticks out is edited {error or ''}", new is not None)
    if new is None:
        return
    check("the new layer lies where the old one does",
          new.get_offsets()[1:] == layer.get_offsets()[1:])
    after, size = data(new), len(before) // (width * height)
    inside = outside = 0
    for at in range(width * height):
        x, y = at % width - 40, at // width + 30
        if before[at * size:(at + 1) * size] != after[at * size:(at + 1) * size]:
            if 0 <= x < 100 and 40 <= y < 100:
                inside += 1
            else:
                outside += 1
    check(f"no pixel outside the selection changed ({inside} inside did)",
          outside == 0 and inside > 3000)
    mask = new.get_mask()
    check("a layer mask shows the new layer only where something was selected",
          mask is not None and data(mask).count(255) == 6000 and data(mask).count(0) ==
          width * height - 6000)
    check("the new layer lies above the old one",
          image.get_item_position(new) == 0 and image.get_item_position(layer) == 1)
    check("the new layer is named after the edit", new.get_name() == "night 1")
    kept = json.loads(bytes(new.get_parasite("semblance-recipe").get_data()).decode())
    check("the new layer carries its recipe", kept["recipe"]["attributes"]
          == [{"name": "night", "strength": 1.0}] and kept["recipe"]["seed"] == 0)
    path = f"{OUT}/kept.xcf"
    save(image, path)
    again = load(path)
    check("the recipe is saved with the file",
          again.get_layers()[0].get_parasite("semblance-recipe") is not None)
    check("the selection is still there", Gimp.Selection.bounds(image)[1:] == (True, 0, 40, 100, 100))
    image.delete()
    again.delete()


def blending():
    """A copy above a half-transparent layer blends twice unless the layer below is hidden."""
    image = load(f"{OUT}/rgba8.png")
    layer = image.get_selected_layers()[0]
    new, _ = edit(image, attributes="fog=0")
    check("strength 0 keeps every byte", data(new) == data(layer))
    check("a translucent original is hidden", not layer.get_visible() and new.get_visible())
    flat = Gimp.Layer.new_from_visible(image, image, "flat")
    check("its alpha does not double", data(flat)[3::4] == data(layer)[3::4])
    image.delete()
    image = load(COAST)
    layer = image.get_selected_layers()[0]
    layer.set_opacity(60)
    layer.set_mode(Gimp.LayerMode.MULTIPLY)
    new, _ = edit(image, attributes="fog=0.5")
    check("opacity and mode are those of the original, which is hidden",
          new.get_opacity() == 60 and new.get_mode() == Gimp.LayerMode.MULTIPLY
          and not layer.get_visible())
    image.delete()


def deep():
    """Samples that the library does not have: 32-bit integers, doubles."""
    for precision, code, whole in ((Gimp.Precision.U32_NON_LINEAR, "I", 2**32 - 1),
                                   (Gimp.Precision.DOUBLE_LINEAR, "d", 1.0)):
        name = precision.value_nick
        image = load(COAST)
        image.convert_precision(precision)
        image.select_rectangle(Gimp.ChannelOps.REPLACE, 20, 20, 30, 30)
        layer = image.get_selected_layers()[0]
        before = data(layer)
        new, error = edit(image, attributes="night=1")
        if new is None:
            check(f"{name}: {error}", False)
            continue
        after, width = data(new), layer.get_width()
        size = 3 * struct.calcsize(code)
        changed = [at for at in range(len(before) // size)
                   if before[at * size:(at + 1) * size] != after[at * size:(at + 1) * size]]
        check(f"{name}: only the selection changed ({len(changed)} pixels)", len(changed) > 700 and all(
            20 <= at % width < 50 and 20 <= at // width < 50 for at in changed))
        image.delete()


def curves():
    """However the numbers are stored, the colours come out the same."""
    with_8_bits = load(f"{OUT}/cli-8-bits.png").get_layers()[0]
    for precision in (Gimp.Precision.FLOAT_LINEAR, Gimp.Precision.HALF_PERCEPTUAL,
                      Gimp.Precision.U16_LINEAR):
        image = load(COAST)
        image.convert_precision(precision)
        new, error = edit(image, attributes="sunset=0.8")
        if new is None:
            check(f"{precision.value_nick}: {error}", False)
            continue
        rect = Gegl.Rectangle.new(0, 0, new.get_width(), new.get_height())
        got = bytes(new.get_buffer().get(rect, 1.0, "R'G'B' u8", Gegl.AbyssPolicy.NONE))
        most = max(abs(a - b) for a, b in zip(got, data(with_8_bits)))
        check(f"{precision.value_nick}: the colours of 8 bits, to {most} of 255", most <= 2)
        image.delete()


def kinds():
    """Visible image, groups, text; and what is refused, with the library's own words."""
    image = load(COAST)
    layer = image.get_selected_layers()[0]
    new, _ = edit(image, source="visible", attributes="sunset=0.8")
    expected = load(f"{OUT}/cli-8-bits.png").get_layers()[0]
    check("the visible image is edited like a layer with its pixels", new is not None
          and [data(new)[c::4] for c in range(3)] == [data(expected)[c::3] for c in range(3)])
    group = Gimp.GroupLayer.new(image, "group")
    image.insert_layer(group, None, 0)
    image.reorder_item(layer, group, 0)
    new, error = edit(image, [group], attributes="night=1")
    check(f"a group gives a layer {error or ''}", new is not None and not new.is_group())

    layer.set_lock_content(True)
    new, error = edit(image, [layer], attributes="night=1")
    check(f"a layer whose pixels are locked is edited too {error or ''}", new is not None)
    layer.set_lock_content(False)

    before = len(image.get_layers())
    new, error = edit(image, [layer], attributes="sunst=1")
    check("a misspelt attribute is refused with the library's hint",
          new is None and "sunst" in error and "sunset" in error)
    print("      ", error)
    new, error = edit(image, [layer], attributes="sunset=9")
    check("a strength out of range is refused with the range", new is None and "-2..=2" in error)
    new, error = edit(image, [layer], attributes="sunset")
    check("an attribute without strength is refused", new is None and "NAME=STRENGTH" in error)
    new, error = edit(image, [layer])
    check("an edit of nothing is refused", new is None and "nothing to change" in error)
    new, error = edit(image, [layer], attributes="night=1", model="/nowhere")
    check("a model that is not there is refused", new is None and "/nowhere" in error)
    new, error = edit(image, [layer, group], attributes="night=1")
    check("two layers are refused", new is None and "2 layers" in error)
    mask = layer.create_mask(Gimp.AddMaskType.WHITE)
    layer.add_mask(mask)
    new, error = edit(image, [mask], attributes="night=1")
    check("a layer mask is refused", new is None and "not a layer" in error)
    check("nothing was added by what was refused", len(image.get_layers()) == before)
    image.delete()
    image = load(COAST)
    image.convert_indexed(Gimp.ConvertDitherType.NONE, Gimp.ConvertPaletteType.GENERATE, 64, False,
                          False, "")
    new, error = edit(image, attributes="night=1")
    check("an indexed image is refused with what to do", new is None and "Mode ▸ RGB" in error)
    image.delete()


for stage in (pixels, place, blending, deep, curves, kinds):
    try:
        stage()
    except Exception:
        traceback.print_exc()
        check(f"{stage.__name__}: ended early", False)
finished()
