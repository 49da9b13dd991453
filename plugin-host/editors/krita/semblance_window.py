"""The window: sliders made from the library's lists, a preview that is the result, one new layer.

For: Krita's menu entry. Not for: the work, which semblance_work does on its own thread and this
window polls from a timer, nor pixels (semblance_nodes).
"""

from PyQt5.QtCore import Qt, QTimer
from PyQt5.QtWidgets import (QApplication, QCheckBox, QComboBox, QDialog, QDoubleSpinBox, QFileDialog,
                             QFormLayout, QGridLayout, QHBoxLayout, QLabel, QLineEdit, QProgressBar,
                             QPushButton, QScrollArea, QSlider, QTabWidget, QVBoxLayout, QWidget)

import semblance
import semblance_child as child
import semblance_controls as controls
import semblance_nodes as nodes
import semblance_words as words
import semblance_work as work
from semblance_preview import Preview

# Milliseconds: after the last change of a control until the edit starts; between looks at the work.
PATIENCE, TICK = 120, 60


class Window(QDialog):
    def __init__(self, parent, document, node, last="", model=""):
        """`last` and `model`: the recipe (JSON) and the model's folder to begin with."""
        super().__init__(parent)
        self.document, self.node = document, node
        self.studio = self.warned = self.source = None
        self.extra, self.strengths, self.fields = [], {}, {}
        self.pending = self.loading = False

        self.memory = nodes.memory(document, node)
        if self.memory is not None and self.memory[1] is None:
            self.memory = None  # what it was made from is gone: a layer like any other
        recipe, self.original, visible, self.selection, self.model = self.memory or (
            words.recipe_of(last) if last else {}, node, False, None, model)

        self.later = QTimer(self, singleShot=True, interval=PATIENCE)
        self.later.timeout.connect(self._restart)
        self._build(visible)
        self._begin(recipe)
        self.ticking = QTimer(self, interval=TICK)
        self.ticking.timeout.connect(self._tick)
        self.ticking.start()

    # -- what is seen ------------------------------------------------------------------------

    def _build(self, visible):
        self.setWindowTitle("Semblance: Edit Attribute")
        self.preview = Preview(self._redraw)

        self.sliders = QGridLayout()
        list_ = QWidget()
        list_.setLayout(self.sliders)
        scroll = QScrollArea(widgetResizable=True)
        scroll.setWidget(list_)
        self.text = {"from": QLineEdit(placeholderText="a photo of hills"),
                     "to": QLineEdit(placeholderText="a photo of hills, at night"),
                     "strength": _Amount(-2, 2, 1)}
        in_words = QWidget()
        form = QFormLayout(in_words)
        form.addRow("It show&s", self.text["from"])
        form.addRow("It sho&uld show", self.text["to"])
        form.addRow("How much", self.text["strength"])
        for name in ("from", "to"):
            self.text[name].textChanged.connect(self._changed)
        self.text["strength"].number.valueChanged.connect(self._changed)
        self.parameters = QFormLayout()
        how = QWidget()
        how.setLayout(self.parameters)
        tabs = QTabWidget()
        for widget, name in ((scroll, "&Attributes"), (in_words, "In &words"),
                             (how, "&How it is made")):
            tabs.addTab(widget, name)

        self.models = QComboBox(minimumContentsLength=20)
        self.models.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self.models.setToolTip("A model in a folder runs in a process of its own: should it run out of "
                               "memory, Krita and your work stay")
        self.models.activated.connect(self._choose_model)
        self._list_models()
        self.sources = QComboBox()
        self.sources.addItems([f"This layer ({self.original.name()})", "The visible picture"])
        self.sources.setCurrentIndex(1 if visible else 0)
        self.sources.activated.connect(self._reopen)
        self.replace = QCheckBox("Re&place this layer", checked=True)
        form = QFormLayout()
        form.addRow("Mo&del", self.models)
        form.addRow("Ed&it", self.sources)
        form.addRow("Result", QLabel("a new layer above") if self.memory is None else self.replace)

        self.progress = QProgressBar(maximum=1000)
        self.said = QLabel(wordWrap=True)
        self.said.setTextFormat(Qt.PlainText)
        self.said.setTextInteractionFlags(Qt.TextSelectableByMouse)
        self.said.setMinimumHeight(3 * self.said.fontMetrics().height())
        side = QVBoxLayout()
        for widget in (tabs, self.progress, self.said):
            side.addWidget(widget, 1 if widget is tabs else 0)
        side.insertLayout(1, form)

        buttons = QHBoxLayout()
        self.buttons = {}
        for name, run in (("&Reset", self._reset), ("Copy as Co&mmand", self._copy),
                          ("&Cancel", self.reject), ("&OK", self._ok)):
            button = QPushButton(name, autoDefault=False)
            button.clicked.connect(lambda *_, run=run: run())
            buttons.addWidget(button)
            self.buttons[name] = button
            if run == self._copy:
                buttons.addStretch()
        self.buttons["&OK"].setDefault(True)

        columns = QHBoxLayout()
        columns.addWidget(self.preview, 1)
        columns.addLayout(side)
        whole = QVBoxLayout(self)
        whole.addLayout(columns, 1)
        whole.addLayout(buttons)
        tabs.setMinimumWidth(400)

    def _list_models(self):
        self.models.clear()
        self.models.addItem("Inside the library", "")
        if self.model:
            self.models.addItem(self.model, self.model)
        self.models.addItem("A folder…", None)
        self.models.setCurrentIndex(1 if self.model else 0)

    def _list_attributes(self, engine):
        attributes, parameters = engine.attributes(), engine.parameters()
        for layout in (self.sliders, self.parameters):
            while layout.count():
                layout.takeAt(0).widget().deleteLater()
        self.strengths, self.fields = {}, {}
        for at, one in enumerate(attributes):
            low, high = one.get("range") or (-2, 2)
            amount = _Amount(low, high, 0)
            amount.setEnabled(one["served"])
            amount.setToolTip(controls.about_attribute(one))
            self.sliders.addWidget(QLabel(one["title"] or one["name"]), at, 0)
            self.sliders.addWidget(amount, at, 1)
            amount.number.valueChanged.connect(self._changed)
            if not self.strengths:
                amount.number.setFocus()
                amount.number.selectAll()
            self.strengths[one["name"]] = amount.number
        for p in (p for p in parameters if p["advanced"]):
            if p["type"] == "choice":
                field = QComboBox()
                field.addItems(p["options"])
                field.setCurrentText(p["default"])
                field.currentTextChanged.connect(self._changed)
            else:
                field = QLineEdit(placeholderText=controls.absent(p))
                field.textChanged.connect(self._changed)
            field.setToolTip(controls.about_parameter(p))
            self.parameters.addRow(p["id"].replace("_", " "), field)
            self.fields[p["id"]] = p, field

    # -- from the window to a recipe and back ------------------------------------------------

    def _recipe(self):
        return controls.recipe(
            {name: number.value() for name, number in self.strengths.items()}, self.extra,
            (self.text["from"].text(), self.text["to"].text(), self.text["strength"].number.value()),
            [(p, field.currentText() if p["type"] == "choice" else field.text())
             for p, field in self.fields.values()])

    def _set(self, recipe):
        self.loading, self.recipe = True, recipe
        strengths, self.extra, text, fields = controls.shown(
            recipe, self.strengths, [p for p, _ in self.fields.values()])
        for name, strength in strengths.items():
            self.strengths[name].setValue(strength)
        for name, value in zip(("from", "to"), text):
            self.text[name].setText(value)
        self.text["strength"].number.setValue(text[2])
        for p, value in fields:
            _, field = self.fields[p["id"]]
            if p["type"] == "choice":
                field.setCurrentText(value)
            else:
                field.setText(value)
        self.loading = False

    # -- the work ----------------------------------------------------------------------------

    def _begin(self, recipe):
        """Opens what the window is about and asks for the recipe; says it where the model has none."""
        failed = None
        try:
            self._open()
        except (semblance.Error, OSError) as error:
            if not self.model:
                raise
            failed = error  # the folder is gone, say: another model can be chosen
        self._set(recipe)
        self._restart()
        if failed is not None:
            self._fail(failed)

    def _open(self):
        """The pixels and an engine; raises what cannot be edited and what the library says."""
        visible = self.sources.currentIndex() == 1
        hidden = self.node if self.memory is not None and visible else None
        source = nodes.Source(self.document, self.original, visible, self.selection, hidden)
        self.source = source
        self.preview.set_source(source)
        engine = child.engine(self.model)
        try:
            self._list_attributes(engine)
        except (semblance.Error, OSError):
            engine.__exit__()
            raise
        self.studio = work.Studio(
            engine,
            lambda engine, recipe: engine.start(source.pixels(), recipe, source.mask,
                                                semblance.PREVIEW),
            self.preview.draw)

    def _reopen(self, *_):
        """After another source or model was chosen; the recipe stays."""
        recipe = self._recipe() if self.fields else self.recipe
        self._end_studio()
        try:
            self._open()
        except (semblance.Error, nodes.Refused, OSError, MemoryError) as error:
            self._fail(error)
            return
        self._set(recipe)
        self._restart()

    def _changed(self, *_):
        if not self.loading:
            self.later.start()

    def _restart(self):
        """Asks for what the controls say."""
        if self.studio is None:
            return
        recipe = self._recipe()
        self._say("")
        self.warned = None
        some = words.changes(recipe)
        self.buttons["&OK"].setEnabled(some)
        if some:
            self.studio.wish(recipe)
        else:
            self.studio.forget()
            self._progress(0, "Move a slider")
            self.preview.show_picture(self.preview.draw(None))

    def _redraw(self):
        """Another part of the picture, or another size."""
        recipe = self._recipe()
        if self.studio is not None and words.changes(recipe):
            self.studio.wish(recipe)
        else:
            self.preview.show_picture(self.preview.draw(None))

    def _tick(self):
        try:
            self._look()
        except Exception as error:  # said once, not at every tick
            self.ticking.stop()
            self._fail(error)

    def _look(self):
        """Shows how far the work is."""
        if self.studio is None or self.studio.state.recipe is None:
            return
        state = self.studio.state
        self.preview.show_picture(state.picture)
        self._progress(state.fraction, (state.phase or "…") if state.busy else "Done")
        if state.error is not None:
            self._progress(0, "")
            self.pending = False
            self._fail(state.error)
        elif state.result is not None and not state.busy:
            if self.warned is not state.result:
                self.warned = state.result
                self._say("\n".join(filter(None, [self.source.warning]
                                           + state.result.report()["warnings"])))
            if self.pending and state.recipe == self._recipe():
                self.pending = False
                self.accept()

    def _progress(self, fraction, text):
        self.progress.setValue(int(1000 * min(1.0, max(0.0, fraction))))
        self.progress.setFormat(text)

    def _fail(self, error):
        """Says an error; OK may try again what failed with the model's process alone."""
        self.buttons["&OK"].setEnabled(isinstance(error, child.Gone))
        self._say(error)

    def _say(self, what):
        self.said.setText(str(what) or repr(what) if isinstance(what, Exception) else what)
        font = self.said.font()
        font.setBold(isinstance(what, Exception))
        self.said.setFont(font)

    # -- buttons -----------------------------------------------------------------------------

    def _reset(self):
        self._set({})
        self._restart()

    def _choose_model(self, index):
        chosen = self.models.itemData(index)
        if chosen is None:
            chosen = QFileDialog.getExistingDirectory(self, "The folder of a model", self.model)
            chosen = chosen or self.model
        self._use(chosen)

    def _use(self, model):
        """Goes on with the model in this folder."""
        changed, self.model = model != self.model, model
        self._list_models()
        if changed:
            self._reopen()

    def _copy(self):
        file = self.document.fileName()
        if not file or file.endswith((".kra", ".krz")):
            file = "IN.png"  # the command line reads no file of Krita's own
        line = words.command(self._recipe(), file, self.model,
                             self.source is not None and self.source.mask_bytes is not None)
        QApplication.clipboard().setText(line)
        self._say(line)

    def _ok(self):
        if self.studio is None:
            self._reopen()
            if self.studio is None:
                return
        state = self.studio.state
        if self.later.isActive() or state.error is not None or state.recipe is None:
            self.later.stop()
            self._restart()
        self.pending = True

    def ask(self):
        """Shows the window; puts the new layer into the picture. Returns its recipe, None if cancelled."""
        while self.exec_() == QDialog.Accepted:
            recipe = self.studio.state.recipe
            QApplication.setOverrideCursor(Qt.WaitCursor)
            try:
                self._put(self.studio.state.result)
                return recipe
            except (semblance.Error, nodes.Refused, OSError, MemoryError) as error:
                self.studio.forget()
                self._progress(0, "")
                self._fail(error)
            finally:
                QApplication.restoreOverrideCursor()
        return None

    def _put(self, result):
        data, _ = self.source.render(result)
        replaces = self.node if self.memory is not None and self.replace.isChecked() else None
        nodes.add(self.source, data, result.recipe(), replaces, self.model)

    def end(self):
        """Gives the engine back; the window is gone."""
        self.later.stop()
        self.ticking.stop()
        self._end_studio()
        self.deleteLater()

    def _end_studio(self):
        if self.studio is not None:
            self.studio.close()
            self.studio = None


class _Number(QDoubleSpinBox):
    """Shows a third decimal only where there is one."""

    def textFromValue(self, value):
        return self.locale().toString(value, "f", 2 if round(value, 2) == round(value, 3) else 3)


class _Amount(QWidget):
    """A slider and its number, which follow each other."""

    def __init__(self, low, high, value):
        super().__init__()
        slider = QSlider(Qt.Horizontal, minimum=round(low * 100), maximum=round(high * 100),
                         pageStep=25, singleStep=5)
        slider.setTickPosition(QSlider.TicksBelow)
        slider.setTickInterval(100)
        self.number = _Number(decimals=3, minimum=low, maximum=high, singleStep=0.05)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(slider, 1)
        row.addWidget(self.number)
        slider.valueChanged.connect(lambda at: self._moved(slider, at))
        self.number.valueChanged.connect(lambda v: slider.setValue(round(v * 100)))
        self.number.setValue(value)

    def _moved(self, slider, at):
        # Not what the number itself sent: it may lie between two places of the slider.
        if round(self.number.value() * 100) != at:
            self.number.setValue(at / 100)
