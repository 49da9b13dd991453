"""Models in a process of their own: `semblance serve --stdio`, used like the classes of semblance.py.

For: models so large that the editor's process, with its unsaved work, must not share their fate. Not
for: the embedded model, which needs no process; nor the protocol's reference (`semblance help serve`).
The pixels of a request lie in a file of its own, in memory where the system has such a folder.
Whatever becomes of the child is an error with a text; the next edit starts another.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading

import semblance
import semblance_work as work

FILE = "semblance.exe" if os.name == "nt" else "semblance"
PROTOCOL = 1
# Seconds within which a child answers what costs it no model: a hung one must not hang the editor.
PATIENCE = 30

_SAMPLES, _ORDERS, _ALPHAS, _COLORS = (
    {number: name for name, number in names.items()}
    for names in (semblance.SAMPLES, semblance.ORDER, semblance.ALPHA, semblance.COLOR))


class Failed(semblance.Error):
    """A refusal in the words of the child's library."""

    def __init__(self, message, hint="", code=0, parameter=""):
        Exception.__init__(self, f"{message} ({hint})" if hint else message)
        self.code, self.message, self.hint, self.parameter = code, message, hint, parameter


class Gone(Failed):
    """The child ended, or answers no more; another may be tried."""


def engine(model=""):
    """An engine on the embedded model in this process, or on the one in the folder `model` in a child."""
    return Engine(model) if model else work.engine(work.library("krita"))


