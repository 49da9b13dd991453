"""A window that is driven with xdotool and looked at, and checks of what is seen there.

For: the plug-ins' windows in GIMP 3 and GIMP 2.10, on the display that DISPLAY names. Not for: pictures as
the editors hold them. Nothing here waits for ever.
"""

import os
import subprocess
import time

import checks

TITLE = "Semblance: Edit Attribute"
# The size of the preview, in screen pixels.
WIDTH, HEIGHT = 520, 400
# What makes a run long enough to be stopped: night starts earliest of all, guidance asks the model twice.
LONG = {"attributes": [{"name": "night", "strength": 0.8}], "steps": 1000, "guidance": 2}
OUT = "/out"  # where shots are left; GIMP 2.10's script sets its own


def check(what, passed):
    """A check that leaves a shot of the screen where it fails."""
    checks.check(what, passed)
    if not passed:
        shot(f"failed-{checks.failures}")


def said(*words):
    """What a command wrote, as bytes; nothing where it failed or hung."""
    try:
        return subprocess.run(words, capture_output=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        print("      ", error, flush=True)
        return b""


def tool(*words):
    return said("xdotool", *words).decode(errors="replace").split()


def keys(*names):
    for name in names:
        tool("key", "--clearmodifiers", name)
        time.sleep(0.5)


def typed(text):
    tool("type", "--delay", "80", text)
    time.sleep(0.3)


def until(what, condition, seconds=90):
    """Waits until the condition holds; a check of its own."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            check(what, True)
            return True
        time.sleep(0.3)
    check(what, False)
    return False


def shot(name, window="root"):
    said("import", "-window", window, f"{OUT}/{name}.png")


def seen(window):
    """(width, height, RGB bytes) of a window."""
    head, _, data = said("import", "-depth", "8", "-window", window, "ppm:-").partition(b"\n255\n")
    if not data:
        return 0, 0, b""
    width, height = head.split()[1:]
    return int(width), int(height), data


def differing(a, b):
    """How many pixels of two shots differ."""
    done = subprocess.run(["compare", "-metric", "AE", f"{OUT}/{a}.png", f"{OUT}/{b}.png", "null:"],
                          capture_output=True, text=True, timeout=30, check=False)
    return float(done.stderr.split()[0])


def clipboard():
    return said("timeout", "5", "xclip", "-selection", "clipboard", "-o").decode(errors="replace")


def processes(path):
    """The processes that were started from a file."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if os.fsencode(path) in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:
            pass  # it has ended
    return found


def busy(path):
    """Whether such a process computes, by the processor's time that it took in half a second."""
    def ticks():
        total = 0
        for process in processes(path):
            with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
                words = file.read().rpartition(")")[2].split()
            total += int(words[11]) + int(words[12])
        return total
    try:
        before = ticks()
        time.sleep(0.5)
        return ticks() - before > 0.1 * os.sysconf("SC_CLK_TCK")
    except OSError:
        return False


def cancel_progress(path):
    """Clicks GIMP's own Cancel, which lies at the right end of the status bar, until the process is gone."""
    window = main_window()[-1]
    width, height, _ = seen(window)
    end = time.monotonic() + 60
    while processes(path) and time.monotonic() < end:
        for x in range(width - 12, width - 100, -10):
            tool("mousemove", "--window", window, str(x), str(height - 12), "click", "1")
            time.sleep(0.1)
            if not processes(path):
                return


def main_window():
    return tool("search", "--onlyvisible", "--name", "GIMP$")


def dialog():
    return tool("search", "--onlyvisible", "--name", TITLE)


def open_dialog(path, activate, *menu):
    """Opens the plug-in's dialog with the keys of GIMP's menu; once more where a busy GIMP lost one."""
    for _ in range(3):
        activate()
        keys(*menu)
        end = time.monotonic() + 20
        while not processes(path) and not dialog() and time.monotonic() < end:
            time.sleep(0.3)
        if processes(path) or dialog():
            break
        keys("Escape", "Escape")
    if until("the menu opens the dialog", dialog):
        end = time.monotonic() + 20
        while not set(tool("getactivewindow")) & set(dialog()) and time.monotonic() < end:
            time.sleep(0.3)
        time.sleep(1)


def slide(value):
    """Sets the first slider, whose number has the focus at first and is typed over."""
    keys("ctrl+a")
    typed(value)
    keys("Tab")


class Picture:
    """RGB bytes of a picture, 8 bits a sample."""

    def __init__(self, width, height, data):
        self.width, self.height, self.data = width, height, data

    def part(self, left, top, width=WIDTH, height=HEIGHT):
        return Picture(width, height, b"".join(
            self.data[((top + y) * self.width + left) * 3:][:width * 3] for y in range(height)))

    def beside(self, other, at):
        """Left of the line at `at` this picture, right of it the other."""
        line = self.width * 3
        return Picture(self.width, self.height, b"".join(
            self.data[y:y + (at - 1) * 3] + b"\xff\xff\xff" + other.data[y + at * 3:y + line]
            for y in range(0, len(self.data), line)))

    def where(self):
        """Where it lies in the dialog, pixel by pixel, as (x, y); None where it does not."""
        window = dialog()
        width, height, screen = seen(window[0]) if window else (0, 0, b"")
        line, row = width * 3, self.width * 3
        at = screen.find(self.data[:row])
        while at >= 0:
            if at % 3 == 0 and at % line + row <= line and at // line + self.height <= height and all(
                    screen.startswith(self.data[y * row:(y + 1) * row], at + y * line)
                    for y in range(self.height)):
                return at % line // 3, at // line
            at = screen.find(self.data[:row], at + 1)
        return None

    def off(self, x, y):
        """How far the dialog's samples at a place are from these, at most; of 255."""
        window = dialog()
        width, _, screen = seen(window[0]) if window else (0, 0, b"")
        shown = Picture(width, 0, screen).part(x, y, self.width, self.height).data
        if len(shown) != len(self.data):
            return 255
        return max(abs(a - b) for a, b in zip(shown, self.data))


