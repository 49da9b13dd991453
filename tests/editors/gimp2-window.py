#!/usr/bin/env python3
"""The plug-in in a real window of GIMP 2.10: menu, slider, preview, new layer, edit again, undo, repeat.

Run by tests/editors/gimp2: `gimp2-window.py OUT`, with the plug-in in OUT/2.10. The window is on a
display of its own and driven by xdotool; the image is looked at through GIMP's Script-Fu server.
"""

import os
import socket
import subprocess
import sys
import time

import tiff

OUT, TITLE = sys.argv[1], "Semblance: Edit Attribute"
HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
ENV = {**os.environ, "GIMP2_DIRECTORY": f"{OUT}/2.10", "LANG": "C.UTF-8"}
with socket.create_server(("127.0.0.1", 0)) as free:
    PORT = free.getsockname()[1]
checks = failures = 0


def check(what, passed):
    global checks, failures
    checks += 1
    failures += not passed
    print("ok    " if passed else "FAILED", what, flush=True)


def tool(*words):
    return subprocess.run(["xdotool", *words], capture_output=True, text=True, env=ENV,
                          check=False).stdout.split()


def keys(*names):
    for name in names:
        tool("key", "--clearmodifiers", name)
        time.sleep(0.5)


def until(what, condition, seconds=60):
    """Waits until the condition holds; a check of its own."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            check(what, True)
            return True
        time.sleep(0.3)
    check(what, False)
    shot("gimp2-failed")
    return False


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


def dialog():
    return tool("search", "--onlyvisible", "--name", TITLE)


def shot(name, window="root"):
    subprocess.run(["import", "-window", window, f"{OUT}/{name}.png"], env=ENV, check=False)


def differing(a, b):
    """How many pixels of two shots differ."""
    done = subprocess.run(["compare", "-metric", "AE", f"{OUT}/{a}.png", f"{OUT}/{b}.png", "null:"],
                          capture_output=True, text=True, check=False)
    return float(done.stderr.split()[0])


def main_window():
    return tool("search", "--onlyvisible", "--name", "GIMP$")


def open_dialog():
    tool("windowactivate", "--sync", main_window()[-1])
    # Filters; above Script-Fu and GIMP's goat, the last two; the first entry there.
    keys("alt+r", "Up", "Up", "Up", "Right", "Return")
    if until("the menu opens the dialog", dialog):
        time.sleep(2)


def slide(value):
    """Sets the first slider, whose number has the focus at first and is typed over."""
    keys("ctrl+a")
    tool("type", "--delay", "80", value)
    keys("Tab")


def wanted(strength):
    """The samples of the command line's picture, saved by GIMP as `data` does."""
    path = f"{OUT}/gimp2-cli-{strength}.png"
    subprocess.run([f"{REPO}/target/release/semblance", "edit", f"{REPO}/examples/coast.png", "-a",
                    f"sunset={strength}", "-o", path], check=True, stdout=subprocess.DEVNULL)
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
    quiet = {"env": ENV, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    number, theirs = os.pipe()
    started = [subprocess.Popen(["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1280x900x24"],
                                pass_fds=[theirs], **quiet)]
    os.close(theirs)
    with os.fdopen(number) as file:
        ENV["DISPLAY"] = f":{file.readline().strip()}"  # the first that is free
    until("a display is there", lambda: tool("getmouselocation"))
    started.append(subprocess.Popen(["openbox"], **quiet))
    serve = f'(plug-in-script-fu-server RUN-NONINTERACTIVE "127.0.0.1" {PORT} "")'
    with open(f"{OUT}/gimp2-window.log", "w", encoding="utf-8") as log:
        started.append(subprocess.Popen(["gimp-2.10", "--new-instance", "-s", "-b", serve],
                                        env=ENV, stdout=log, stderr=log))

    def serving():
        try:
            return ask(scheme) is not None
        except OSError:
            return False
    until("GIMP answers", serving, 120)
    return started


def work():
    ask(f'(define image (opened "{REPO}/examples/coast.png"))')
    expected = {strength: wanted(strength) for strength in ("0.8", "0.4")}
    ask("(gimp-display-new image)")
    until("the image has a window", main_window)
    time.sleep(3)
    background = names()

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
    tool("windowactivate", "--sync", main_window()[-1])
    keys("ctrl+z")
    until("one undo brings the layer before back", lambda: names() == ["sunset 0.8"] + background)
    keys("ctrl+z")
    until("one more removes it", lambda: names() == background)
    keys("ctrl+f")
    until("Repeat makes the last edit", lambda: names() == ["sunset 0.4"] + background)
    check("its pixels are the command line's", data() == expected["0.4"])
    keys("ctrl+z")
    until("and undo takes it back", lambda: names() == background)

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
    before = names()
    open_dialog()
    slide("1")
    keys("Escape")
    until("Escape closes the dialog", lambda: not dialog())
    check("and leaves the image as it was", names() == before)
    shot("gimp2-end")
    if os.path.exists(f"{OUT}/kept.xcf"):
        made_in_gimp_3()


processes = start()
try:
    if failures == 0:
        work()
except Exception as error:  # said as a check, and the processes are ended
    check(f"ended early: {error!r}", False)
    shot("gimp2-failed")
finally:
    try:
        ask("(gimp-quit 1)")  # the server outlives a GIMP that is merely ended
    except OSError:
        pass
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
print(f"all {checks} checks passed" if failures == 0 else f"{failures} of {checks} checks FAILED",
      flush=True)
sys.exit(failures != 0)
