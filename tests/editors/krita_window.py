"""The extension in a real window of Krita: menu, slider, preview, new layer, edit again, undo.

Put beside the extension by tests/editors/window, as one more extension, which drives Krita from
within and looks at the picture through Krita itself; keys come from xdotool.
"""

import os
import signal
import subprocess
import sys
import time
import traceback

from krita import Extension, Krita
from PyQt5.QtCore import QTimer
from PyQt5.QtWidgets import QApplication

sys.path.append("/repo/tests/editors")

import semblance_krita  # noqa: E402
import krita_checks as base  # noqa: E402
from krita_checks import check, data, load, ready, top  # noqa: E402

OUT, TITLE, TINY = "/out", "Semblance: Edit Attribute", "/repo/tests/fixtures/tiny"


def keys(*words):
    subprocess.run(["xdotool", *words])


def shot(name):
    subprocess.run(["import", "-window", "root", f"{OUT}/{name}.png"])


def window():
    """Our window, if it is open."""
    found = QApplication.activeModalWidget()
    return found if found is not None and found.windowTitle() == TITLE else None


def entry(*names):
    """An entry of Krita's menus, or None."""
    items = Krita.instance().activeWindow().qwindow().menuBar().actions()
    for at, name in enumerate(names):
        found = [item for item in items if item.text().replace("&", "") == name]
        if not found:
            return None
        if at + 1 == len(names):
            return found[0]
        items = found[0].menu().actions()
    return None


def start(name):
    # Not from the timer that follows the script: the window runs a loop of its own.
    QTimer.singleShot(0, entry("Filter", "Semblance", name).trigger)


def shown():
    """Whether our window shows its result."""
    return window() is not None and ready(window())


def killed():
    """Kills the process of the model in the middle of a run; once that is over, in that of another."""
    at = window()
    if at.studio is None:
        return False
    if at.studio.state.phase in ("invert", "edit"):
        os.kill(at.studio.engine.child.process.pid, signal.SIGKILL)
        return True
    if ready(at):
        steps = at.fields["steps"][1]
        steps.setText(str(int(steps.text()) - 1))
    return False


