"""semblance.h for Python: ctypes only, no compiler, no package.

For: plug-ins of editors that embed Python (Krita, GIMP), scripts, tests. Not for: image files.
Mirrors the C table field by field; the layout is checked by ffi/tests. The reference is semblance.h.
"""

import ctypes as c
import json

CONTINUE = 0x53454D31
SAMPLES = {"u8": 1, "u16": 2, "f16": 3, "f32": 4}
ORDER = {"rgb": 1, "rgba": 2, "bgra": 3, "argb": 4, "gray": 5, "gray_alpha": 6}
ALPHA = {None: 0, "straight": 1, "premultiplied": 2}
COLOR = {None: 0, "srgb": 1, "linear_srgb": 2, "icc": 3}
PREVIEW, FINAL = 1, 2
WAIT, REFUSE = 1, 2
WAITING, RUNNING, DONE, FAILED = 1, 2, 3, 4

u32, i32, u64, i64, ptr = c.c_uint32, c.c_int32, c.c_uint64, c.c_int64, c.c_void_p


class _Sized(c.Structure):
    """A struct that begins with its own size."""

    def __init__(self, **values):
        super().__init__(struct_size=c.sizeof(type(self)), **values)


class ErrorStruct(_Sized):
    _fields_ = [("struct_size", u32), ("code", i32), ("message", c.c_char * 512),
                ("hint", c.c_char * 256), ("parameter", c.c_char * 64)]


class Rect(c.Structure):
    _fields_ = [("x", i64), ("y", i64), ("width", u32), ("height", u32)]


class Pixels(_Sized):
    _fields_ = [("struct_size", u32), ("samples", i32), ("order", i32), ("alpha", i32),
                ("data", ptr), ("data_size", u64), ("row_stride", i64), ("rect", Rect),
                ("color", i32), ("reserved", u32), ("icc", ptr), ("icc_size", u64)]


class Mask(_Sized):
    _fields_ = [("struct_size", u32), ("samples", i32), ("data", ptr), ("data_size", u64),
                ("row_stride", i64), ("rect", Rect)]


class JobState(_Sized):
    _fields_ = [("struct_size", u32), ("state", i32), ("phase", i32), ("fraction", c.c_float)]


class Tally(_Sized):
    _fields_ = [("struct_size", u32), ("largest_change", c.c_float), ("changed", u64),
                ("kept", u64), ("sum_of_change", c.c_double), ("selected", u64)]


class LogEntry(_Sized):
    _fields_ = [("struct_size", u32), ("level", i32), ("time_us", u64), ("lost", u64),
                ("text", c.c_char * 1000)]


ProgressFn = c.CFUNCTYPE(i32, ptr, c.POINTER(JobState))
_error, _pixels, _mask = c.POINTER(ErrorStruct), c.POINTER(Pixels), c.POINTER(Mask)
_out, _text = c.POINTER(ptr), c.c_char_p


class Table(c.Structure):
    """semblance_api. Handles and owned strings are plain pointers."""

    _fields_ = [("struct_size", u32), ("major", u32)] + [
        (name, c.CFUNCTYPE(*types)) for name, types in {
            "version": (_text,),
            "code_name": (_text, i32),
            "phase_name": (_text, i32),
            "get_extension": (ptr, _text),
            "string_free": (None, ptr),
            "engine_create": (i32, _text, _out, _error),
            "engine_destroy": (None, ptr),
            "engine_load": (i32, ptr, ProgressFn, ptr, _error),
            "engine_load_start": (i32, ptr, _out, _error),
            "engine_describe": (i32, ptr, _out, _error),
            "engine_attributes": (i32, ptr, _out, _error),
            "engine_parameters": (i32, ptr, _out, _error),
            "engine_purge": (None, ptr),
            "log_poll": (i32, ptr, c.POINTER(LogEntry)),
            "job_start": (i32, ptr, _pixels, _mask, _text, i32, i32, _out, _error),
            "job_poll": (i32, ptr, c.POINTER(JobState), _error),
            "job_wait": (i32, ptr, i64, c.POINTER(JobState), _error),
            "job_cancel": (None, ptr),
            "job_take": (i32, ptr, _out, _error),
            "job_free": (None, ptr),
            "result_extent": (i32, ptr, c.POINTER(Rect), _error),
            "result_input_needed": (i32, ptr, c.POINTER(Rect), c.POINTER(Rect), _error),
            "result_render": (i32, ptr, _pixels, _mask, _pixels, c.POINTER(Tally), _error),
            "result_recipe": (i32, ptr, _out, _error),
            "result_report": (i32, ptr, _out, _error),
            "result_free": (None, ptr),
            "edit": (i32, ptr, _pixels, _mask, _text, _pixels, ProgressFn, ptr,
                     c.POINTER(Tally), _out, _error),
            "result_render_reduced": (i32, ptr, c.POINTER(Rect), _pixels, _mask, _pixels,
                                      c.POINTER(Tally), _error),
        }.items()]


class Error(Exception):
    """A failed call: code (number), message, hint, parameter."""

    def __init__(self, e):
        self.code = e.code
        self.message, self.hint, self.parameter = (
            text.decode() for text in (e.message, e.hint, e.parameter))
        super().__init__(f"{self.message} ({self.hint})" if self.hint else self.message)


