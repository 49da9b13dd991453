"""Krita's menu entries, what they do, and the same for scripts.

For: Krita's extension. Not for: pixels (semblance_nodes), the window (semblance_window).
"""

import json

from krita import Extension, Krita
from PyQt5.QtCore import QEventLoop, Qt
from PyQt5.QtWidgets import QApplication, QMenu, QMessageBox, QProgressDialog

import semblance
import semblance_child as child
import semblance_nodes as nodes
import semblance_words as words
import semblance_work as work

EXPECTED = semblance.Error, nodes.Refused, OSError, ValueError, MemoryError


def edit(document, node=None, attributes="", from_text="", to_text="", text_strength=1.0, seed=0,
         source="layer", recipe="", model="", warn=print, told=None):
    """One edit without a window; returns the new layer.

    `attributes` is "NAME=STRENGTH, ..."; `recipe` a complete one (JSON), whose parts the others
    replace; `source` is "layer" or "visible"; `node` is the active one where it is left out. `model` is
    the folder of a model, which then runs in a process of its own, or "" for the embedded one.
    `warn(text)` hears the library's warnings, `told(phase, fraction)` how far it is. Raises an error
    whose text says what to do.
    """
    wanted = words.asked(recipe, attributes, from_text, to_text, text_strength, seed)
    node = nodes.check(document, node)
    taken = nodes.Source(document, node, source == "visible")
    with child.engine(model) as engine:
        job = engine.start(taken.pixels(), wanted, taken.mask)
        result = work.finish(job, told)
        data, _ = taken.render(result)
        for warning in filter(None, [taken.warning] + result.report()["warnings"]):
            warn(f"Semblance: {warning}")
        return nodes.add(taken, data, result.recipe(), model=model)


class Semblance(Extension):
    """One edit at a time, of the active layer."""

    def setup(self):
        pass

    def createActions(self, window):
        top = window.createAction("semblance", "Semblance", "filter")
        menu = QMenu("semblance", window.qwindow())
        top.setMenu(menu)
        for name, text, run in (("semblance_edit", "Edit Attribute…", self.open),
                                ("semblance_repeat", "Repeat Last", self.repeat)):
            action = window.createAction(name, text, "filter/semblance")
            action.triggered.connect(lambda *_, run=run: self._guarded(run))

    def open(self, document, window):
        import semblance_window  # only here: a script needs no window
        last = [Krita.instance().readSetting("semblance", name, "") for name in ("recipe", "model")]
        dialog = semblance_window.Window(window, document, nodes.check(document), *last)
        try:
            recipe = dialog.ask()
        finally:
            dialog.end()
        if recipe is not None:
            Krita.instance().writeSetting("semblance", "recipe", json.dumps(recipe))
            Krita.instance().writeSetting("semblance", "model", dialog.model)

    def repeat(self, document, window):
        recipe = Krita.instance().readSetting("semblance", "recipe", "")
        if not recipe:
            raise ValueError("there is no edit to repeat: must be one made before "
                             "(Filter ▸ Semblance ▸ Edit Attribute…)")
        progress = QProgressDialog("", "Cancel", 0, 1000, window)
        progress.setWindowTitle("Semblance")
        progress.setWindowModality(Qt.WindowModal)
        progress.setMinimumDuration(0)  # modal from the first moment: nothing else can be started
        progress.setValue(0)
        warnings = []

        def told(phase, fraction):
            progress.setLabelText(phase)
            progress.setValue(min(999, int(fraction * 1000)))
            QApplication.processEvents(QEventLoop.AllEvents, 20)
            if progress.wasCanceled():
                raise Cancelled

        try:
            edit(document, recipe=recipe, model=Krita.instance().readSetting("semblance", "model", ""),
                 warn=warnings.append, told=told)
        except Cancelled:
            return
        finally:
            progress.close()
        if warnings:
            QMessageBox.information(window, "Semblance", "\n".join(warnings))

    def _guarded(self, run):
        """Calls `run` with what is active; whatever fails is said, and the picture stays."""
        application = Krita.instance()
        window = application.activeWindow().qwindow()
        document = application.activeDocument()
        if document is None:
            QMessageBox.warning(window, "Semblance", "no picture is open: open one first")
            return
        try:
            run(document, window)
        except EXPECTED as error:
            QMessageBox.warning(window, "Semblance", str(error) or repr(error))


class Cancelled(Exception):
    """The user's Cancel, on its way out of a wait."""
