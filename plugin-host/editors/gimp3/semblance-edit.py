#!/usr/bin/env python3
"""Semblance in GIMP 3: Filters ▸ Semblance ▸ Edit Attribute…, and the same for scripts.

For: GIMP's procedure and what its run modes mean. Not for: pixels (semblance_layers), the window
(semblance_dialog). GIMP starts this file in a process of its own, for one call at a time.
"""

import sys

import gi

gi.require_version("Gimp", "3.0")
from gi.repository import Gimp, GLib, GObject  # noqa: E402

import semblance  # noqa: E402
import semblance_layers as layers  # noqa: E402
import semblance_words as words  # noqa: E402
import semblance_work as work  # noqa: E402

NAME = "plug-in-semblance-edit"
READ_WRITE = GObject.ParamFlags.READWRITE


def said(config, name):
    """An argument's text; GIMP hands an empty default over as None or as "", as it likes."""
    return config.get_property(name) or ""


def asked(config):
    """The recipe that a script's arguments say: that of `recipe`, with the others in its place."""
    return words.asked(said(config, "recipe"), said(config, "attributes"),
                       said(config, "from-text"), said(config, "to-text"),
                       config.get_property("text-strength"), config.get_property("seed"))


def edit(image, layer, recipe, model, visible):
    """A whole edit without a window; returns the new layer."""
    source = layers.Source(image, layer, visible)
    Gimp.progress_init("Semblance")

    def told(phase, fraction):
        Gimp.progress_set_text(f"Semblance: {phase}")
        Gimp.progress_update(fraction)

    with work.engine(work.library("gimp"), model) as engine:
        job = engine.start(source.pixels(), recipe, source.mask)
        result = work.finish(job, told)
        data, _ = source.render(result)
        new = layers.add(source, data, result.recipe(), model)
        for warning in result.report()["warnings"]:
            Gimp.message(f"Semblance: {warning}")
    Gimp.progress_end()
    return new


def run(procedure, mode, image, drawables, config, _data):
    def ended(status, new=None, error=None):
        values = procedure.new_return_values(status, error)
        if new is not None:
            values.remove(1)
            values.insert(1, _value(new))
        return values

    try:
        layer = layers.check(image, drawables)
        if mode == Gimp.RunMode.INTERACTIVE:
            import semblance_dialog  # only here: a batch run has no display
            new = semblance_dialog.run(image, layer, config)
            if new is None:
                return ended(Gimp.PDBStatusType.CANCEL)
        else:
            visible = config.get_property("source") == "visible"
            new = edit(image, layer, asked(config), said(config, "model"), visible)
    except (semblance.Error, layers.Refused, OSError, ValueError, MemoryError) as error:
        text = GLib.Error.new_literal(Gimp.PlugIn.error_quark(), str(error) or repr(error), 0)
        return ended(Gimp.PDBStatusType.EXECUTION_ERROR, error=text)
    Gimp.displays_flush()
    return ended(Gimp.PDBStatusType.SUCCESS, new)


def _value(layer):
    value = GObject.Value(Gimp.Layer)
    value.set_object(layer)
    return value


class Semblance(Gimp.PlugIn):
    """One procedure."""

    def do_set_i18n(self, _name):
        return False

    def do_query_procedures(self):
        return [NAME]

    def do_create_procedure(self, name):
        p = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, run, None)
        p.set_image_types("*")
        p.set_sensitivity_mask(Gimp.ProcedureSensitivityMask.DRAWABLE
                               | Gimp.ProcedureSensitivityMask.DRAWABLES)
        p.set_menu_label("_Edit Attribute...")
        p.add_menu_path("<Image>/Filters/Semblance")
        p.set_documentation(
            "Change one attribute of a layer, keep its likeness",
            "Sets attributes (\"sunset=0.8, fog=0.3\"), or follows words (from, to), and puts the "
            "result into a new layer above, named after the edit; nothing outside the selection "
            "changes. The layer keeps its recipe: on such a layer the dialog edits it again.", name)
        p.set_attribution("Semblance", "Semblance", "2026")
        p.add_string_argument("attributes", "_Attributes", "NAME=STRENGTH, separated by commas; a "
                              "strength is -2 to 2, 1 is the full effect", "", READ_WRITE)
        p.add_string_argument("from-text", "_From", "What the picture shows, in words", "",
                              READ_WRITE)
        p.add_string_argument("to-text", "_To", "What it should show", "", READ_WRITE)
        p.add_double_argument("text-strength", "Text _strength", "Strength of the edit in words",
                              -2, 2, 1, READ_WRITE)
        p.add_int_argument("seed", "S_eed", "Seed of all noise", 0, 2**31 - 1, 0, READ_WRITE)
        p.add_string_argument("model", "_Model", "Folder of a model in diffusers layout; empty for "
                              "the one inside the library", "", READ_WRITE)
        choice = Gimp.Choice.new()
        choice.add("layer", 0, "This layer", "")
        choice.add("visible", 1, "The visible image", "")
        p.add_choice_argument("source", "So_urce", "What is edited", choice, "layer", READ_WRITE)
        p.add_string_argument("recipe", "_Recipe", "A complete recipe (JSON); the other arguments "
                              "replace its parts", "", READ_WRITE)
        p.add_layer_return_value("layer", "Layer", "The new layer", True, READ_WRITE)
        return p


Gimp.main(Semblance.__gtype__, sys.argv)
