"""The window: sliders made from the library's lists, a preview that is the result, one new layer.

For: GIMP 3's interactive run. Not for: the work, which semblance_work does on its own thread and
this window polls from a timer, nor pixels (semblance_layers).
"""

import json
import os

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("GimpUi", "3.0")
gi.require_version("Gdk", "3.0")
gi.require_version("Gtk", "3.0")
from gi.repository import Gdk, Gimp, GimpUi, GLib, Gtk  # noqa: E402

import semblance  # noqa: E402
import semblance_controls as controls  # noqa: E402
import semblance_layers as layers  # noqa: E402
import semblance_words as words  # noqa: E402
import semblance_work as work  # noqa: E402
from semblance_preview import Preview  # noqa: E402

# Milliseconds: after the last change of a control until the edit starts; between looks at the work.
PATIENCE, TICK = 120, 60
COPY, RESET = 1, 2


def run(image, layer, config):
    """Shows the window; returns the new layer, or None when it was cancelled."""
    GimpUi.init("semblance-edit")
    dialog = Dialog(image, layer, config)
    try:
        return dialog.ask()
    finally:
        dialog.close()


class Dialog:
    def __init__(self, image, layer, config):
        self.image, self.layer, self.config = image, layer, config
        self.api = work.library("gimp")
        self.studio = self.warned = None
        self.model, self.extra = config.get_property("model") or "", []
        self.pending = self.done = self.loading = False
        self.timer = self.ticking = 0

        self.memory = layers.memory(layer)
        if self.memory is not None and self.memory[1] is None:
            self.memory = None  # what it was made from is gone: a layer like any other
        visible = config.get_property("source") == "visible"
        recipe = {}
        if self.memory is not None:
            recipe, self.original, visible, self.selection, model = self.memory
            # As when it was made, unless that folder is gone.
            if model == "" or model is not None and os.path.isdir(model):
                self.model = model
        else:
            self.original, self.selection = layer, None
            if config.get_property("recipe"):
                recipe = words.recipe_of(config.get_property("recipe"))

        self._build(visible)
        self._open()
        self._set(recipe)
        self.window.show_all()
        self._restart()
        self.first.grab_focus()
        self.ticking = GLib.timeout_add(TICK, self._tick)

    # -- what is seen ------------------------------------------------------------------------

    def _build(self, visible):
        self.window = GimpUi.Dialog(title="Semblance: Edit Attribute", role="semblance-edit")
        self.window.add_button("_Reset", RESET)
        self.window.add_button("Copy as Co_mmand", COPY)
        self.window.add_button("_Cancel", Gtk.ResponseType.CANCEL)
        self.window.add_button("_OK", Gtk.ResponseType.OK)
        self.window.set_default_response(Gtk.ResponseType.OK)
        self.window.connect("response", self._answer)

        columns = Gtk.Box(spacing=12, border_width=12)
        self.window.get_content_area().pack_start(columns, True, True, 0)
        self.preview = Preview(self._redraw)
        columns.pack_start(self.preview, True, True, 0)
        side = Gtk.Box(orientation=Gtk.Orientation.VERTICAL, spacing=6)
        side.set_size_request(380, -1)
        columns.pack_start(side, False, False, 0)

        self.sliders = Gtk.Grid(column_spacing=6, row_spacing=2)
        scroll = Gtk.ScrolledWindow(hscrollbar_policy=Gtk.PolicyType.NEVER)
        scroll.set_min_content_height(250)
        scroll.add(self.sliders)
        side.pack_start(scroll, True, True, 0)

        self.text = {"from": Gtk.Entry(), "to": Gtk.Entry(),
                     "strength": Gtk.Adjustment(value=1, lower=-2, upper=2, step_increment=0.05)}
        grid = Gtk.Grid(column_spacing=6, row_spacing=4, border_width=6)
        _row(grid, 0, "It show_s", self.text["from"])
        _row(grid, 1, "It sho_uld show", self.text["to"])
        _row(grid, 2, "How much", _scale(self.text["strength"]))
        self.text["from"].set_placeholder_text("a photo of hills")
        self.text["to"].set_placeholder_text("a photo of hills, at night")
        for part in self.text.values():
            part.connect("value-changed" if part is self.text["strength"] else "changed",
                         self._changed)
        side.pack_start(_expander("In _words", grid), False, False, 0)
        self.parameters = Gtk.Grid(column_spacing=6, row_spacing=4, border_width=6)
        side.pack_start(_expander("_How it is made", self.parameters), False, False, 0)

        grid = Gtk.Grid(column_spacing=6, row_spacing=4)
        self.models = Gtk.ComboBoxText()
        self._list_models()
        self.models.connect("changed", self._choose_model)
        _row(grid, 0, "Mo_del", self.models)
        self.sources = Gtk.ComboBoxText()
        self.sources.append_text(f"This layer ({self.original.get_name()})")
        self.sources.append_text("The visible image")
        self.sources.set_active(1 if visible else 0)
        self.sources.connect("changed", lambda *_: self._reopen())
        _row(grid, 1, "Ed_it", self.sources)
        self.replace = Gtk.CheckButton.new_with_mnemonic("Re_place this layer")
        self.replace.set_active(True)
        if self.memory is not None:
            _row(grid, 2, "Result", self.replace)
        else:
            label = Gtk.Label(label="a new layer above", xalign=0)
            _row(grid, 2, "Result", label)
        side.pack_start(grid, False, False, 0)

        self.progress = Gtk.ProgressBar(show_text=True)
        side.pack_start(self.progress, False, False, 0)
        self.said = Gtk.Label(xalign=0, wrap=True, selectable=True, max_width_chars=50)
        side.pack_start(self.said, False, False, 0)

    def _list_models(self):
        self.loading = True
        self.models.remove_all()
        self.models.append("", "Inside the library")
        if self.model:
            self.models.append(self.model, self.model)
        self.models.append("...", "A folder…")
        self.models.set_active_id(self.model)
        self.loading = False

    def _list_attributes(self):
        for child in self.sliders.get_children() + self.parameters.get_children():
            child.destroy()
        self.strengths, self.first = {}, self.sliders
        for at, one in enumerate(self.engine.attributes()):
            low, high = one.get("range") or (-2, 2)
            amount = Gtk.Adjustment(value=0, lower=low, upper=high, step_increment=0.05,
                                    page_increment=0.25)
            scale = _scale(amount)
            tip = one["description"]
            if not one["served"]:
                tip += f" Not for this model: for {', '.join(one['models'])}."
            scale.set_sensitive(one["served"])
            scale.set_tooltip_text(tip)
            _row(self.sliders, at, (one["title"] or one["name"]).replace("_", "__"), scale)
            if not self.strengths:
                self.first = scale.get_children()[-1]
            self.strengths[one["name"]] = amount
            amount.connect("value-changed", self._changed)
        self.fields = {}
        shown = [p for p in self.engine.parameters() if p["advanced"]]
        for at, p in enumerate(shown):
            if p["type"] == "choice":
                field = Gtk.ComboBoxText()
                for option in p["options"]:
                    field.append(option, option)
                field.set_active_id(p["default"])
            else:
                field = Gtk.Entry(placeholder_text=controls.absent(p))
            field.set_tooltip_text(controls.about_parameter(p))
            field.connect("changed", self._changed)
            _row(self.parameters, at, p["id"].replace("_", " "), field)
            self.fields[p["id"]] = p, field
        self.sliders.show_all()
        self.parameters.show_all()

    # -- from the window to a recipe and back ------------------------------------------------

    def _recipe(self):
        return controls.recipe(
            {name: amount.get_value() for name, amount in self.strengths.items()}, self.extra,
            (self.text["from"].get_text(), self.text["to"].get_text(), self.text["strength"].get_value()),
            [(p, field.get_active_id() if p["type"] == "choice" else field.get_text())
             for p, field in self.fields.values()])

    def _set(self, recipe):
        self.loading = True
        strengths, self.extra, text, fields = controls.shown(
            recipe, self.strengths, [p for p, _ in self.fields.values()])
        for name, strength in strengths.items():
            self.strengths[name].set_value(strength)
        for name, value in zip(("from", "to"), text):
            self.text[name].set_text(value)
        self.text["strength"].set_value(text[2])
        for p, value in fields:
            _, field = self.fields[p["id"]]
            if p["type"] == "choice":
                field.set_active_id(value)
            else:
                field.set_text(value)
        self.loading = False

    # -- the work ----------------------------------------------------------------------------

    def _open(self):
        """An engine and the pixels; raises what the library says."""
        visible = self.sources.get_active() == 1
        hidden = self.layer if self.memory is not None and visible else None
        self.source = layers.Source(self.image, self.original, visible, self.selection, hidden)
        self.engine = work.engine(self.api, self.model)
        try:
            self._list_attributes()
        except semblance.Error:
            self.engine.__exit__()
            raise
        self.preview.set_source(self.source)
        self.studio = work.Studio(
            self.engine,
            lambda engine, recipe: engine.start(self.source.pixels(), recipe, self.source.mask,
                                                semblance.PREVIEW),
            self.preview.draw)

    def _reopen(self):
        """After another model or source was chosen; the recipe stays."""
        recipe = self._recipe()
        if self.studio is not None:
            self.studio.close()
            self.studio = None
        try:
            self._open()
        except (semblance.Error, layers.Refused, OSError, MemoryError) as error:
            self._say(error)
            return
        self._set(recipe)
        self._restart()

    def _changed(self, *_):
        if self.loading:
            return
        if self.timer:
            GLib.source_remove(self.timer)
        self.timer = GLib.timeout_add(PATIENCE, self._later)

    def _later(self):
        self.timer = 0
        self._restart()
        return False

    def _restart(self):
        """Asks for what the controls say."""
        if self.studio is None:
            return
        recipe = self._recipe()
        self._say("")
        self.warned = None
        some = words.changes(recipe)
        self.window.set_response_sensitive(Gtk.ResponseType.OK, some)
        if some:
            self.studio.wish(recipe)
        else:
            self.studio.forget()
            self.progress.set_fraction(0)
            self.progress.set_text("Move a slider")
            self.preview.show_picture(self.preview.draw(None))

    def _redraw(self):
        """Another part of the picture, or another size."""
        recipe = self._recipe()
        if self.studio is not None and words.changes(recipe):
            self.studio.wish(recipe)
        else:
            self.preview.show_picture(self.preview.draw(None))

    def _tick(self):
        if self.studio is None:
            return True
        state = self.studio.state
        if state.recipe is None:
            return True
        self.preview.show_picture(state.picture)
        self.progress.set_fraction(min(1.0, max(0.0, state.fraction)))
        self.progress.set_text(state.phase or "…" if state.busy else "Done")
        if state.error is not None:
            self.progress.set_text("")
            self.progress.set_fraction(0)
            self.pending = False
            self.window.set_response_sensitive(Gtk.ResponseType.OK, False)
            self._say(state.error)
        elif state.result is not None and not state.busy:
            if self.warned is not state.result:
                self.warned = state.result
                self._say("\n".join(state.result.report()["warnings"]))
            if self.pending and state.recipe == self._recipe():
                self.done = True
                Gtk.main_quit()
        return True

    def _say(self, what):
        text = GLib.markup_escape_text(str(what))
        self.said.set_markup(f"<b>{text}</b>" if isinstance(what, Exception) else text)

    # -- buttons -----------------------------------------------------------------------------

    def _choose_model(self, models):
        if self.loading:
            return
        chosen = models.get_active_id()
        if chosen == "...":
            chooser = Gtk.FileChooserDialog(title="The folder of a model", parent=self.window,
                                            action=Gtk.FileChooserAction.SELECT_FOLDER)
            # Among recent files, where it would begin, a path that is typed cannot be taken.
            chooser.set_current_folder(self.model or GLib.get_home_dir())
            chooser.add_button("_Cancel", Gtk.ResponseType.CANCEL)
            chooser.add_button("_Open", Gtk.ResponseType.ACCEPT)
            picked = chooser.run() == Gtk.ResponseType.ACCEPT
            chosen = chooser.get_filename() if picked else self.model
            chooser.destroy()
        if chosen != self.model:
            self.model = chosen
            self._list_models()
            self._reopen()
        else:
            self._list_models()

    def _answer(self, window, response):
        if response == RESET:
            self._set({})
            self._restart()
            self.first.grab_focus()
        elif response == COPY:
            # An XCF file would be of no use to the command line.
            file = self.image.get_imported_file() or self.image.get_exported_file()
            path = file.get_path() if file is not None else None
            line = words.command(self._recipe(), path or "IN.png", self.model,
                                 self.source.mask_bytes is not None)
            clipboard = Gtk.Clipboard.get(Gdk.SELECTION_CLIPBOARD)
            clipboard.set_text(line, -1)
            clipboard.store()
            self._say(line)
        elif response == Gtk.ResponseType.OK:
            if self.timer:
                GLib.source_remove(self.timer)
                self._later()
            self.pending = True
        else:
            Gtk.main_quit()

    def ask(self):
        Gtk.main()
        if not self.done:
            return None
        state = self.studio.state
        data, _ = self.source.render(state.result)
        self.window.hide()
        replaces = self.layer if self.memory is not None and self.replace.get_active() else None
        new = layers.add(self.source, data, state.result.recipe(), self.model, replaces)
        self.config.set_property("recipe", json.dumps(state.recipe))
        self.config.set_property("model", self.model)
        self.config.set_property("source", "visible" if self.source.visible else "layer")
        return new

    def close(self):
        for timer in filter(None, (self.timer, self.ticking)):
            GLib.source_remove(timer)
        if self.studio is not None:
            self.studio.close()
        self.window.destroy()


def _scale(amount):
    """A slider and its number, which is the last child."""
    box = Gtk.Box(spacing=6)
    scale = Gtk.Scale(adjustment=amount, draw_value=False, hexpand=True)
    scale.add_mark(0, Gtk.PositionType.BOTTOM, None)
    scale.add_mark(1, Gtk.PositionType.BOTTOM, None)
    box.pack_start(scale, True, True, 0)
    box.pack_start(Gtk.SpinButton(adjustment=amount, digits=2, width_chars=5), False, False, 0)
    return box


def _row(grid, at, name, widget):
    """A name, whose letter after a _ leads to the widget with Alt, and that."""
    label = Gtk.Label.new_with_mnemonic(name)
    label.set_xalign(0)
    label.set_mnemonic_widget(widget)
    grid.attach(label, 0, at, 1, 1)
    widget.set_hexpand(True)
    grid.attach(widget, 1, at, 1, 1)


def _expander(name, child):
    expander = Gtk.Expander.new_with_mnemonic(name)
    expander.add(child)
    return expander
