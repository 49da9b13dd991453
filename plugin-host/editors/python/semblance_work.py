"""The library's work for an editor: one engine, edits that supersede each other, no frozen window.

For: every editor's plug-in. Not for: windows and pixels of any one editor. A window polls `state` from
a timer; nothing here ever calls it. What takes long (reading a large layer, the model, rendering a
preview) runs on the one thread of `Studio`.
"""

import os
import threading

import semblance

FILE = {"nt": "semblance.dll"}.get(os.name, "libsemblance.so")


def library(editor):
    """The function table: from SEMBLANCE_LIBRARY, else from beside this file; raises OSError.

    `editor` is what `semblance install` calls it.
    """
    folder = os.path.dirname(os.path.abspath(__file__))
    places = [os.environ.get("SEMBLANCE_LIBRARY")] if os.environ.get("SEMBLANCE_LIBRARY") else [
        os.path.join(folder, name) for name in (FILE, "libsemblance.dylib")]
    for place in places:
        if os.path.exists(place):
            return semblance.load(place)
    raise OSError(f"{places[0]}: the Semblance library is not there "
                  f"(run `semblance install {editor}` again)")


def finish(job, told=None):
    """Waits for a job and returns its result; `told(phase, fraction)` hears of it. Frees the job."""
    try:
        while True:
            state, phase, fraction = job.wait(50)
            if state >= semblance.DONE:
                return job.take()
            if told is not None:
                told(phase, fraction)
    finally:
        job.free()


def engine(api, model=""):
    """An engine on the embedded model, or on the one in the folder `model`."""
    return semblance.Engine(api, **({"model_folder": model} if model else {}))


class State:
    """What a window shows. Replaced as a whole, so that reading it needs no lock."""

    def __init__(self, recipe=None, busy=False, phase="", fraction=0.0, result=None, picture=None,
                 error=None):
        self.recipe, self.busy, self.phase, self.fraction = recipe, busy, phase, fraction
        self.result, self.picture, self.error = result, picture, error


class Studio:
    """Runs the newest wish and drops those before it.

    `make(engine, recipe)` starts a preview job; `draw(result)` makes a picture of its result. Both
    are called on this object's thread. `wish` with the same recipe draws its result again, for a
    window that was scrolled or zoomed.
    """

    def __init__(self, engine, make, draw):
        self.engine, self.make, self.draw = engine, make, draw
        self.state = State()
        self._news = threading.Condition()
        self._wish, self._over, self._job = None, False, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wish(self, recipe):
        """Asks for this recipe's result and picture; whatever was asked before is superseded."""
        with self._news:
            self._wish = recipe
            # A window must not take the result of the recipe before for that of this one.
            self.state = State(recipe, True, "", 0.0, self._reusable(recipe), self.state.picture)
            self._news.notify()

    def forget(self):
        """Drops what was asked; the state is as at first."""
        with self._news:
            self._wish = None
            if self._job is not None:
                self._job.cancel()
            self.state = State()

    def close(self):
        """Cancels what runs and gives everything back."""
        with self._news:
            self._over = True
            if self._job is not None:
                self._job.cancel()
            self._news.notify()
        self._thread.join()
        self.state = State()
        self.engine.__exit__()

    def _reusable(self, recipe):
        state = self.state
        return state.result if state.result is not None and state.recipe == recipe else None

    def _run(self):
        while True:
            with self._news:
                while self._wish is None and not self._over:
                    self._news.wait()
                if self._over:
                    return
                recipe, self._wish = self._wish, None
                result = self.state.result
            try:
                result = result or self._edit(recipe)
                picture = None if result is None else self.draw(result)
                if result is not None:
                    self._tell(State(recipe, False, "", 1.0, result, picture))
            except Exception as error:  # whatever it is, the window says it and goes on
                self._tell(State(recipe, False, picture=self.state.picture, error=error))

    def _edit(self, recipe):
        """The result, or None when a newer wish came."""
        job = self.make(self.engine, recipe)
        with self._news:
            self._job = job
        try:
            while True:
                state, phase, fraction = job.wait(30)
                if state >= semblance.DONE:
                    return job.take()
                with self._news:
                    if self._wish is not None or self._over:
                        job.cancel()
                        return None
                self._tell(State(recipe, True, phase, fraction, None, self.state.picture))
        finally:
            with self._news:
                self._job = None
            job.free()

    def _tell(self, state):
        """Unless it is old news: another recipe was asked for, or none."""
        with self._news:
            current = self._wish is None and not self._over
            if current and state.recipe is self.state.recipe:
                self.state = state