def load(path):
    """The function table of the library at `path`."""
    library = c.CDLL(path)
    library.semblance_get_api.restype = c.POINTER(Table)
    library.semblance_get_api.argtypes = [u32]
    table = library.semblance_get_api(1)
    if not table or table.contents.struct_size < c.sizeof(Table):
        raise OSError(f"{path}: does not serve version 1 of its interface")
    return table.contents


def check(call, *arguments):
    """Calls with an error struct appended; raises what it reports."""
    error = ErrorStruct()
    if call(*arguments, c.byref(error)) != 0:
        raise Error(error)


def pixels(buffer, width, height, samples="u8", order="rgb", alpha=None, color="srgb", x=0, y=0,
           icc=None):
    """Describes a writable buffer (bytearray, memoryview ...) of rows without padding.

    With a profile (bytes) in `icc`, `color` counts for nothing.
    """
    held = (c.c_char * len(buffer)).from_buffer(buffer)
    p = Pixels(samples=SAMPLES[samples], order=ORDER[order], alpha=ALPHA[alpha],
               data=c.addressof(held), data_size=len(buffer), row_stride=len(buffer) // height,
               rect=Rect(x, y, width, height), color=COLOR["icc" if icc else color])
    p.held = held, icc  # both live as long as their description
    if icc:
        p.icc, p.icc_size = c.cast(c.c_char_p(icc), ptr), len(icc)
    return p


def mask(buffer, width, height, samples="u8", x=0, y=0):
    """Describes a writable buffer of one channel, 0 = keep, at `x`, `y` of the layer."""
    held = (c.c_char * len(buffer)).from_buffer(buffer)
    m = Mask(samples=SAMPLES[samples], data=c.addressof(held), data_size=len(buffer),
             row_stride=len(buffer) // height, rect=Rect(x, y, width, height))
    m.held = held
    return m


def _json(api, query, handle):
    text = ptr()
    check(query, handle, c.byref(text))
    try:
        return json.loads(c.string_at(text))
    finally:
        api.string_free(text)


class Job:
    """Work under way on a thread of the library: polled, then taken, then freed."""

    def __init__(self, api, handle):
        self.api, self.handle = api, handle

    def wait(self, milliseconds=0):
        """Its (state, phase, fraction) after at most so long; 0 polls."""
        state = JobState()
        check(self.api.job_wait, self.handle, milliseconds, c.byref(state))
        return state.state, self.api.phase_name(state.phase).decode(), state.fraction

    def cancel(self):
        self.api.job_cancel(self.handle)

    def take(self):
        """The Result; raises the job's own Error."""
        result = ptr()
        check(self.api.job_take, self.handle, c.byref(result))
        return Result(self.api, result)

    def free(self):
        """Gives it back, once; waits for at most one network block."""
        self.api.job_free(self.handle)
        self.handle = ptr()


class Result:
    """A finished edit, rendered on demand; given back when it is collected."""

    def __init__(self, api, handle):
        self.api, self.handle = api, handle

    def __del__(self):
        self.api.result_free(self.handle)

    def render(self, src, dst, mask=None):
        """Writes dst (see pixels) and returns the Tally."""
        tally = Tally()
        check(self.api.result_render, self.handle, src, mask, dst, c.byref(tally))
        return tally

    def render_reduced(self, part, src, dst, mask=None):
        """As render, on a copy of another size of the layer's rectangle `part` (a Rect)."""
        tally = Tally()
        check(self.api.result_render_reduced, self.handle, c.byref(part), src, mask, dst,
              c.byref(tally))
        return tally

    def recipe(self):
        return _json(self.api, self.api.result_recipe, self.handle)

    def report(self):
        return _json(self.api, self.api.result_report, self.handle)


class Engine:
    """A model, its attributes, its line of jobs."""

    def __init__(self, api, **options):
        self.api, self.handle = api, ptr()
        text = json.dumps({"semblance": 1, **options}).encode()
        check(api.engine_create, text, c.byref(self.handle))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.api.engine_destroy(self.handle)
        self.handle = ptr()

    def describe(self):
        return _json(self.api, self.api.engine_describe, self.handle)

    def attributes(self):
        return _json(self.api, self.api.engine_attributes, self.handle)["attributes"]

    def parameters(self):
        return _json(self.api, self.api.engine_parameters, self.handle)["parameters"]

    def start(self, src, recipe, mask=None, kind=FINAL, if_busy=WAIT):
        """Starts an edit; returns its Job before the model works. Nothing of src is kept."""
        job = ptr()
        check(self.api.job_start, self.handle, src, mask, json.dumps(recipe).encode(), kind,
              if_busy, c.byref(job))
        return Job(self.api, job)

    def edit(self, src, recipe, dst=None, mask=None, progress=None):
        """Blocks; calls progress(phase, fraction), which cancels by returning False or raising.

        Returns the report and the complete recipe.
        """

        def watch(_, state):
            state = state.contents
            name = self.api.phase_name(state.phase).decode()
            return CONTINUE if progress is None or progress(name, state.fraction) is not False else 0

        result = ptr()
        check(self.api.edit, self.handle, src, mask, json.dumps(recipe).encode(),
              src if dst is None else dst, ProgressFn(watch), None, None, c.byref(result))
        made = Result(self.api, result)
        return made.report(), made.recipe()
