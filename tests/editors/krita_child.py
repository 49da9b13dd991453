"""Models in folders, which the extension runs in a process of their own: the same bytes as the command
line's, and a picture that stays as it was when that process dies, crashes or is cancelled.

Run as krita_checks is. The model is the tests' random one; the library with a planted death is that of
crashing.c, at /out/crashing.so.
"""

import glob
import json
import os
import signal
import sys
import traceback

from krita import Krita, Selection
from PyQt5.QtCore import QByteArray

import krita_checks as base
from krita_checks import (COAST, LINEAR, OUT, SRGB, check, command, data, drive, load, ready, same, top,
                          tried)

import semblance_child as child
import semblance_nodes as nodes
import semblance_work as work
from semblance_window import Window

TINY, DEATH = "/repo/tests/fixtures/tiny", f"{OUT}/death"
BEFORE, AFTER = "a photo", "a photo at night"
# So many that a run is long enough to be interrupted.
LONG = 1000


def recipe(steps=4):
    return json.dumps({"semblance": 1, "steps": steps,
                       "text": {"from": BEFORE, "to": AFTER, "strength": 1}})


def line(steps=4):
    """The same for the command line."""
    return ["--model", TINY, "--from", BEFORE, "--to", AFTER, "--steps", str(steps)]


def dies(where):
    """The children of now on abort there."""
    os.environ.update({"SEMBLANCE_LIBRARY": f"{OUT}/crashing.so", "SEMBLANCE_DEATH": DEATH,
                       "SEMBLANCE_WHOLE": "/repo/target/release/libsemblance.so"})
    with open(DEATH, "w") as file:
        file.write(f"{where} {signal.SIGABRT:d}")


def live():
    """The children of now on do not."""
    os.remove(DEATH)
    for name in ("LIBRARY", "DEATH", "WHOLE"):
        del os.environ[f"SEMBLANCE_{name}"]


class Stopped(Exception):
    """A script's own."""


def seen(document):
    """All of the picture that an edit might touch."""
    return [(node.uniqueId().toString(), node.name(), node.visible(), data(node, document))
            for node in document.topLevelNodes()], data(document)


def pixels():
    """What the extension hands to the child and takes from it, in every format."""
    same("in a child", COAST, *line(), model=TINY, recipe=recipe())
    for what, path in base.variants().items():
        if what != "selection":
            same(f"{what} in a child", path, *line(), model=TINY, recipe=recipe())
    document = load(COAST)
    for depth, profile in (("F32", LINEAR), ("F16", LINEAR), ("U16", SRGB)):
        document.setColorSpace("RGBA", depth, profile)
        document.waitForDone()
        alike(f"{depth} {profile}", document)
    alike("the visible picture", document, source="visible")
    document.close()
    document = load(COAST)
    chosen = Selection()
    width, height = document.width() // 2, document.height() // 3
    chosen.setPixelData(QByteArray(bytes(at % 256 for at in range(width * height))), width // 2, 40,
                        width, height)
    document.setSelection(chosen)
    alike("a selection", document)
    document.close()


def alike(what, document, **arguments):
    """Whether an edit in a child gives the bytes of the same one in Krita's own process."""
    made, engine = [], child.engine
    for one in (engine, lambda model: work.engine(work.library("krita"), model)):
        child.engine = one
        new, error = tried(document, model=TINY, recipe=recipe(), **arguments)
        made.append(error if new is None else (data(new, document), new.bounds()))
        if new is not None:
            new.remove()
            document.waitForDone()
    child.engine = engine
    good = not isinstance(made[0], str) and made[0] == made[1]
    errors = [one for one in made if isinstance(one, str)]
    check(f"{what}: a child's bytes are those of Krita's own process {errors or ''}", good)


