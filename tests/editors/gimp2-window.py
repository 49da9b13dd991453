#!/usr/bin/env python3
"""The plug-in in a real window of GIMP 2.10: every control, cancel and kill, undo and repeat.

Run by tests/editors/gimp2: `gimp2-window.py OUT`, with the plug-in in OUT/2.10. The window is on a
display of its own and driven by xdotool; the image is looked at through GIMP's Script-Fu server.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

import checks
import screen
import tiff
from screen import (check, choose_folder, clipboard, dialog, differing, keys, main_window, processes,
                    shot, slide, typed, until)

OUT = screen.OUT = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
COAST, TINY = f"{REPO}/examples/coast.png", f"{REPO}/tests/fixtures/tiny"
SEMBLANCE = f"{REPO}/target/release/semblance"
PLUGIN = f"{OUT}/2.10/plug-ins/semblance-edit/semblance-edit"
WORDS = "a photo of hills", "a photo of hills, at night"
os.environ.update(GIMP2_DIRECTORY=f"{OUT}/2.10", LANG="C.UTF-8")
with socket.create_server(("127.0.0.1", 0)) as free:
    PORT = free.getsockname()[1]


def ask(scheme):
    """Has GIMP evaluate an expression."""
    text = scheme.encode()
    with socket.create_connection(("127.0.0.1", PORT), 30) as server:
        server.sendall(b"G" + len(text).to_bytes(2, "big") + text)
        head = b""
        while len(head) < 4:
            head += server.recv(4 - len(head)) or b"\0" * 4
        said = b""
        while len(said) < int.from_bytes(head[2:4], "big"):
            said += server.recv(65536) or b"?" * 65536
    return said.decode(errors="replace")


def names():
    ask(f'(describe image "{OUT}/layers.txt")')
    with open(f"{OUT}/layers.txt", encoding="utf-8") as file:
        return [line.split("|")[0] for line in file]


def data(at=0):
    """One layer's samples."""
    path = f"{OUT}/layer.tif"
    ask(f'(save image {at} "{path}")')
    return tiff.pixels(path)[0].tobytes()


def state():
    """All that an edit could spoil."""
    ask(f'(describe image "{OUT}/layers.txt")')
    with open(f"{OUT}/layers.txt", encoding="utf-8") as file:
        lines = file.readlines()
    return lines, [data(at) for at in range(len(lines))]


def activate():
    screen.tool("windowactivate", "--sync", main_window()[-1])


def open_dialog():
    # Filters; above Script-Fu and GIMP's goat, the last two; the first entry there.
    screen.open_dialog(PLUGIN, activate, "alt+r", "Up", "Up", "Up", "Right", "Return")


def wanted(name, *options):
    """The samples of the command line's picture, saved by GIMP as `data` does."""
    path = f"{OUT}/gimp2-cli-{name}.png"
    subprocess.run([SEMBLANCE, "edit", COAST, "-o", path, *options], check=True, timeout=120,
                   stdout=subprocess.DEVNULL)
    return reread(path)


def reread(path):
    ask(f'(again "{path}" "{OUT}/wanted.tif")')
    return tiff.pixels(f"{OUT}/wanted.tif")[0].tobytes()


def made_in_gimp_3():
    """A file of GIMP 3's, with a layer that says `night 1`, edited again."""
    ask(f'(define image (opened "{OUT}/kept.xcf"))')
    background = names()
    ask("(gimp-display-new image)")
    time.sleep(3)
    open_dialog()
    slide("0.5")
    keys("alt+o")
    until("a layer that GIMP 3 made is edited again",
          lambda: names() == ["sunset 0.5, night 1"] + background[1:])
    shot("gimp2-kept")


