"""The plug-in in a real window of GIMP 3: menu, slider, preview, new layer, edit again, undo.

Run by tests/editors/window inside GIMP's Python batch interpreter, with a display. Drives the
window with xdotool and looks at the image through GIMP itself.
"""

import os
import subprocess
import time

import gi

gi.require_version("Gegl", "0.4")
from gi.repository import Gegl, Gimp, Gio

OUT, TITLE = "/out", "Semblance: Edit Attribute"
checks = failures = 0


def check(what, passed):
    global checks, failures
    checks += 1
    failures += not passed
    print("ok    " if passed else "FAILED", what, flush=True)


def tool(*words):
    return subprocess.run(["xdotool", *words], capture_output=True, text=True).stdout.split()


def keys(*names):
    for name in names:
        tool("key", "--clearmodifiers", name)
        time.sleep(0.5)


def until(what, condition, seconds=90):
    """Waits until the condition holds; a check of its own."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            check(what, True)
            return True
        time.sleep(0.3)
    check(what, False)
    shot("failed")
    return False


def dialog():
    return tool("search", "--onlyvisible", "--name", TITLE)


def shot(name, window="root"):
    subprocess.run(["import", "-window", window, f"{OUT}/{name}.png"])


def differing(a, b):
    """How many pixels of two shots differ."""
    done = subprocess.run(["compare", "-metric", "AE", f"{OUT}/{a}.png", f"{OUT}/{b}.png", "null:"],
                          capture_output=True, text=True)
    return float(done.stderr.split()[0])


def data(drawable):
    rect = Gegl.Rectangle.new(0, 0, drawable.get_width(), drawable.get_height())
    return bytes(drawable.get_buffer().get(rect, 1.0, None, Gegl.AbyssPolicy.NONE))


def names():
    return [layer.get_name() for layer in image.get_layers()]


def open_dialog():
    tool("search", "--name", "GIMP$", "windowactivate", "--sync")
    # Filters, its last entry, the first of that.
    keys("alt+r", "Up", "Right", "Return")
    if until("the menu opens the dialog", dialog):
        time.sleep(2)


def load(name):
    return Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(name))


def slide(value):
    """Sets the first slider, whose number has the focus at first and is typed over."""
    keys("ctrl+a")
    tool("type", "--delay", "80", value)
    keys("Tab")


image = load("/repo/examples/coast.png")
expected = {s: data(load(f"{OUT}/cli-{s}.png").get_layers()[0]) for s in ("0.8", "0.4")}
Gimp.Display.new(image)
until("the image has a window", lambda: tool("search", "--onlyvisible", "--name", "GIMP$"))
time.sleep(3)
background = names()

open_dialog()
shot("dialog-0", dialog()[0])
slide("0.8")
until("the preview shows the change", lambda: (shot("dialog-1", dialog()[0]) or differing(
    "dialog-0", "dialog-1") > 50000))
time.sleep(2)
shot("dialog-1", dialog()[0])
keys("alt+b")
until("the line shows before and after", lambda: (shot("dialog-2", dialog()[0]) or differing(
    "dialog-1", "dialog-2") > 20000))
check("a preview leaves the image as it was", names() == background)
keys("alt+o")
until("OK adds a layer", lambda: names() == ["sunset 0.8"] + background)
check("its pixels are the command line's", data(image.get_layers()[0]) == expected["0.8"])
until("the dialog is gone", lambda: not dialog())

open_dialog()
slide("0.4")
keys("alt+o")
until("edit again replaces the layer", lambda: names() == ["sunset 0.4"] + background)
check("its pixels are the command line's", data(image.get_layers()[0]) == expected["0.4"])
shot("again")
time.sleep(2)
keys("ctrl+z")
until("one undo brings the layer before back", lambda: names() == ["sunset 0.8"] + background)
keys("ctrl+z")
until("one more removes it", lambda: names() == background)

image.select_ellipse(Gimp.ChannelOps.REPLACE, 200, 100, 500, 400)
Gimp.Selection.feather(image, 60)
below = data(image.get_layers()[0])
open_dialog()
slide("1")
keys("alt+o")
until("an edit inside a selection adds a layer", lambda: names() == ["sunset 1"] + background)
first = data(image.get_layers()[0])
check("its corners are as they were", first[:3000] == below[:3000] and first[-3000:] == below[-3000:])
Gimp.Selection.none(image)
open_dialog()
slide("0.3")
keys("alt+o")
until("edit again remembers the selection", lambda: names() == ["sunset 0.3"] + background)
again = data(image.get_layers()[0])
check("and changes only what it holds", first != again and again[:3000] == below[:3000]
      and again[-3000:] == below[-3000:])
before = names()
open_dialog()
slide("1")
keys("Escape")
until("Escape closes the dialog", lambda: not dialog())
check("and leaves the image as it was", names() == before)
shot("end")
print(f"all {checks} checks passed" if failures == 0 else f"{failures} of {checks} checks FAILED",
      flush=True)