def script():
    krita = Krita.instance()
    yield lambda: krita.activeWindow() is not None
    document = load(base.COAST)
    krita.activeWindow().addView(document)
    yield lambda: krita.activeDocument() is not None and document.activeNode() is not None
    expected = {s: data(top(load(f"{OUT}/cli-{s}.png")), document) for s in ("0.8", "0.4")}
    bottom = top(document).name()

    def names():
        return [node.name() for node in document.topLevelNodes()]

    check("the menu has Filter ▸ Semblance ▸ Edit Attribute…",
          entry("Filter", "Semblance", "Edit Attribute…") is not None)
    start("Edit Attribute…")
    yield window
    check("the menu opens the window", True)
    end = [0]

    def later(ticks):
        end[0] = ticks

        def passed():
            end[0] -= 1
            return end[0] <= 0
        return passed

    def soon(condition):
        """Until the condition holds, or for so long that the check that follows must tell."""
        end = time.monotonic() + 60
        return lambda: condition() or time.monotonic() > end

    def undo():
        document.waitForDone()
        krita.action("edit_undo").trigger()
        document.waitForDone()

    yield soon(lambda: window().isActiveWindow())
    yield later(20)
    keys("key", "ctrl+a")
    keys("type", "--delay", "80", "0.8")
    keys("key", "Tab")
    yield soon(lambda: window().strengths["sunset"].value() == 0.8)
    yield later(10)
    yield shown
    check("a number typed moves the slider", window().strengths["sunset"].value() == 0.8)
    window().preview.both.setChecked(True)
    yield later(10)
    shot("krita-dialog")
    check("a preview leaves the picture as it was", names() == [bottom])
    keys("key", "alt+o")
    yield lambda: window() is None and len(names()) == 2
    yield soon(lambda: document.activeNode() == top(document))
    yield later(10)
    shot("krita-edited")
    check("OK adds a layer", names() == [bottom, "sunset 0.8"])
    check("its pixels are the command line's", data(top(document), document) == expected["0.8"])
    check("it is the active layer", document.activeNode() == top(document))

    start("Edit Attribute…")
    yield shown
    yield later(10)
    window().strengths["sunset"].setValue(0.4)
    yield later(10)
    yield shown
    keys("key", "alt+o")
    yield lambda: window() is None and names()[-1] == "sunset 0.4"
    # Krita takes the old one away after it has put the new one there.
    yield soon(lambda: names() == [bottom, "sunset 0.4"])
    check("edit again replaces the layer", names() == [bottom, "sunset 0.4"])
    check("its pixels are the command line's", data(top(document), document) == expected["0.4"])
    for _ in range(2):
        undo()
        yield later(10)
    yield soon(lambda: names() == [bottom, "sunset 0.8"])
    check("two undo steps bring the layer before back", names() == [bottom, "sunset 0.8"])
    check("with its recipe", base.nodes.memory(document, top(document)) is not None)
    undo()
    yield later(10)
    yield soon(lambda: names() == [bottom])
    check("one more takes it away", names() == [bottom])

    top(document).setOpacity(150)
    new = semblance_krita.edit(document, attributes="fog=0.5")
    yield later(10)
    yield soon(lambda: document.activeNode() == new and not document.topLevelNodes()[0].visible())
    check("a translucent layer's result hides it", not document.topLevelNodes()[0].visible()
          and new.visible() and document.activeNode() == new)
    for _ in range(2):
        undo()
        yield later(10)
    yield soon(lambda: names() == [bottom] and top(document).visible())
    check("two undo steps take the result away and show the layer again",
          names() == [bottom] and top(document).visible())
    top(document).setOpacity(255)

    document.setActiveNode(top(document))
    start("Repeat Last")
    yield lambda: len(names()) == 2
    yield later(10)
    check("Repeat Last makes the same edit", names() == [bottom, "sunset 0.4"]
          and data(top(document), document) == expected["0.4"])
    undo()
    yield later(10)

    start("Edit Attribute…")
    yield shown
    yield later(10)
    keys("key", "Escape")
    yield lambda: window() is None
    check("Escape closes the window and leaves the picture as it was", names() == [bottom])

    start("Edit Attribute…")
    yield shown
    yield later(10)
    window()._use(TINY)
    window()._set({})
    window().text["from"].setText("a photo")
    window().text["to"].setText("a photo at night")
    window().fields["steps"][1].setText("1000")
    yield killed
    yield lambda: "SIGKILL" in window().said.text()
    yield later(10)
    shot("krita-killed")
    check(f"a model's process that is killed is told: {window().said.text()}", names() == [bottom])
    window().fields["steps"][1].setText("4")
    yield later(10)
    yield shown
    keys("key", "alt+o")
    yield lambda: window() is None and len(names()) == 2
    yield later(10)
    tiny = data(top(load(f"{OUT}/cli-tiny.png")), document)
    check("the next one makes a layer with the command line's bytes",
          data(top(document), document) == tiny)
    undo()
    yield later(10)
    yield soon(lambda: names() == [bottom])
    check("one undo step takes it away", names() == [bottom])
    start("Repeat Last")
    yield lambda: len(names()) == 2
    yield later(10)
    check("Repeat Last asks the same model", data(top(document), document) == tiny)
    stop()


def stop():
    base.finished()
    os._exit(0)


class Driver(Extension):
    def setup(self):
        pass

    def createActions(self, _):
        if not hasattr(Driver, "timer"):
            Driver.late = QTimer(singleShot=True)
            Driver.late.timeout.connect(late)
            Driver.late.start(600000)
            Driver.timer = base.follow(script(), stop)


def late():
    traceback.print_stack()
    shot("krita-late")
    check("the script came to its end", False)
    stop()


Krita.instance().addExtension(Driver(Krita.instance()))