def start():
    """Display, window manager and GIMP with its server; their processes."""
    with open(f"{HERE}/gimp2.scm", encoding="utf-8") as file:
        scheme = file.read()
    with open(f"{OUT}/2.10/sessionrc", "w", encoding="utf-8") as file:
        file.write("(hide-docks yes)\n(single-window-mode yes)\n")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    number, theirs = os.pipe()
    started = [subprocess.Popen(["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1280x900x24"],
                                pass_fds=[theirs], **quiet)]
    os.close(theirs)
    with os.fdopen(number) as file:
        os.environ["DISPLAY"] = f":{file.readline().strip()}"  # the first that is free
    until("a display is there", lambda: screen.tool("getmouselocation"))
    started.append(subprocess.Popen(["openbox"], **quiet))
    serve = f'(plug-in-script-fu-server RUN-NONINTERACTIVE "127.0.0.1" {PORT} "")'
    with open(f"{OUT}/gimp2-window.log", "w", encoding="utf-8") as log:
        started.append(subprocess.Popen(["gimp-2.10", "--new-instance", "-s", "-b", serve],
                                        stdout=log, stderr=log))

    def serving():
        try:
            return ask(scheme) is not None
        except OSError:
            return False
    until("GIMP answers", serving, 120)
    return started


def edits():
    open_dialog()
    shot("gimp2-dialog-0", dialog()[0])
    slide("0.8")
    until("the preview shows the change", lambda: (shot("gimp2-dialog-1", dialog()[0]) or differing(
        "gimp2-dialog-0", "gimp2-dialog-1") > 50000))
    time.sleep(2)
    shot("gimp2-dialog-1", dialog()[0])
    keys("alt+b")
    until("the line shows before and after", lambda: (shot("gimp2-dialog-2", dialog()[0]) or
          differing("gimp2-dialog-1", "gimp2-dialog-2") > 20000))
    check("a preview leaves the image as it was", names() == background)
    keys("alt+o")
    until("OK adds a layer", lambda: names() == ["sunset 0.8"] + background)
    check("its pixels are the command line's", data() == expected["0.8"])
    until("the dialog is gone", lambda: not dialog())

    open_dialog()
    slide("0.4")
    keys("alt+o")
    until("edit again replaces the layer", lambda: names() == ["sunset 0.4"] + background)
    check("its pixels are the command line's", data() == expected["0.4"])
    shot("gimp2-again")
    time.sleep(2)
    activate()
    keys("ctrl+z")
    until("one undo brings the layer before back", lambda: names() == ["sunset 0.8"] + background)
    keys("ctrl+z")
    until("one more removes it", lambda: names() == background)
    keys("ctrl+f")
    until("Repeat makes the last edit", lambda: names() == ["sunset 0.4"] + background)
    check("its pixels are the command line's", data() == expected["0.4"])
    keys("ctrl+z")
    until("and undo takes it back", lambda: names() == background)


def selection():
    ask("(gimp-image-select-ellipse image CHANNEL-OP-REPLACE 200 100 500 400)")
    ask("(gimp-selection-feather image 60)")
    below = data()
    open_dialog()
    slide("1")
    keys("alt+o")
    until("an edit inside a selection adds a layer", lambda: names() == ["sunset 1"] + background)
    first = data()
    check("its corners are as they were",
          first[:3000] == below[:3000] and first[-3000:] == below[-3000:])
    ask("(gimp-selection-none image)")
    open_dialog()
    slide("0.3")
    keys("alt+o")
    until("edit again remembers the selection", lambda: names() == ["sunset 0.3"] + background)
    again = data()
    check("and changes only what it holds", first != again and again[:3000] == below[:3000]
          and again[-3000:] == below[-3000:])
    activate()
    keys("ctrl+z", "ctrl+z", "ctrl+z")  # one is that of the selection's end
    until("undo takes both back", lambda: names() == background)
    ask("(gimp-selection-none image)")