def command():
    """The program that is started, which lies beside this file with its library; raises OSError."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), FILE)
    if not os.path.exists(path):
        raise OSError(f"{path}: the command that runs models in folders is not there "
                      "(run `semblance install krita` again)")
    return path


class Engine:
    """As semblance.Engine, on the model in the folder `model`."""

    def __init__(self, model):
        self.line = [command(), "serve", "--stdio", "--model", model]
        self.child = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child is not None:
            self.child.end()
        self.child = None

    def describe(self):
        return self._running().ask(do="describe")

    def attributes(self):
        return self._running().ask(do="attributes")["attributes"]

    def parameters(self):
        return self._running().ask(do="parameters")["parameters"]

    def start(self, src, recipe, mask=None, kind=semblance.FINAL, if_busy=semblance.WAIT):
        """Starts an edit, before which a running one makes room; returns its Job.

        The child keeps what it makes, so that every render costs no model.
        """
        return Job(self._running(), src, recipe, mask)

    def _running(self):
        if self.child is None or self.child.over:
            if self.child is not None:
                self.child.end()
            self.child = _Child(self.line)
        return self.child


class Job:
    """As semblance.Job."""

    def __init__(self, child, src, recipe, mask):
        self.child, self.seen = child, ("", 0.0)
        self.file = _File(src, mask)
        try:
            self.number = child.send(do="preview", recipe=recipe, **self.file.places)
        except BaseException:
            self.file.close()
            raise

    def wait(self, milliseconds=0):
        child = self.child
        with child.news:
            child.news.wait_for(lambda: child.ended(self.number), milliseconds / 1000)
            self.seen = child.progress.get(self.number, self.seen)
            state = semblance.RUNNING
            if child.ended(self.number):
                answer = child.answers.get(self.number)
                state = semblance.DONE if answer and answer["ok"] else semblance.FAILED
        return (state, *self.seen)

    def cancel(self):
        with self.child.news:
            ended = self.child.ended(self.number)
        if not ended:
            try:
                self.child.send(do="cancel", of=self.number)
            except Gone:
                pass  # there is nothing left to cancel

    def take(self):
        return Result(self.child, self.number, self.child.answer(self.number))

    def free(self):
        """Gives it back, once; cancels it where it still runs, and does not wait."""
        self.cancel()
        self.child.forget(self.number)
        self.file.close()


class Result:
    """As semblance.Result; the child has it until the result of a newer edit takes its place."""

    def __init__(self, child, number, answer):
        self.child, self.number, self.answer = child, number, answer

    def render(self, src, dst, mask=None):
        return self._render(src, dst, mask)

    def render_reduced(self, part, src, dst, mask=None):
        return self._render(src, dst, mask, part={
            "x": part.x, "y": part.y, "width": part.width, "height": part.height})

    def recipe(self):
        return self.answer["recipe"]

    def report(self):
        return self.answer["report"]

    def _render(self, src, dst, mask, **part):
        file = _File(src, mask)
        try:
            told = self.child.ask(do="render", of=self.number, **file.places, **part)
            file.read(dst)
        finally:
            file.close()
        return semblance.Tally(
            changed=told["changed"], kept=told["kept"], selected=told["selected"],
            largest_change=told["largest_change"],
            sum_of_change=told["mean_change"] * told["changed"])


class _File:
    """A private file with the pixels of one request; `places` says what lies where in it."""

    def __init__(self, src, mask):
        layer = {"width": src.rect.width, "height": src.rect.height,
                 "samples": _SAMPLES[src.samples], "order": _ORDERS[src.order],
                 "color": _COLORS[src.color]}
        if src.alpha:
            layer["alpha"] = _ALPHAS[src.alpha]
        pixels, icc = src.held
        parts = [memoryview(pixels)]
        if icc:
            layer["icc"] = {"offset": len(parts[0]), "size": len(icc)}
            parts.append(icc)
        self.places = {"layer": layer}
        if mask is not None:
            self.places["mask"] = {
                "offset": sum(map(len, parts)), "samples": _SAMPLES[mask.samples], "x": mask.rect.x,
                "y": mask.rect.y, "width": mask.rect.width, "height": mask.rect.height}
            parts.append(memoryview(mask.held))
        number, self.path = tempfile.mkstemp(prefix="semblance-", dir=_folder(sum(map(len, parts))))
        self.file = os.fdopen(number, "r+b", buffering=0)
        self.places["file"] = self.path
        try:
            for part in parts:
                _write(self.file, part)
        except BaseException:
            self.close()
            raise

    def read(self, dst):
        """Copies the pixels, as they are now, to `dst` (see semblance.pixels)."""
        self.file.seek(0)
        view, at = memoryview(dst.held[0]), 0
        while at < len(view):
            count = self.file.readinto(view[at:])
            if not count:
                raise Failed(f"{self.path}: ends after {at} bytes: must have {len(view)}")
            at += count

    def close(self):
        self.file.close()
        try:
            os.remove(self.path)
        except OSError:
            pass  # somebody tidied up


def _folder(size):
    """Where a file of so many bytes is memory, if there is room; None: where others lie."""
    memory = "/dev/shm"
    try:
        roomy = shutil.disk_usage(memory).free > size + (1 << 20) and os.access(memory, os.W_OK)
    except OSError:
        roomy = False
    return memory if roomy else None


def _write(file, part):
    view = memoryview(part)
    while len(view):
        view = view[file.write(view):]


class _Child:
    """The process, and a thread that takes down what it says."""

    def __init__(self, line):
        self.numbers, self.news = itertools.count(1), threading.Condition()
        # All by a request's number: those that somebody waits for, how far they are, their answers.
        self.asked, self.progress, self.answers = set(), {}, {}
        self.over, self.hello = False, None
        self.complaints = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.complaints,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()
        with self.news:
            told = self.news.wait_for(lambda: self.hello is not None or self.over, PATIENCE)
            hello = self.hello or {}
        if hello.get("serve") != PROTOCOL:
            self.end()
            if "error" in hello:
                raise _refusal(hello["error"])
            if not hello:
                raise self.gone() if told else _mute()
            raise Failed(f"{line[0]}: speaks protocol {hello.get('serve')}: must be {PROTOCOL}",
                         "run `semblance install krita` again")

    def send(self, **request):
        """Its number; the answer is kept until it is forgotten."""
        number = next(self.numbers)
        with self.news:
            self.asked.add(number)
        try:
            self.process.stdin.write(json.dumps({"id": number, **request}).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError):  # the pipe is broken, or closed
            self.forget(number)
            raise self.gone() from None
        return number

    def ask(self, **request):
        """The answer to what is answered at once."""
        number = self.send(**request)
        try:
            with self.news:
                answered = self.news.wait_for(lambda: self.ended(number), PATIENCE)
            if not answered:
                self.end()
                raise _mute()
            return self.answer(number)
        finally:
            self.forget(number)

    def ended(self, number):
        """Whether no more will come; asked while `news` is held."""
        return number in self.answers or self.over

    def answer(self, number):
        """What was answered; raises the error that it was, or that there is none."""
        with self.news:
            answer = self.answers.get(number)
        if answer is None:
            raise self.gone() if self.over else Failed("the edit has not ended", "wait for its end")
        if not answer["ok"]:
            raise _refusal(answer["error"])
        return answer["answer"]

    def forget(self, number):
        with self.news:
            for kept in (self.progress, self.answers):
                kept.pop(number, None)
            self.asked.discard(number)

    def end(self):
        """Ends the process, which has nothing to save."""
        self.process.kill()
        self.thread.join()
        try:
            self.process.stdin.close()
        except OSError:
            pass  # what was not sent yet is lost
        self.process.stdout.close()

    def gone(self):
        """How the process ended."""
        code = self.process.wait()
        if code < 0:
            try:
                how = f"by signal {-code}, {signal.Signals(-code).name}"
            except ValueError:
                how = f"by signal {-code}"
        else:
            how = f"with exit code {code}"
        with self.news:
            last = _last_line(self.complaints)
        return Gone(f"the model's process ended {how}{last}; the picture is as it was", AGAIN)

    def _listen(self):
        try:
            for line in self.process.stdout:
                self._hear(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            self.process.kill()  # that is no such program as it should be
        self.process.wait()
        with self.news:
            self.over = True
            self.news.notify_all()

    def _hear(self, said):
        with self.news:
            number = said.get("id")
            if self.hello is None:
                self.hello = said
            elif number in self.asked:
                if "ok" in said:
                    self.answers[number] = said
                else:
                    self.progress[number] = said["phase"], said["fraction"]
            self.news.notify_all()


AGAIN = "try again, which starts another; if memory ran out, close other programs or choose a smaller model"


def _mute():
    return Gone(f"the model's process did not answer for {PATIENCE} s and was ended; the picture is as it "
                "was", AGAIN)


def _refusal(error):
    return Failed(error["message"], error["hint"], error["code"], error["parameter"])


def _last_line(file):
    """The end of what a process complained of, as part of a sentence."""
    try:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 1000))
        lines = file.read().decode(errors="replace").split("\n")
    except (OSError, ValueError):
        lines = []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f" (“{last[:200]}”)" if last else ""
