"""What a layer of GIMP 2.10 remembers, read by the plug-in of GIMP 3. Run by tests/editors/run inside GIMP 3."""

import sys

from gi.repository import Gimp, Gio

sys.path.insert(0, "/out/gimp/plug-ins/semblance-edit")
import semblance_layers as layers  # noqa: E402

image = Gimp.file_load(Gimp.RunMode.NONINTERACTIVE, Gio.File.new_for_path("/out/selection.xcf"))
new, below = image.get_layers()
recipe, source, visible, (cover, place), model = layers.memory(new)
passed = (recipe["attributes"] == [{"name": "snow", "strength": 1.0}] and "stamp" not in recipe
          and source == below and not visible and model == "" and place[4] == "u8"
          and len(cover) == place[2] * place[3] and max(cover) > 200)
print("ok    " if passed else "FAILED",
      "GIMP 3 knows recipe, model, source and selection of a layer of GIMP 2.10", flush=True)