def controls():
    """Loupe, line, Copy as Command, Reset, another model, words."""
    below = data()
    open_dialog()
    keys("alt+r")  # what the edit before asked for
    slide("0.8")
    line = shlex.join(["semblance", "edit", COAST, "-a", "sunset=0.8", "-o", "coast-edited.png"])
    keys("alt+m")
    until("Copy as Command puts the line for a shell on the clipboard", lambda: clipboard() == line, 60)
    subprocess.run([SEMBLANCE, *shlex.split(clipboard())[1:]], cwd=OUT, check=True, timeout=60)
    check("which makes the same picture", reread(f"{OUT}/coast-edited.png") == expected["0.8"])
    screen.look_closely(screen.Picture(960, 640, below), screen.Picture(960, 640, expected["0.8"]))
    choose_folder(TINY)
    keys("alt+w", "alt+s")
    typed(WORDS[0])
    keys("alt+u")
    typed(WORDS[1])
    line = shlex.join(["semblance", "edit", COAST, "--from", WORDS[0], "--to", WORDS[1], "--model",
                       TINY, "-o", "coast-edited.png"])
    keys("alt+m")
    until("the words and the model's folder are in the command", lambda: clipboard() == line, 60)
    keys("alt+o")
    until("an edit in words with another model adds a layer",
          lambda: names() == [WORDS[1]] + background)
    check("its pixels are the command line's", data() == wanted(
        "tiny", "--from", WORDS[0], "--to", WORDS[1], "--model", TINY))
    activate()
    keys("ctrl+z")
    until("and undo takes it back", lambda: names() == background)


def ends():
    """Cancel, also of Repeat, and the death of the plug-in, each in the middle of a long run."""
    ask('(edit image (active image) "sunset=0.8")')
    check("a script makes a layer", names() == ["sunset 0.8"] + background)
    ask(f'(kept image "semblance-recipe" "{OUT}/long.json")')
    with open(f"{OUT}/long.json", encoding="utf-8") as file:
        kept = json.load(file)
    kept["recipe"].update(screen.LONG)
    text = json.dumps(kept).replace("\\", "\\\\").replace('"', '\\"')
    ask(f'(gimp-item-attach-parasite (active image) (list "semblance-recipe" 3 "{text}"))')
    before = state()

    open_dialog()  # with the model that made the layer, not that of the edit before
    until("a long run is under way", lambda: screen.busy(PLUGIN), 60)
    keys("Escape")
    until("Cancel closes the dialog", lambda: not dialog(), 30)
    until("and ends the run", lambda: not processes(PLUGIN), 20)
    check("the image is as it was", state() == before)

    open_dialog()
    keys("alt+o")
    until("OK waits for the run", lambda: not processes(PLUGIN), 200)
    check("and makes the layer", data() != before[1][0] and len(names()) == 2)
    before = state()
    activate()
    keys("ctrl+f")
    until("a repeated run is under way", lambda: screen.busy(PLUGIN), 60)
    shot("gimp2-repeat")
    screen.cancel_progress(PLUGIN)
    until("GIMP's Cancel ends it", lambda: not processes(PLUGIN), 20)
    check("the image is as it was", state() == before)

    open_dialog()
    until("one more run is under way", lambda: screen.busy(PLUGIN), 60)
    for process in processes(PLUGIN):
        os.kill(process, signal.SIGKILL)
    until("a killed plug-in takes its dialog with it", lambda: not dialog(), 60)
    check("the image is as it was", state() == before)
    shot("gimp2-killed")
    keys("Escape")  # GIMP's own message
    ask('(edit image (list-ref (layers image) 1) "sunset=0.4")')
    check("GIMP goes on", "sunset 0.4" in names() and data(names().index("sunset 0.4"))
          == expected["0.4"])
    activate()
    keys("ctrl+z")
    until("and so does undo", lambda: state() == before, 60)


started = start()
try:
    ask(f'(define image (opened "{COAST}"))')
    expected = {strength: wanted(strength, "-a", f"sunset={strength}") for strength in ("0.8", "0.4")}
    ask("(gimp-display-new image)")
    until("the image has a window", main_window)
    time.sleep(3)
    background = names()
    stages = [edits, selection, controls, ends]
    if os.path.exists(f"{OUT}/kept.xcf"):
        stages.append(made_in_gimp_3)
    for stage in stages if checks.failures == 0 else []:
        try:
            stage()
        except Exception as error:  # the other stages are still worth running
            check(f"{stage.__name__}: ended early: {error!r}", False)
            for process in processes(PLUGIN):
                os.kill(process, signal.SIGKILL)
finally:
    try:
        ask("(gimp-quit 1)")  # the server outlives a GIMP that is merely ended
    except OSError:
        pass
    for process in reversed(started):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
sys.exit(not checks.finished())
