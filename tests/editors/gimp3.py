"""Pictures in GIMP 3 and the plug-in's procedure, for the scripts that run in its Python batch interpreter.

For: gimp.py, gimp-deaths.py, window.py. Not for: checks, windows.
"""

import subprocess

import gi

gi.require_version("Gegl", "0.4")
from gi.repository import Gegl, Gimp, Gio

SEMBLANCE, OUT = "/repo/target/release/semblance", "/out"
COAST, TOWN = "/repo/examples/coast.png", "/repo/examples/town.png"
QUIET = Gimp.RunMode.NONINTERACTIVE


def load(path):
    return Gimp.file_load(QUIET, Gio.File.new_for_path(path))


def data(drawable):
    rect = Gegl.Rectangle.new(0, 0, drawable.get_width(), drawable.get_height())
    return bytes(drawable.get_buffer().get(rect, 1.0, None, Gegl.AbyssPolicy.NONE))


def state(image):
    """All that an edit could spoil."""
    kept = [(layer.get_id(), layer.get_name(), layer.get_visible(), layer.get_mask() is not None,
             layer.get_offsets()[1:], layer.get_parasite_list(), data(layer))
            for layer in image.get_layers()]
    return kept, [layer.get_id() for layer in image.get_selected_layers()], image.is_dirty()


def edit(image, layers=None, **arguments):
    """(new layer, None) or (None, error text)."""
    procedure = Gimp.get_pdb().lookup_procedure("plug-in-semblance-edit")
    config = procedure.create_config()
    config.set_property("run-mode", QUIET)
    config.set_property("image", image)
    config.set_core_object_array("drawables", layers or image.get_selected_layers())
    for name, value in arguments.items():
        config.set_property(name.replace("_", "-"), value)
    result = procedure.run(config)
    if result.index(0) == Gimp.PDBStatusType.SUCCESS:
        return result.index(1), None
    return None, Gimp.get_pdb().get_last_error()


def command(source, name, *options):
    """The command line's picture of the same edit, as a file."""
    out = f"{OUT}/{name}"
    subprocess.run([SEMBLANCE, "edit", source, "-o", out, *options], check=True, timeout=120,
                   stdout=subprocess.DEVNULL)
    return out