def choose_folder(path):
    """Chooses a folder of a model, which the second of the models asks for."""
    def chooser():
        return tool("search", "--onlyvisible", "--name", "The folder of a model")
    choose("alt+d", 1)
    if not until("the list of models asks for a folder", chooser, 20):
        return
    time.sleep(1)
    # Pasted, for the chooser completes what is typed.
    subprocess.run(["xclip", "-selection", "clipboard"], input=path.encode(), timeout=10, check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    keys("ctrl+l", "ctrl+a", "ctrl+v")
    for _ in range(3):  # the first may merely complete it
        time.sleep(1)
        if chooser():
            keys("Return")
    until("a folder is taken", lambda: not chooser(), 60)


def drag(start, by):
    """Pulls from a place of the dialog by so many pixels."""
    window = dialog()[0]

    def to(part):
        tool("mousemove", "--window", window, *(str(round(a + b * part)) for a, b in zip(start, by)))
        time.sleep(0.1)
    to(0)
    tool("mousedown", "1")
    for step in range(1, 5):
        to(step / 4)
    time.sleep(0.2)
    tool("mouseup", "1")
    time.sleep(0.3)


def choose(key, downs):
    """Chooses the entry of a list so many below the first."""
    keys(key, "Home", *["Down"] * downs)


def look_closely(before, after):
    """Loupe, before/after line and Reset of an open dialog that shows `before`; pictures.

    `after` is what 0.8 of the first attribute makes. Dither may differ by one of 255, for it lies otherwise
    in a part.
    """
    left, top = (before.width - WIDTH) // 2, (before.height - HEIGHT) // 2
    choose("alt+z", 2)
    old, new = before.part(left, top), after.part(left, top)
    keys("alt+r")
    if not until("at 100 % the preview shows the layer's pixels", old.where, 30):
        return
    x, y = old.where()
    slide("0.8")
    until("and those that OK makes", lambda: new.off(x, y) <= 1, 60)
    keys("alt+b")
    half = WIDTH // 2
    until("left of the line lies the picture as it was",
          lambda: old.beside(new, half).off(x, y) <= 1, 60)
    drag((x + half, y + 200), (-160, 0))
    until("the line follows the pointer", lambda: old.beside(new, half - 160).off(x, y) <= 1, 60)
    keys("alt+b")
    drag((x + 300, y + 300), (-100, -50))
    old, new = before.part(left + 100, top + 50), after.part(left + 100, top + 50)
    until("the loupe follows the pointer", lambda: new.off(x, y) <= 1, 60)
    keys("alt+r")
    until("Reset shows the picture as it was", lambda: old.where() == (x, y), 60)
    keys("alt+o")
    time.sleep(1)
    check("and then there is nothing for OK to do", bool(dialog()))
