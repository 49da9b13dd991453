"""The plug-in in a real window of GIMP 3: every control, cancel and kill, undo and repeat.

Run by tests/editors/window inside GIMP's Python batch interpreter, with a display. Drives the
window with xdotool and looks at the image through GIMP itself.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, "/repo/tests/editors")

from gi.repository import Gimp  # noqa: E402

import checks  # noqa: E402
import screen  # noqa: E402
from gimp3 import COAST, OUT, SEMBLANCE, command, data, edit, load, state  # noqa: E402
from screen import (check, choose_folder, clipboard, dialog, differing, keys, processes,  # noqa: E402
                    shot, slide, typed, until)

PLUGIN, TINY = "/out/gimp/plug-ins/semblance-edit/semblance-edit.py", "/repo/tests/fixtures/tiny"
WORDS = "a photo of hills", "a photo of hills, at night"


def names():
    return [layer.get_name() for layer in image.get_layers()]


def top():
    return image.get_layers()[0]


def wanted(name, *options):
    """The samples of the command line's picture."""
    picture = load(command(COAST, f"window-{name}.png", *options))
    samples = data(picture.get_layers()[0])
    picture.delete()
    return samples


def activate():
    screen.tool("search", "--name", "GIMP$", "windowactivate", "--sync")


def open_dialog():
    # Filters, its last entry, the first of that.
    screen.open_dialog(PLUGIN, activate, "alt+r", "Up", "Right", "Return")


def edits():
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
    check("its pixels are the command line's", data(top()) == expected["0.8"])
    until("the dialog is gone", lambda: not dialog())

    open_dialog()
    slide("0.4")
    keys("alt+o")
    until("edit again replaces the layer", lambda: names() == ["sunset 0.4"] + background)
    check("its pixels are the command line's", data(top()) == expected["0.4"])
    shot("again")
    time.sleep(2)
    keys("ctrl+z")
    until("one undo brings the layer before back", lambda: names() == ["sunset 0.8"] + background)
    keys("ctrl+z")
    until("one more removes it", lambda: names() == background)
    keys("ctrl+f")
    until("Repeat makes the last edit", lambda: names() == ["sunset 0.4"] + background)
    check("its pixels are the command line's", data(top()) == expected["0.4"])
    keys("ctrl+z")
    until("and undo takes it back", lambda: names() == background)


def selection():
    image.select_ellipse(Gimp.ChannelOps.REPLACE, 200, 100, 500, 400)
    Gimp.Selection.feather(image, 60)
    below = data(top())
    open_dialog()
    slide("1")
    keys("alt+o")
    until("an edit inside a selection adds a layer", lambda: names() == ["sunset 1"] + background)
    first = data(top())
    check("its corners are as they were",
          first[:3000] == below[:3000] and first[-3000:] == below[-3000:])
    Gimp.Selection.none(image)
    open_dialog()
    slide("0.3")
    keys("alt+o")
    until("edit again remembers the selection", lambda: names() == ["sunset 0.3"] + background)
    again = data(top())
    check("and changes only what it holds",
          first != again and again[:3000] == below[:3000] and again[-3000:] == below[-3000:])
    keys("ctrl+z", "ctrl+z", "ctrl+z")  # one is that of the selection's end
    until("undo takes both back", lambda: names() == background)
    Gimp.Selection.none(image)


def controls():
    """Loupe, line, Copy as Command, Reset, another model, words."""
    size = image.get_width(), image.get_height()
    below = data(top())
    open_dialog()
    keys("alt+r")  # what the edit before asked for
    slide("0.8")
    line = f"semblance edit {COAST} -a sunset=0.8 -o coast-edited.png"
    keys("alt+m")
    until("Copy as Command puts the line for a shell on the clipboard", lambda: clipboard() == line, 60)
    subprocess.run([SEMBLANCE, *shlex.split(clipboard())[1:]], cwd=OUT, check=True, timeout=60)
    made = load(f"{OUT}/coast-edited.png")
    check("which makes the same picture", data(made.get_layers()[0]) == expected["0.8"])
    made.delete()
    screen.look_closely(screen.Picture(*size, below), screen.Picture(*size, expected["0.8"]))
    choose_folder(TINY)
    keys("alt+w", "alt+s")
    typed(WORDS[0])
    keys("alt+u")
    typed(WORDS[1])
    line = shlex.join(["semblance", "edit", COAST, "--from", WORDS[0], "--to", WORDS[1], "--model",
                       TINY, "-o", "coast-edited.png"])
    keys("alt+m")
    until("the words and the model's folder are in the command", lambda: clipboard() == line, 60)
    keys("alt+o")
    until("an edit in words with another model adds a layer",
          lambda: names() == [WORDS[1]] + background)
    check("its pixels are the command line's", data(top()) == wanted(
        "tiny", "--from", WORDS[0], "--to", WORDS[1], "--model", TINY))
    activate()
    keys("ctrl+z")
    until("and undo takes it back", lambda: names() == background)


def ends():
    """Cancel, also of Repeat, and the death of the plug-in, each in the middle of a long run."""
    layer, error = edit(image, attributes="sunset=0.8")
    check(f"a script makes a layer {error or ''}", layer is not None)
    kept = json.loads(bytes(layer.get_parasite("semblance-recipe").get_data()).decode())
    kept["recipe"].update(screen.LONG)
    layer.attach_parasite(Gimp.Parasite.new("semblance-recipe", 3, json.dumps(kept).encode("ascii")))
    before = state(image)

    open_dialog()  # with the model that made the layer, not that of the edit before
    until("a long run is under way", lambda: screen.busy(PLUGIN), 60)
    keys("Escape")
    until("Cancel closes the dialog", lambda: not dialog(), 30)
    until("and ends the run", lambda: not processes(PLUGIN), 20)
    check("the image is as it was", state(image) == before)

    old = layer.get_id()
    open_dialog()
    keys("alt+o")
    # Its end, too: the old layer goes after the new one came, and would be looked at while it goes.
    until("OK waits for the run", lambda: top().get_id() != old and not processes(PLUGIN), 200)
    before = state(image)
    activate()
    keys("ctrl+f")
    until("a repeated run is under way", lambda: screen.busy(PLUGIN), 60)
    shot("repeat")
    screen.cancel_progress(PLUGIN)
    until("GIMP's Cancel ends it", lambda: not processes(PLUGIN), 20)
    check("the image is as it was", state(image) == before)

    open_dialog()
    until("one more run is under way", lambda: screen.busy(PLUGIN), 60)
    for process in processes(PLUGIN):
        os.kill(process, signal.SIGKILL)
    until("a killed plug-in takes its dialog with it", lambda: not dialog(), 60)
    check("the image is as it was", state(image) == before)
    shot("killed")
    keys("Escape")  # GIMP's own message
    new, error = edit(image, [image.get_layers()[-1]], attributes="sunset=0.4")
    check(f"GIMP goes on {error or ''}", new is not None and data(new) == expected["0.4"])
    activate()
    keys("ctrl+z")
    until("and so does undo", lambda: state(image)[0] == before[0], 60)


image = Gimp.get_images()[0]  # opened with GIMP, as a user does
expected = {s: wanted(s, "-a", f"sunset={s}") for s in ("0.8", "0.4")}
until("the image has a window", screen.main_window)
time.sleep(3)
background = names()
for stage in (edits, selection, controls, ends):
    try:
        stage()
    except Exception:
        traceback.print_exc()
        check(f"{stage.__name__}: ended early", False)
        for process in processes(PLUGIN):
            os.kill(process, signal.SIGKILL)
checks.finished()
