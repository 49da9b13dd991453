"""Recipes in words: a layer's name, a command line, and back from what a script says.

For: every editor's plug-in. Not for: checking values, which the library does, with better texts.
"""

import json
import os
import shlex

# What the library writes about itself into a recipe; a recipe of the user's own does not carry it.
STAMP = "stamp"


def number(value):
    """At most three decimals, without needless zeros, as the command line writes it."""
    return f"{round(float(value), 3) + 0.0:.3f}".rstrip("0").rstrip(".")


def title(recipe):
    """The edit in a few words, for a layer's name: `sunset 0.8, fog 0.3`."""
    parts = []
    for slider in recipe.get("attributes", []):
        name = slider["name"]
        if "/" in name or name.endswith(".toml"):
            name = os.path.splitext(os.path.basename(name))[0]
        parts.append(f"{name} {number(slider.get('strength', 1))}")
    text = recipe.get("text")
    if text:
        to, strength = text.get("to", "edit")[:60], number(text.get("strength", 1))
        parts.append(to if strength == "1" else f"{to} {strength}")
    return ", ".join(parts)


def sliders(text):
    """The attributes of a script's `sunset=0.8, fog=0.3`; raises ValueError."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, strength = part.rpartition("=")
        try:
            found.append({"name": name.strip(), "strength": float(strength)})
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise ValueError(f"attributes: {part!r}: must be NAME=STRENGTH (try sunset=0.8)")
    return found


def recipe_of(text):
    """The recipe in a JSON text, without the library's stamp; raises ValueError."""
    try:
        recipe = json.loads(text)
    except ValueError as error:
        raise ValueError(f"recipe: {error} (try {{\"semblance\": 1, \"attributes\": []}})") from None
    if not isinstance(recipe, dict):
        raise ValueError("recipe: must be a JSON object (try {\"semblance\": 1})")
    recipe.pop(STAMP, None)
    return recipe


def asked(text="", attributes="", before="", after="", strength=1.0, seed=0):
    """The recipe that a script asks for: that of the JSON `text`, with the others in its place."""
    recipe = recipe_of(text) if text else {"semblance": 1}
    given = sliders(attributes)
    if given:
        recipe["attributes"] = given
    if before or after:
        recipe["text"] = {"from": before, "to": after, "strength": strength}
    if seed or "seed" not in recipe:
        recipe["seed"] = seed
    if not changes(recipe):
        raise ValueError("nothing to change (say attributes \"sunset=0.8\", or words from and to, "
                         "or a recipe)")
    return recipe


def changes(recipe):
    """Whether a recipe says anything at all; the library refuses one that does not."""
    return bool(recipe.get("attributes") or recipe.get("text"))


def typed(text, kind):
    """A number where a field's text is one; else the text, which the library refuses with its range."""
    try:
        return int(text) if kind == "integer" else float(text)
    except ValueError:
        return text


def command(recipe, source, model="", mask=False):
    """The line that makes the same edit in a shell, from the file `source`.

    A selection has no file: its place in the line is named SELECTION.png.
    """
    line = ["semblance", "edit", source]
    for slider in recipe.get("attributes", []):
        line += ["-a", f"{slider['name']}={number(slider.get('strength', 1))}"]
    text = recipe.get("text")
    if text:
        line += ["--from", text["from"], "--to", text["to"]]
        if text.get("strength", 1) != 1:
            line += ["--strength", number(text["strength"])]
    for key in ("scene", "seed", "steps", "guidance", "noise", "compositor", "radius", "epsilon", "rest"):
        if key in recipe:
            line += [f"--{key}", str(recipe[key])]
    if mask:
        line += ["--mask", "SELECTION.png"]
    if model:
        line += ["--model", model]
    stem = os.path.splitext(os.path.basename(source))[0]
    return shlex.join(line + ["-o", f"{stem}-edited.png"])