def deaths():
    """A script's edit whose child dies: an error with a text, and the picture as it was."""
    document = load(COAST)
    before = seen(document)
    for where, steps in (("run", LONG), ("render", 4)):
        dies(where)
        new, error = tried(document, model=TINY, recipe=recipe(steps))
        check(f"a library that crashes ({where}) is told: {error}", new is None and "SIGABRT" in error)
        check("and the picture is as it was", seen(document) == before)
    live()
    new, error = tried(document, model="/no/such/model", recipe=recipe())
    check(f"a folder that is no model is refused: {error}", new is None and "/no/such/model" in error)

    def stop(_, fraction):
        if fraction > 0.05:
            raise Stopped

    try:
        base.edit(document, top(document), model=TINY, recipe=recipe(LONG), told=stop)
        check("a cancelled script ends", False)
    except Stopped:
        check("a cancelled script ends", True)
    check("all that left the picture as it was", seen(document) == before)
    document.close()


def fill(window, steps):
    window.text["from"].setText(BEFORE)
    window.text["to"].setText(AFTER)
    window.fields["steps"][1].setText(str(steps))


def process(window):
    return window.studio.engine.child.process


def busy(window):
    """Whether the child is in the middle of a run."""
    state = window.studio.state
    return state.busy and state.phase in ("invert", "edit")


def expected(steps):
    document = load(command(COAST, f"k-cli-child-{steps}.png", *line(steps)))
    wanted = data(top(document), document)
    document.close()
    return wanted


def window():
    """The window: preview, loupe, result; edit again; another model."""
    document = load(COAST)
    below, found = top(document), {}

    def first(window):
        found["offered"] = [window.models.itemText(at) for at in range(window.models.count())]
        fill(window, LONG)
        yield lambda: busy(window)
        with open(f"/proc/{process(window).pid}/oom_score_adj") as file:
            found["score"] = file.read().strip()
        fill(window, 4)
        yield lambda: ready(window)
        found["superseded"] = window.studio.state.result.recipe()["steps"] == 4
        window.preview.zooms.setCurrentIndex(2)
        window.preview.zooms.activated.emit(2)
        yield lambda: ready(window)
        picture = window.preview.picture
        found["loupe"] = picture.view[2:] == (520, 400, 1.0) and picture.before != picture.after
        found["view"] = picture.view
        shown = picture.after.convertToFormat(5)  # ARGB32: BGRA in memory
        found["part"] = shown.constBits().asstring(520 * 400 * 4)
        window._copy()
        found["command"] = window.said.text()
        window._ok()
        yield lambda: False

    done = drive(Window(None, document, below, model=TINY), first)
    check("the window offers the model", found.get("offered") == [
        "Inside the library", TINY, "A folder…"])
    check("its process is the first to go when memory runs out", found.get("score") == "1000")
    check("a newer wish supersedes a running preview", found.get("superseded"))
    check("the loupe shows layer pixels", found.get("loupe"))
    check("the command names the model", f"--model {TINY}" in found.get("command", ""))
    new, wanted = top(document), expected(4)
    check("OK makes a layer with the command line's bytes", bool(done)
          and len(document.topLevelNodes()) == 2 and data(new, document) == wanted)
    if "view" in found:
        left, upper, width, height, _ = found["view"]
        row = document.width() * 4
        there = b"".join(wanted[(upper + y) * row + left * 4:][:width * 4] for y in range(height))
        most = max(abs(a - b) for a, b in zip(found["part"], there))
        check(f"the preview was the result, to {most} of 255", most <= 1)

    def again(window):
        found["again"] = window.model, window._recipe()
        fill(window, 6)
        yield lambda: ready(window)
        window._ok()
        yield lambda: False

    drive(Window(None, document, new), again)
    check("edit again opens with the layer's model and recipe", found.get("again", ("", {}))[0] == TINY
          and found["again"][1].get("steps") == 4
          and found["again"][1].get("text", {}).get("to") == AFTER)
    check("and replaces the layer by the command line's bytes", len(document.topLevelNodes()) == 2
          and data(top(document), document) == expected(6))

    def others(window):
        window._use("/no/such/model")
        found["none"] = window.said.text(), window.buttons["&OK"].isEnabled()
        window._use("")
        window.text["to"].setText("")
        window.text["from"].setText("")
        window.strengths["sunset"].setValue(0.8)
        window.fields["steps"][1].setText("")
        yield lambda: ready(window)
        window._ok()
        yield lambda: False

    drive(Window(None, document, below, recipe(), "/gone/with/the/disk"), others)
    check(f"a folder that is no model is told: {found.get('none', ('',))[0]}", "none" in found
          and "/no/such/model" in found["none"][0] and not found["none"][1])
    inside = load(command(COAST, "k-cli-inside.png", "-a", "sunset=0.8"))
    check("and another model can be chosen in its place",
          data(document.topLevelNodes()[1], document) == data(top(inside), inside))
    inside.close()
    document.close()


