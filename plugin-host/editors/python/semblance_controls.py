"""What a window's controls say and show, in plain numbers and texts.

For: every editor's window. Not for: any toolkit's widgets. Attributes and parameters are described as the
library lists them.
"""

import semblance_words as words


def about_attribute(one):
    """A slider's explanation."""
    text = one["description"]
    if not one["served"]:
        text += f" Not for this model: for {', '.join(one['models'])}."
    return text


def about_parameter(one):
    """A field's explanation."""
    bounds = f" {one['min']} to {one['max']}." if "min" in one else ""
    unit = f" Unit: {one['unit']}." if one["unit"] else ""
    return one["help"] + bounds + unit


def absent(one):
    """What an empty field means."""
    return "as the model says" if one["default"] is None else str(one["default"])


def recipe(strengths, extra, text, fields):
    """The recipe that the controls say.

    `strengths`: each slider's number by its attribute's name; `extra`: the recipe's attributes that have
    no slider; `text`: from, to and their strength; `fields`: each parameter and its control's text.
    """
    said = {"semblance": 1}
    sliders = [{"name": name, "strength": round(number, 3)} for name, number in strengths.items()
               if round(number, 3) != 0]
    if sliders + extra:
        said["attributes"] = sliders + extra
    before, after, strength = text
    if before or after:
        said["text"] = {"from": before, "to": after, "strength": round(strength, 3)}
    for one, value in fields:
        if one["type"] == "choice":
            if value != one["default"]:
                said[one["id"]] = value
        elif value.strip():
            value = value.strip()
            said[one["id"]] = value if one["type"] == "text" else words.typed(value, one["type"])
    return said


def shown(recipe, names, parameters):
    """What the controls show of a recipe: strengths, extra, text and fields as in `recipe` above, for
    sliders of these names and fields of these parameters."""
    given = {one["name"]: one.get("strength", 1) for one in recipe.get("attributes", [])}
    strengths = {name: given.pop(name, 0) for name in names}
    extra = [{"name": name, "strength": value} for name, value in given.items()]
    text = recipe.get("text") or {"from": "", "to": ""}
    fields = []
    for one in parameters:
        value = recipe.get(one["id"], one["default"])
        if one["type"] == "choice":
            fields.append((one, value))
        elif value is None or value == one["default"]:
            fields.append((one, ""))
        else:
            fields.append((one, f"{value:g}" if one["type"] == "number" else str(value)))
    return strengths, extra, (text["from"], text["to"], text.get("strength", 1)), fields
