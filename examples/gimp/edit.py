"""One edit of a picture by GIMP 3 without a window; SEMBLANCE_IN, _OUT and _ATTRIBUTES say which:

    SEMBLANCE_IN=in.png SEMBLANCE_OUT=out.png SEMBLANCE_ATTRIBUTES="sunset=0.8, fog=0.3" \\
        gimp-console-3.0 -i -d -f --batch-interpreter=python-fu-eval -b - --quit < examples/gimp/edit.py
"""

import os

from gi.repository import Gimp, Gio

image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path(os.environ["SEMBLANCE_IN"]))
procedure = Gimp.get_pdb().lookup_procedure("plug-in-semblance-edit")
config = procedure.create_config()
config.set_property("run-mode", Gimp.RunMode.NONINTERACTIVE)
config.set_property("image", image)
config.set_core_object_array("drawables", image.get_selected_layers())
config.set_property("attributes", os.environ["SEMBLANCE_ATTRIBUTES"])
result = procedure.run(config)
if result.index(0) != Gimp.PDBStatusType.SUCCESS:
    raise SystemExit(Gimp.get_pdb().get_last_error())
print("new layer:", result.index(1).get_name())
Gimp.file_save(Gimp.RunMode.NONINTERACTIVE, image,
               Gio.File.new_for_path(os.environ["SEMBLANCE_OUT"]), None)