def window_deaths():
    """The window when the child is killed, crashes or is not wanted any more."""
    document = load(COAST)
    below, found = top(document), {}
    before = seen(document)

    def killed(window):
        fill(window, LONG)
        yield lambda: busy(window)
        os.kill(process(window).pid, signal.SIGKILL)
        yield lambda: "SIGKILL" in window.said.text()
        found["killed"] = window.said.text(), seen(document) == before
        window.grab().save(f"{OUT}/krita-killed.png")
        fill(window, 4)
        yield lambda: ready(window)
        found["after"] = window.said.text()
        os.kill(process(window).pid, signal.SIGKILL)
        window._ok()  # nothing of it is seen yet
        yield lambda: "SIGKILL" in window.said.text()
        found["late"] = window.isVisible(), seen(document) == before
        window._ok()
        yield lambda: False

    done = drive(Window(None, document, below, model=TINY), killed)
    check(f"a killed process is told: {found.get('killed', ('',))[0]}", "killed" in found)
    check("and the picture is as it was", found.get("killed", (0, 0))[1])
    check("the next edit starts another", "SIGKILL" not in found.get("after", "SIGKILL"))
    check("killed at OK, the window stays, the picture is as it was", found.get("late") == (True, True))
    check("OK again makes the layer", bool(done) and len(document.topLevelNodes()) == 2
          and data(top(document), document) == expected(4))
    top(document).remove()
    document.waitForDone()

    def crashed(window):
        fill(window, LONG)
        yield lambda: "SIGABRT" in window.said.text()
        found["crashed"] = seen(document) == before
        dies("render")
        fill(window, 4)
        yield lambda: ready(window)
        window._ok()
        yield lambda: "SIGABRT" in window.said.text()
        found["rendering"] = seen(document) == before
        live()
        fill(window, LONG)
        yield lambda: busy(window)
        found["process"] = process(window)
        window.reject()
        yield lambda: False

    dies("run")
    done = drive(Window(None, document, below, model=TINY), crashed)
    check("a library that crashes while it runs leaves the picture as it was", found.get("crashed"))
    check("one that crashes while it renders, too", found.get("rendering"))
    check("so does Cancel during a run", done is None and seen(document) == before)
    check("and the process is ended", "process" in found and found["process"].poll() is not None)
    document.close()


def main(arguments):
    Krita.instance().setBatchmode(True)  # else a file may be asked about, with nobody to answer
    for stage in (pixels, deaths, window, window_deaths):
        if arguments and stage.__name__ not in arguments:
            continue
        try:
            stage()
        except Exception:
            traceback.print_exc()
            check(f"{stage.__name__}: ended early", False)
    left = glob.glob("/dev/shm/semblance-*") + glob.glob("/tmp/semblance-*")
    check(f"no file with pixels is left behind {left or ''}", not left)
    base.finished()
    sys.stdout.flush()
    os._exit(0)  # Krita's own end takes long and proves nothing
