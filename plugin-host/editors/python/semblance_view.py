"""Where a preview looks, in plain numbers.

For: every editor's preview. Not for: any toolkit's pictures and events.
"""

WIDTH, HEIGHT = 520, 400
ZOOMS = [("Fit", None), ("50 %", 0.5), ("100 %", 1.0), ("200 %", 2.0)]
# Screen pixels within which a press takes hold of the before/after line.
REACH = 12


def part(width, height, zoom, center):
    """left, top, width, height of what is seen of a layer, and screen pixels a layer pixel.

    `zoom` is such a scale or None, for all of the layer; `center` is (0..1, 0..1) of the layer.
    """
    scale = zoom or min(WIDTH / width, HEIGHT / height, 8.0)
    w, h = min(width, int(WIDTH / scale)), min(height, int(HEIGHT / scale))
    if zoom is None:
        w, h = width, height
    left = round(center[0] * width - w / 2)
    top = round(center[1] * height - h / 2)
    return max(0, min(left, width - w)), max(0, min(top, height - h)), w, h, scale


def shown(view):
    """The size on the screen of such a part."""
    return max(1, round(view[2] * view[4])), max(1, round(view[3] * view[4]))


def sampled(view):
    """The rows of the layer that make a good picture of a part, and the picture's own size."""
    _, top, width, height, scale = view
    # Of large pictures only as many rows as make a good reduction.
    rows = range(top, top + height, max(1, int(0.5 / scale)))
    return rows, (width, height) if scale >= 1 else shown(view)


def dragged(center, by, view, width, height):
    """The center after the picture was pulled by so many screen pixels (x, y).

    Kept where the view still moves, so that pulling back answers at once.
    """
    return tuple(max(part / 2 / whole, min(1 - part / 2 / whole, old - pull / view[4] / whole))
                 for old, pull, part, whole in ((center[0], by[0], view[2], width),
                                                (center[1], by[1], view[3], height)))
