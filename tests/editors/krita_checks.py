"""What the extension does in Krita, checked pixel by pixel against the command line.

Run by kritarunner from tests/editors/run, in the tree of tests/editors/tree; the extension lies on
PYTHONPATH. Prints a line a check and ends with "all N checks passed", which the caller looks for.
"""

import glob
import os
import struct
import subprocess
import sys
import traceback
import zlib

from krita import Krita, Selection
from PyQt5.QtCore import QByteArray, QTimer

from semblance_krita import edit
import semblance_nodes as nodes

SEMBLANCE, OUT = "/repo/target/release/semblance", "/out"
COAST, TOWN = "/repo/examples/coast.png", "/repo/examples/town.png"
SRGB, LINEAR = "sRGB-elle-V2-srgbtrc.icc", "sRGB-elle-V2-g10.icc"
checks = failures = 0


def check(what, passed):
    global checks, failures
    checks += 1
    failures += not passed
    print("ok    " if passed else "FAILED", what, flush=True)


def finished():
    print(f"all {checks} checks passed" if failures == 0 else
          f"{failures} of {checks} checks FAILED", flush=True)


def load(path):
    document = Krita.instance().openDocument(path)
    document.setBatchmode(True)
    document.waitForDone()
    return document


def top(document):
    # The picture's selection is a mask among the layers.
    return [node for node in document.topLevelNodes() if node.type() != "selectionmask"][-1]


def data(thing, document=None):
    """The pixels of a layer of `document`, or of the whole picture."""
    bounds = (document or thing).bounds()
    return bytes(thing.pixelData(bounds.x(), bounds.y(), bounds.width(), bounds.height()).data())


def tried(document, node=None, **arguments):
    """(new layer, None) or (None, error text)."""
    try:
        return edit(document, node or top(document), **arguments), None
    except Exception as error:
        return None, str(error)


def command(source, name, *options):
    """The command line's picture of the same edit, as a file."""
    out = f"{OUT}/{name}"
    subprocess.run([SEMBLANCE, "edit", source, "-o", out, *options], check=True,
                   stdout=subprocess.DEVNULL)
    return out


def png(path, width, height, bits, color, samples, icc=None):
    """A PNG file of big-endian samples without padding."""
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    line = len(samples) // height
    rows = b"".join(b"\0" + samples[y * line:(y + 1) * line] for y in range(height))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(
            ">IIBBBBB", width, height, bits, color, 0, 0, 0)))
        if icc:
            file.write(chunk(b"iCCP", b"profile\0\0" + zlib.compress(icc)))
        file.write(chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))
    return path


