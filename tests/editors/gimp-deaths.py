"""What is left of a picture in GIMP 3 when the library dies, or is killed, in the middle of an edit.

Run by tests/editors/run inside GIMP's Python batch interpreter, with the library of crashing.c.
"""

import json
import os
import sys
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, "/repo/tests/editors")

from checks import check, finished  # noqa: E402
from gimp3 import COAST, OUT, command, data, edit, load, state  # noqa: E402

DEATH = f"{OUT}/death"
# Steps enough for a middle.
RECIPE = json.dumps({"semblance": 1, "attributes": [{"name": "night", "strength": 1}], "steps": 200})


def deaths():
    for what, death in (("aborts in the middle of a run", "run 6"),
                        ("meets a bad address in the middle of a run", "run 11"),
                        ("is killed in the middle of a run", "run 9"),
                        ("aborts while it writes the pixels", "render 6")):
        for visible in ("layer", "visible"):
            image = load(COAST)
            before = state(image)
            with open(DEATH, "w", encoding="utf-8") as file:
                file.write(death)
            new, _ = edit(image, recipe=RECIPE, source=visible)
            os.remove(DEATH)
            check(f"the library {what} ({visible}): the edit fails", new is None)
            check("the picture is as it was", state(image) == before)
            image.delete()


def life():
    """GIMP goes on, and so does the same library where nothing kills it."""
    image = load(COAST)
    new, error = edit(image, attributes="night=1")
    check(f"after all that an edit is made {error or ''}", new is not None)
    expected = load(command(COAST, "cli-after.png", "-a", "night=1"))
    check("with the command line's bytes", data(new) == data(expected.get_layers()[0]))
    image.delete()
    expected.delete()


for stage in (deaths, life):
    try:
        stage()
    except Exception:
        traceback.print_exc()
        check(f"{stage.__name__}: ended early", False)
finished()