def variants():
    """The picture in other forms."""
    document = load(COAST)
    width, height, bgra = document.width(), document.height(), data(top(document), document)
    document.close()
    rgb, rgba = bytearray(width * height * 3), bytearray(width * height * 4)
    for at in range(3):
        rgb[at::3] = rgba[at::4] = bgra[2 - at::4]
    for y in range(height):
        rgba[y * width * 4 + 3:(y + 1) * width * 4:4] = bytes([55 + y * 200 // height]) * width
    deep = bytearray(len(rgb) * 2)
    deep[0::2], deep[1::2] = rgb, bytes(reversed(rgb))  # lower bytes that no 8 bits have
    soft = bytes(max(0, min(255, (x - width // 4) * 4)) for x in range(width))
    wide = [path for folder in ("/usr/share/color/icc", "/usr/share/krita")
            for path in glob.glob(f"{folder}/**/ClayRGB-elle-V2-g22.icc", recursive=True)]
    with open(wide[0], "rb") as file:
        icc = file.read()
    return {
        "8 bits with alpha": png(f"{OUT}/k-rgba8.png", width, height, 8, 6, rgba),
        "16 bits": png(f"{OUT}/k-rgb16.png", width, height, 16, 2, deep),
        "grey": png(f"{OUT}/k-gray8.png", width, height, 8, 0, bgra[1::4]),
        "a wide profile": png(f"{OUT}/k-wide.png", width, height, 8, 2, rgb, icc),
        "selection": png(f"{OUT}/k-selection.png", width, height, 8, 0, b"".join(
            soft if height // 3 < y else bytes(width) for y in range(height))),
    }


def same(what, source, *options, **arguments):
    """Whether Krita's new layer holds the bytes that the command line makes of the same file."""
    document = load(source)
    below = top(document)
    before = data(below, document)
    new, error = tried(document, below, **arguments)
    if new is None:
        check(f"{what}: {error}", False)
        return
    expected = load(command(source, f"k-cli-{what.replace(' ', '-')}.png", *options))
    got, wanted = data(new, document), data(top(expected), expected)
    check(f"{what}: equals the command line's bytes", got == wanted)
    if got != wanted:
        differ = sum(a != b for a, b in zip(got, wanted))
        print("      ", document.colorProfile(), expected.colorProfile(), len(got), len(wanted),
              "differ", differ, got[:16], wanted[:16])
    check(f"{what}: changes the picture", got != before)
    check(f"{what}: leaves the layer below as it was", data(below, document) == before)
    expected.close()
    document.close()


def pixels():
    forms = variants()
    same("8 bits", COAST, "-a", "sunset=0.8", attributes="sunset=0.8")
    same("two attributes and a seed", TOWN, "-a", "fog=0.6", "-a", "autumn=-0.5", "--seed", "7",
         attributes="fog=0.6, autumn=-0.5", seed=7)
    words = "a photo of a landscape", "a photo of a landscape, at night"
    same("words", COAST, "--from", words[0], "--to", words[1], "--strength", "0.7",
         from_text=words[0], to_text=words[1], text_strength=0.7)
    same("a recipe", COAST, "-a", "snow=1", "--steps", "6", recipe=(
        '{"semblance": 1, "attributes": [{"name": "snow", "strength": 1}], "steps": 6}'))
    for what in ("8 bits with alpha", "16 bits", "grey", "a wide profile"):
        same(what, forms[what], "-a", "night=0.9", attributes="night=0.9")


def selection():
    """Only what is selected changes, and the new layer holds only that."""
    document, mask = load(COAST), load(f"{OUT}/k-selection.png")
    cover = data(top(mask), mask)[::2]
    chosen = Selection()
    chosen.setPixelData(QByteArray(cover), 0, 0, document.width(), document.height())
    document.setSelection(chosen)
    below = top(document)
    before = data(below, document)
    new, error = tried(document, attributes="snow=1")
    check(f"an edit inside a selection gives a layer {error or ''}", new is not None)
    if new is None:
        return
    expected = load(command(COAST, "k-cli-selection.png", "-a", "snow=1", "--mask",
                            f"{OUT}/k-selection.png"))
    wanted, got = data(top(expected), expected), data(new, document)
    check("inside, its pixels are the command line's; outside, there are none", all(
        got[4 * at:4 * at + 4] == (wanted[4 * at:4 * at + 4] if value else b"\0\0\0\0")
        for at, value in enumerate(cover)))
    check("the picture is the command line's, byte for byte", data(document) == wanted)
    check("some of it changed", wanted != before)
    check("the layer below is as it was", data(below, document) == before)
    check("the selection is still there", document.selection() is not None)
    for one in (document, mask, expected):
        one.close()


def layers():
    """Names, places, recipes that stay with the file, translucent layers, layers off the canvas."""
    document = load(COAST)
    below = top(document)
    new, _ = tried(document, attributes="night=1")
    names = [node.name() for node in document.topLevelNodes()]
    check("the new layer lies above, named after the edit", names == [below.name(), "night 1"])
    recipe, source, visible, chosen, model = nodes.memory(document, new)
    check("it carries its recipe", recipe["attributes"] == [{"name": "night", "strength": 1.0}]
          and recipe["seed"] == 0 and source == below and not visible and chosen is None
          and model == "")
    document.saveAs(f"{OUT}/kept.kra")
    document.close()
    document = load(f"{OUT}/kept.kra")
    kept = nodes.memory(document, top(document))
    check("the recipe is saved with the file", kept is not None and kept[0] == recipe
          and kept[1] is not None)
    document.close()

    document = load(f"{OUT}/k-rgba8.png")
    below = top(document)
    before = data(below, document)
    new, _ = tried(document, attributes="fog=0")
    check("strength 0 keeps every byte", data(new, document) == before)
    check("a translucent original is hidden", not below.visible() and new.visible())
    check("its alpha does not double", data(document)[3::4] == before[3::4])
    document.close()

    document = load(COAST)
    below = top(document)
    below.setOpacity(150)
    below.setBlendingMode("multiply")
    new, _ = tried(document, attributes="fog=0.5")
    check("opacity and mode are those of the original, which is hidden", new.opacity() == 150
          and new.blendingMode() == "multiply" and not below.visible())
    document.close()

    document = load(COAST)
    below = top(document)
    whole = data(below, document)
    below.move(-40, 30)
    document.waitForDone()
    new, error = tried(document, attributes="sunset=0.8")
    bounds = below.bounds()
    check("a layer that sticks out is edited where it lies", new is not None
          and new.bounds() == bounds and (bounds.x(), bounds.y()) == (-40, 30))
    expected = load(f"{OUT}/k-cli-8-bits.png")
    if new is not None:
        got = bytes(new.pixelData(-40, 30, expected.width(), expected.height()).data())
        check("also off the canvas", got == data(top(expected), expected) and got != whole)
    document.close()
    document = load(COAST)
    new, error = tried(document, source="visible", attributes="sunset=0.8")
    check(f"the visible picture is edited like a layer with its pixels {error or ''}",
          new is not None and data(new, document) == data(top(expected), expected))
    expected.close()
    document.close()


def depths():
    """However the numbers are stored, the colours come out the same."""
    expected = load(f"{OUT}/k-cli-8-bits.png")
    for depth, profile in (("F32", LINEAR), ("F16", LINEAR), ("U16", LINEAR), ("F32", SRGB)):
        document = load(COAST)
        document.setColorSpace("RGBA", depth, profile)
        document.waitForDone()
        new, error = tried(document, attributes="sunset=0.8")
        if new is None:
            check(f"{depth} {profile}: {error}", False)
            continue
        document.setColorSpace("RGBA", "U8", SRGB)
        document.waitForDone()
        most = max(abs(a - b) for a, b in zip(data(top(document), document),
                                              data(top(expected), expected)))
        check(f"{depth} {profile}: the colours of 8 bits, to {most} of 255", most <= 2)
        document.close()
    expected.close()


def refusals():
    """What cannot be edited is refused, in the library's words or ours."""
    document = load(COAST)
    for what, arguments, wanted in (
            ("a misspelt attribute", {"attributes": "sunst=1"}, ("sunst", "sunset")),
            ("a strength out of range", {"attributes": "sunset=9"}, ("-2..=2",)),
            ("an attribute without strength", {"attributes": "sunset"}, ("NAME=STRENGTH",)),
            ("an edit of nothing", {}, ("nothing to change",))):
        new, error = tried(document, **arguments)
        check(f"{what} is refused: {error}", new is None and all(w in error for w in wanted))
    mask = document.createNode("mask", "transparencymask")
    top(document).addChildNode(mask, None)
    new, error = tried(document, mask, attributes="night=1")
    check(f"a mask is refused: {error}", new is None and "transparency mask" in error)
    empty = document.createNode("empty", "paintlayer")
    document.rootNode().addChildNode(empty, None)
    new, error = tried(document, empty, attributes="night=1")
    check(f"an empty layer is refused: {error}", new is None and "is empty" in error)
    check("nothing was added by what was refused", len(document.topLevelNodes()) == 2)
    document.close()
    document = load(COAST)
    document.setColorSpace("CMYKA", "U8", (Krita.instance().profiles("CMYKA", "U8") or [""])[0])
    document.waitForDone()
    new, error = tried(document, attributes="night=1")
    check(f"CMYK is refused: {error}", new is None and "CMYKA" in error and "Convert" in error)
    document.close()


def follow(script, failed):
    """Runs a generator of conditions to wait for, from a timer; returns the timer."""
    waiting = [lambda: True]

    def tick():
        try:
            if waiting[0]():
                waiting[0] = next(script)
        except StopIteration:
            timer.stop()
        except Exception:
            traceback.print_exc()
            timer.stop()
            check("the script came to its end", False)
            failed()

    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(50)
    return timer


def drive(window, steps):
    """Runs the window by such a generator; what `ask` returns."""
    timer, late = follow(steps(window), window.reject), QTimer(singleShot=True)
    late.timeout.connect(window.reject)
    late.start(300000)
    try:
        return window.ask()
    finally:
        timer.stop()
        late.stop()
        window.end()


def ready(window):
    """Whether the window shows the result of what its controls say."""
    state = window.studio.state
    return (not window.later.isActive() and not state.busy and state.recipe == window._recipe()
            and window.preview.picture is state.picture is not None)


def dialog():
    """The window: slider, preview, result; edit again; cancel; reset; errors."""
    from semblance_window import Window
    document = load(COAST)
    below = top(document)
    seen = {}

    def first(window):
        seen["names"] = list(window.strengths)
        window.grab().save(f"{OUT}/krita-dialog-0.png")
        window.strengths["sunset"].setValue(0.8)
        yield lambda: ready(window)
        picture = window.preview.picture
        seen["changed"] = picture.before != picture.after
        window.preview.both.setChecked(True)
        window.grab().save(f"{OUT}/krita-dialog-1.png")
        window.preview.zooms.setCurrentIndex(2)
        window.preview.zooms.activated.emit(2)
        yield lambda: ready(window)
        seen["loupe"] = window.preview.picture.view[2:] == (520, 400, 1.0)
        seen["part"] = window.preview.picture.after.copy()
        seen["view"] = window.preview.picture.view
        window._copy()
        seen["command"] = window.said.text()
        window._ok()
        yield lambda: False

    recipe = drive(Window(None, document, below), first)
    check("the window lists the library's attributes", "sunset" in seen.get("names", ()))
    check("the preview shows a change", seen.get("changed"))
    check("the loupe shows layer pixels", seen.get("loupe"))
    check("OK gives the recipe", bool(recipe) and recipe["attributes"] == [
        {"name": "sunset", "strength": 0.8}])
    check("the command is that of the shell", "-a sunset=0.8" in seen.get("command", ""))
    new, expected = top(document), load(f"{OUT}/k-cli-8-bits.png")
    wanted = data(top(expected), expected)
    check("and a layer with the command line's bytes", data(new, document) == wanted)
    if seen.get("part"):
        left, upper, width, height, _ = seen["view"]
        line = document.width() * 4
        got = seen["part"].convertToFormat(5)  # ARGB32: BGRA in memory
        got = got.constBits().asstring(width * height * 4)
        there = b"".join(wanted[(upper + y) * line + left * 4:][:width * 4] for y in range(height))
        most = max(abs(a - b) for a, b in zip(got, there))
        differ = sum(a != b for a, b in zip(got, there))
        check(f"the preview was the result, to {most} of 255 in {differ} samples", most <= 1)

    def again(window):
        seen["again"] = window.strengths["sunset"].value(), window.replace.isChecked()
        document.saveAs(f"{OUT}/own.kra")
        window._copy()
        seen["own"] = window.said.text()
        window.strengths["sunset"].setValue(0.4)
        yield lambda: ready(window)
        window._ok()
        yield lambda: False

    drive(Window(None, document, new), again)
    check("the command names no file that the shell's cannot read",
          seen.get("own", "").startswith("semblance edit IN.png -a sunset=0.8"))
    check("edit again opens with the layer's recipe", seen.get("again") == (0.8, True))
    check("and replaces the layer", [node.name() for node in document.topLevelNodes()]
          == [below.name(), "sunset 0.4"])
    other = load(command(COAST, "k-cli-again.png", "-a", "sunset=0.4"))
    check("with the command line's bytes",
          data(top(document), document) == data(top(other), other))

    def cancelled(window):
        window._reset()
        yield lambda: True
        seen["reset"] = window._recipe()
        window.text["from"].setText("a photo")
        yield lambda: window.studio.state.error is not None and not window.later.isActive()
        yield lambda: bool(window.said.text())
        seen["error"] = window.said.text(), window.buttons["&OK"].isEnabled()
        window.reject()
        yield lambda: False

    before = [node.uniqueId() for node in document.topLevelNodes()]
    recipe = drive(Window(None, document, below), cancelled)
    check("Reset takes everything back", seen.get("reset") == {"semblance": 1})
    check(f"an error is said in the window: {seen.get('error', ('',))[0]}",
          bool(seen.get("error")) and "to" in seen["error"][0] and not seen["error"][1])
    check("Cancel leaves the picture as it was", recipe is None and before == [
        node.uniqueId() for node in document.topLevelNodes()])
    for one in (document, expected, other):
        one.close()


def main(arguments):
    Krita.instance().setBatchmode(True)  # else a file may be asked about, with nobody to answer
    stages = pixels, selection, layers, depths, refusals, dialog
    for stage in stages:
        if arguments and stage.__name__ not in arguments:
            continue
        try:
            stage()
        except Exception:
            traceback.print_exc()
            check(f"{stage.__name__}: ended early", False)
    finished()
    sys.stdout.flush()
    os._exit(0)  # Krita's own end takes long and proves nothing
