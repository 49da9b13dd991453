/* semblance.h: the C interface of libsemblance. C99; also valid C++.
 *
 * For: changing one attribute of a layer ("sunset", "snow", free text) inside an image editor or
 * any other process that owns pixels. Not for: files, windows, colour management of a display.
 *
 *
 * THE CONTRACT
 *
 * Symbol.    The library exports ONE symbol, semblance_get_api. It returns a table of functions
 *            that stays valid and constant until the process ends (the library is linked so that
 *            dlclose does not unmap it). Ask for the major version that you were compiled with.
 *
 * Growing.   The table and every struct begin with struct_size and only ever grow at the end. Set
 *            struct_size to sizeof the struct before each call; the library reads and writes no
 *            more than that. Before a function younger than the first release, ask
 *            SEMBLANCE_HAS(api, function). Reserved fields are 0. There is no implicit padding,
 *            pointers have 64 bits, numbers the machine's byte order.
 *
 * Errors.    Every call that can fail returns a code, 0 = SEMBLANCE_OK, and fills the
 *            semblance_error that you pass (NULL if you do not care). On success only its code is
 *            written. There is no "last error" in a thread or anywhere else. Outputs (handles,
 *            strings, structs) are written on success only. The numbers never change; expect new
 *            ones and treat an unknown code as a failure.
 *
 * Handles.   semblance_engine, semblance_job and semblance_result are made and destroyed by the
 *            library. Each NEW handle is yours and is given back to its *_destroy or *_free once.
 *            These take NULL, touch no error and cannot fail. Jobs and results may outlive their
 *            engine. Using a handle after giving it back is undefined, as is using one while
 *            another thread gives it back.
 *
 * Strings.   In: UTF-8, NUL-terminated, read during the call only, 1 MiB at most. Paths too. Out
 *            (char **): JSON, UTF-8, NUL-terminated, yours until api->string_free. JSON in both
 *            directions is an object that says its version, "semblance": 1.
 *
 * Buffers.   Pixels, masks and profiles are read or written during the call only; no pointer is
 *            kept. The bytes between rows are neither read nor written. `dst` may be the very same
 *            memory as `src` (same data, row_stride and rect) or be disjoint from it; anything
 *            between is refused. Two threads may render into one buffer at once when their
 *            rectangles share no ROW of it; for column tiles use a buffer each.
 *
 * Threads.   A tag stands on every function:
 *              [any-thread]  from any thread, at the same time as any other call on the same
 *                            handle (but giving the handle back); returns at once, job_start
 *                            after it has read the layer.
 *              [worker]      the same, and may take long: seconds to minutes. In an editor not
 *                            for the main thread.
 *            The library has no thread that it prefers and pumps no event loop. A host that may
 *            call from its main thread only starts a job and polls it from a timer.
 *
 * Jobs.      One job an engine runs at a time. A newer PREVIEW supersedes older previews. Any
 *            other job waits in line or is refused, as the host asks. Queries, log, renders of
 *            finished results and cancel go on meanwhile. A job runs on a thread of ours, which
 *            is joined when the job is freed or the engine is destroyed, whichever is first. The
 *            engine's pool of workers ends by itself soon after its last handle is given back.
 *
 * Callbacks. Only blocking calls take one. It runs on the calling thread, between the start and
 *            the end of that call, and goes on only if it returns exactly SEMBLANCE_CONTINUE. ANY
 *            other value cancels: a binding whose callback throws returns garbage. It must
 *            return (no longjmp, no exception) and may call the library.
 *
 * Process.   No panic, exception or abort crosses the boundary: a defect of ours comes back as
 *            SEMBLANCE_INTERNAL. The library installs no signal handler and no atexit, writes
 *            nothing to stdout, opens no socket, and starts no thread before the first engine.
 *            The floating-point control word is saved, set and restored on entry. After fork(),
 *            a child of a process that made an engine gets SEMBLANCE_FORKED from every call that
 *            can fail; use spawn, or make the first engine in the child.
 */
#ifndef SEMBLANCE_H
#define SEMBLANCE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface. Raised only when something that worked would break. */
#define SEMBLANCE_MAJOR 1u

#if defined(_WIN32)
#define SEMBLANCE_CALL __cdecl
#else
#define SEMBLANCE_CALL
#endif

/* ------------------------------------------------------------------------------------ codes -- */

/* What a call returns. Sorted by who can mend it; see `message` and `hint` of semblance_error. */
enum {
  SEMBLANCE_OK = 0,
  SEMBLANCE_INVALID_PARAMETER = 1,      /* an argument or option is outside its range */
  SEMBLANCE_INVALID_LAYER = 2,          /* a semblance_pixels contradicts itself or its buffer */
  SEMBLANCE_INVALID_MASK = 3,           /* a semblance_mask contradicts itself or its buffer */
  SEMBLANCE_INVALID_RECIPE = 4,         /* recipe: bad JSON, unknown key, future version */
  SEMBLANCE_UNKNOWN_ATTRIBUTE = 5,      /* no such name; the hint lists the nearest */
  SEMBLANCE_ATTRIBUTE_NOT_FOR_MODEL = 6,/* it exists and does not serve this model */
  SEMBLANCE_INVALID_ATTRIBUTE = 7,      /* an attribute file is damaged */
  SEMBLANCE_MODEL_NOT_FOUND = 8,        /* nothing at the place given */
  SEMBLANCE_INVALID_MODEL = 9,          /* files damaged, incomplete or hostile */
  SEMBLANCE_UNSUPPORTED_MODEL = 10,     /* a kind that this version does not run */
  SEMBLANCE_IO = 11,                    /* the operating system refused a read or a write */
  SEMBLANCE_OUT_OF_MEMORY = 12,         /* forecast or allocation exceeds what there is */
  SEMBLANCE_CANCELLED = 13,             /* the host asked to stop */
  SEMBLANCE_SUPERSEDED = 14,            /* a newer preview took this job's place */
  SEMBLANCE_BUSY = 15,                  /* another job runs and the host asked not to wait */
  SEMBLANCE_UNSUPPORTED = 16,           /* makes no sense in this state, or not in this build */
  SEMBLANCE_FORKED = 17,                /* the process was forked after the engine was made */
  SEMBLANCE_INTERNAL = 18               /* a defect of ours, contained */
};

/* What a progress callback returns to go on. No accident returns it. */
#define SEMBLANCE_CONTINUE ((int32_t)0x53454D31)

/* -------------------------------------------------------------------------------- constants -- */

/* Type of one sample, machine byte order. */
enum {
  SEMBLANCE_SAMPLES_U8 = 1,  /* 0..255 */
  SEMBLANCE_SAMPLES_U16 = 2, /* 0..65535 */
  SEMBLANCE_SAMPLES_F16 = 3, /* IEEE half, 0..1 nominal */
  SEMBLANCE_SAMPLES_F32 = 4  /* IEEE single, 0..1 nominal */
};

/* Channels of a pixel, in memory order. */
enum {
  SEMBLANCE_ORDER_RGB = 1,
  SEMBLANCE_ORDER_RGBA = 2,
  SEMBLANCE_ORDER_BGRA = 3,
  SEMBLANCE_ORDER_ARGB = 4,
  SEMBLANCE_ORDER_GRAY = 5,
  SEMBLANCE_ORDER_GRAY_ALPHA = 6
};

/* Whether colour is multiplied by alpha. NONE exactly when the order has no alpha. */
enum {
  SEMBLANCE_ALPHA_NONE = 0,
  SEMBLANCE_ALPHA_STRAIGHT = 1,
  SEMBLANCE_ALPHA_PREMULTIPLIED = 2
};

/* How numbers become colours. */
enum {
  SEMBLANCE_COLOR_UNSPECIFIED = 0, /* U8, U16: sRGB. F16, F32: refused with a hint, for a guess
                                      between sRGB and linear would be wrong half of the time */
  SEMBLANCE_COLOR_SRGB = 1,        /* sRGB primaries and curve */
  SEMBLANCE_COLOR_LINEAR_SRGB = 2, /* sRGB primaries, linear light */
  SEMBLANCE_COLOR_ICC = 3          /* the profile in icc, icc_size */
};

/* What a job is for. */
enum {
  SEMBLANCE_JOB_PREVIEW = 1, /* a newer preview on the same engine supersedes it */
  SEMBLANCE_JOB_FINAL = 2    /* runs to its end unless cancelled */
};

/* What job_start does when its engine is busy. Previews never wait for previews. */
enum {
  SEMBLANCE_IF_BUSY_WAIT = 1,  /* wait in line */
  SEMBLANCE_IF_BUSY_REFUSE = 2 /* fail with SEMBLANCE_BUSY */
};

/* Where a job is. From DONE and FAILED it never moves. */
enum {
  SEMBLANCE_STATE_WAITING = 1,
  SEMBLANCE_STATE_RUNNING = 2,
  SEMBLANCE_STATE_DONE = 3,
  SEMBLANCE_STATE_FAILED = 4 /* cancelled and superseded too; job_take tells */
};

/* What a running job does; 0 before it runs. Names: api->phase_name. */
enum {
  SEMBLANCE_PHASE_NONE = 0,
  SEMBLANCE_PHASE_LOAD = 1,
  SEMBLANCE_PHASE_READ = 2,
  SEMBLANCE_PHASE_TEXT = 3,
  SEMBLANCE_PHASE_ENCODE = 4,
  SEMBLANCE_PHASE_INVERT = 5,
  SEMBLANCE_PHASE_EDIT = 6,
  SEMBLANCE_PHASE_DECODE = 7,
  SEMBLANCE_PHASE_FIT = 8
};

/* Weight of a log entry. */
enum {
  SEMBLANCE_LOG_ERROR = 1,
  SEMBLANCE_LOG_WARNING = 2,
  SEMBLANCE_LOG_INFO = 3,
  SEMBLANCE_LOG_DEBUG = 4
};

/* ---------------------------------------------------------------------------------- handles -- */

typedef struct semblance_engine semblance_engine; /* a model, its attributes, its line of jobs */
typedef struct semblance_job semblance_job;       /* work under way, or ended */
typedef struct semblance_result semblance_result; /* a finished edit, rendered on demand */

/* ---------------------------------------------------------------------------------- structs -- */

/* A failure. Yours; 840 bytes, so the stack will do. Texts are UTF-8, cut between characters when
 * too long, NUL-terminated. `message` has the offending value and the allowed range, `hint` one
 * thing to try (may be empty), `parameter` the id of the offending field (may be empty). */
typedef struct semblance_error {
  uint32_t struct_size; /* in: sizeof(semblance_error) */
  int32_t code;
  char message[512];
  char hint[256];
  char parameter[64];
} semblance_error;

/* A rectangle in the layer's own coordinates: x right, y down, pixels. This struct never grows. */
typedef struct semblance_rect {
  int64_t x;
  int64_t y;
  uint32_t width;
  uint32_t height;
} semblance_rect;

/* A layer's pixels, or those of a part of it. The struct and all it points to are the host's and
 * need to live for the call only.
 *
 * `data` is the first byte of the TOP row; row r begins at data + r * row_stride, which is in
 * bytes, may be padded, and is negative for a picture stored bottom-up. `data_size` is for checking:
 * the bytes that are there, counted upward from the row that lies lowest in memory; at least
 * (height - 1) * |row_stride| + width * bytes per pixel. A layer given whole has rect.x = rect.y =
 * 0; a tile has its place in the layer. Where the library only reads, `data` is not written. */
typedef struct semblance_pixels {
  uint32_t struct_size; /* sizeof(semblance_pixels) */
  int32_t samples;      /* SEMBLANCE_SAMPLES_* */
  int32_t order;        /* SEMBLANCE_ORDER_* */
  int32_t alpha;        /* SEMBLANCE_ALPHA_* */
  void *data;
  uint64_t data_size;
  int64_t row_stride;
  semblance_rect rect;
  int32_t color; /* SEMBLANCE_COLOR_* */
  uint32_t reserved;
  const void *icc;   /* the profile's bytes with SEMBLANCE_COLOR_ICC, else NULL */
  uint64_t icc_size; /* and their number, else 0 */
} semblance_pixels;

/* Where the edit acts: one channel, 0 = keep, full = edit, 0 outside its rect (in the layer's
 * coordinates). `data`, `data_size`, `row_stride` as in semblance_pixels. */
typedef struct semblance_mask {
  uint32_t struct_size; /* sizeof(semblance_mask) */
  int32_t samples;      /* SEMBLANCE_SAMPLES_U8 or _F32 (clamped to 0..1, NaN counts as 0) */
  const void *data;
  uint64_t data_size;
  int64_t row_stride;
  semblance_rect rect;
} semblance_mask;

/* Where a job is. */
typedef struct semblance_job_state {
  uint32_t struct_size; /* in: sizeof(semblance_job_state) */
  int32_t state;        /* SEMBLANCE_STATE_* */
  int32_t phase;        /* SEMBLANCE_PHASE_* */
  float fraction;       /* of the whole job, 0..1, never falling */
} semblance_job_state;

/* What one render changed. */
typedef struct semblance_tally {
  uint32_t struct_size;  /* in: sizeof(semblance_tally) */
  float largest_change;  /* of a colour sample, in 0..1 of full scale */
  uint64_t changed;      /* pixels whose bytes changed */
  uint64_t kept;         /* pixels written with their old bytes */
  double sum_of_change;  /* over changed pixels, of the largest change of a colour sample */
  uint64_t selected;     /* pixels that the edit might change: above 0 in the mask, inside the
                            extent; every changed pixel is one of them */
} semblance_tally;

/* One line of an engine's log. */
typedef struct semblance_log_entry {
  uint32_t struct_size; /* in: sizeof(semblance_log_entry) */
  int32_t level;        /* SEMBLANCE_LOG_* */
  uint64_t time_us;     /* microseconds since 1970-01-01 UTC */
  uint64_t lost;        /* entries dropped just before this one because nobody polled */
  char text[1000];      /* UTF-8, cut between characters, NUL-terminated */
} semblance_log_entry;

/* Called about ten times a second by a blocking call, on the thread that made the call. `state`
 * lives for the callback. Returns SEMBLANCE_CONTINUE; any other value cancels. */
typedef int32_t(SEMBLANCE_CALL *semblance_progress_fn)(void *user,
                                                       const semblance_job_state *state);

/* ------------------------------------------------------------------------------------ table -- */

typedef struct semblance_api {
  uint32_t struct_size; /* of the library's table, which may be longer or shorter than yours */
  uint32_t major;       /* SEMBLANCE_MAJOR of the library's table */

  /* [any-thread] The library's version, "0.1.0"; valid for ever. */
  const char *(SEMBLANCE_CALL *version)(void);

  /* [any-thread] A code's stable name as in JSON reports ("invalid_layer"; 0 is "ok"); "unknown"
   * for a number that is none. Valid for ever. */
  const char *(SEMBLANCE_CALL *code_name)(int32_t code);

  /* [any-thread] A phase's stable name ("invert"; 0 is "none"); "unknown" for a number that is
   * none. Valid for ever. */
  const char *(SEMBLANCE_CALL *phase_name)(int32_t phase);

  /* [any-thread] A table of functions that may still change, by name, or NULL: "none here". Names
   * end in a version, and a name's table never changes. Reserved: "semblance.learn.draft/1". */
  const void *(SEMBLANCE_CALL *get_extension)(const char *name);

  /* [any-thread] Gives back a string that the library returned. NULL is fine. */
  void(SEMBLANCE_CALL *string_free)(char *string);

  /* -- engine -- */

  /* [any-thread] Makes an engine. Checks the options, reads no weights: quick.
   *
   * `options_json`, NULL or empty for all defaults; unknown keys are refused:
   *   {"semblance": 1,
   *    "model_folder": "/path",        a model in diffusers layout; absent: the embedded one
   *    "threads": 4,                   1..=256; absent: all cores
   *    "memory_limit": 4294967296,     bytes for weights and jobs; absent: what is free
   *    "cpu": "amx,auto",              the first of these that this CPU has: "portable", "avx2",
   *                                    "avx512", "avx512bf16", "amx" (the last two round to
   *                                    bf16; "amx" asks the system for tiles), "auto"; absent:
   *                                    what SEMBLANCE_CPU in the environment says, or "auto"
   *    "attribute_folders": ["/path"], folders with further attribute files (*.toml)
   *    "packed_folder": "/path",       where weights of large models are kept packed, 16 GiB at
   *                                    most, for the next start; "": nowhere; absent: what
   *                                    SEMBLANCE_PACKED in the environment says (a folder, or
   *                                    "off"), or semblance/packed in the user's cache folder
   *    "log_level": "info"}            "error", "warning", "info" (default) or "debug"
   *
   * `*engine` is yours: engine_destroy. */
  int32_t(SEMBLANCE_CALL *engine_create)(const char *options_json, semblance_engine **engine,
                                         semblance_error *error);

  /* [worker] Gives the engine back. Cancels its jobs and joins their threads: at most one network
   * block. The handles of its jobs and results stay valid and are still to be freed. NULL is
   * fine. */
  void(SEMBLANCE_CALL *engine_destroy)(semblance_engine *engine);

  /* [worker] Reads the weights now instead of at the first edit. Waits in line. `progress` may be
   * NULL; `user` is handed to it and not looked at. */
  int32_t(SEMBLANCE_CALL *engine_load)(semblance_engine *engine, semblance_progress_fn progress,
                                       void *user, semblance_error *error);

  /* [any-thread] As engine_load, as a job that waits in line. Its job_take writes NULL. */
  int32_t(SEMBLANCE_CALL *engine_load_start)(semblance_engine *engine, semblance_job **job,
                                             semblance_error *error);

  /* [any-thread] Model, CPU path, memory, versions: a JSON object. `*json` is yours:
   * string_free. */
  int32_t(SEMBLANCE_CALL *engine_describe)(const semblance_engine *engine, char **json,
                                           semblance_error *error);

  /* [any-thread] What can be named in a recipe, and which models it serves:
   * {"semblance": 1, "attributes": [...]}.
   * `*json` is yours: string_free. */
  int32_t(SEMBLANCE_CALL *engine_attributes)(const semblance_engine *engine, char **json,
                                             semblance_error *error);

  /* [any-thread] The recipe's parameters with id, range, unit, default and help, to make a dialog
   * from: {"semblance": 1, "parameters": [...]}. `*json` is yours: string_free. */
  int32_t(SEMBLANCE_CALL *engine_parameters)(const semblance_engine *engine, char **json,
                                             semblance_error *error);

  /* [any-thread] Forgets cached encodings and inversions (the weights stay). For a host that runs
   * short of memory. NULL is fine. */
  void(SEMBLANCE_CALL *engine_purge)(semblance_engine *engine);

  /* [any-thread] Takes the oldest entry out of the engine's log, which holds 256: returns 1 and
   * fills `entry`, or returns 0 when there is none. Polled, so that no thread of ours ever runs
   * your code. */
  int32_t(SEMBLANCE_CALL *log_poll)(semblance_engine *engine, semblance_log_entry *entry);

  /* -- jobs -- */

  /* [any-thread] Starts an edit and returns before the model works. Checks layer, mask and recipe,
   * forecasts the memory and copies what the model will see (some megabytes at most): nothing of
   * `layer` or `mask` is needed afterwards but to render. That copy reads every pixel of the layer
   * on the calling thread: milliseconds for a few megapixels, about a second for 100. A host whose
   * main thread may not pause so long starts the job from another.
   *
   * `mask` may be NULL: everywhere. `kind` is SEMBLANCE_JOB_*, `if_busy` SEMBLANCE_IF_BUSY_*.
   * `recipe_json`; unknown keys are refused, only "semblance" is required:
   *   {"semblance": 1,
   *    "attributes": [{"name": "sunset", "strength": 0.8}],  -2..=2, 0 is the identity
   *    "text": {"from": "a photo of hills", "to": "a photo of hills, at night", "strength": 1},
   *    "scene": "a photo of hills",  what the picture shows
   *    "seed": 0, "steps": 20, "guidance": 4.0, "compositor": "change"}
   * `*job` is yours: job_free. */
  int32_t(SEMBLANCE_CALL *job_start)(semblance_engine *engine, const semblance_pixels *layer,
                                     const semblance_mask *mask, const char *recipe_json,
                                     int32_t kind, int32_t if_busy, semblance_job **job,
                                     semblance_error *error);

  /* [any-thread] Where the job is. */
  int32_t(SEMBLANCE_CALL *job_poll)(const semblance_job *job, semblance_job_state *state,
                                    semblance_error *error);

  /* [worker] Waits until the job has ended, `timeout_ms` at most (negative: for ever; 0 is
   * job_poll), then says where it is (`state` may be NULL). Returns SEMBLANCE_OK whatever became
   * of the job. */
  int32_t(SEMBLANCE_CALL *job_wait)(const semblance_job *job, int64_t timeout_ms,
                                    semblance_job_state *state, semblance_error *error);

  /* [any-thread] Asks the job to stop and returns; it ends within one network block. NULL is
   * fine; so is a job that has ended. */
  void(SEMBLANCE_CALL *job_cancel)(semblance_job *job);

  /* [any-thread] Takes what the job made. DONE: `*result` is yours: result_free. FAILED: returns
   * the job's own error, each time. Earlier, or a second time: SEMBLANCE_UNSUPPORTED. */
  int32_t(SEMBLANCE_CALL *job_take)(semblance_job *job, semblance_result **result,
                                    semblance_error *error);

  /* [worker] Gives the job back; cancels it first and joins its thread: at once when it has ended,
   * else at most one network block. NULL is fine. */
  void(SEMBLANCE_CALL *job_free)(semblance_job *job);

  /* -- results: small (a patch at the model's size), rendered onto your pixels on demand -- */

  /* [any-thread] The smallest rectangle outside which nothing changes. */
  int32_t(SEMBLANCE_CALL *result_extent)(const semblance_result *result, semblance_rect *extent,
                                         semblance_error *error);

  /* [any-thread] Which rectangle of the layer must be given as `src` to render `rect`. */
  int32_t(SEMBLANCE_CALL *result_input_needed)(const semblance_result *result,
                                               const semblance_rect *rect, semblance_rect *needed,
                                               semblance_error *error);

  /* [worker] Renders `dst->rect`: the pixels of `src` (same samples, order, alpha and colour) with
   * the edit applied where `mask` says (NULL: everywhere). Milliseconds for a tile, a second for
   * 100 megapixels. Any rectangles in any order give the same bytes. `dst` is described in a
   * semblance_pixels whose `data` is written. `tally` may be NULL. On failure the bytes of `dst`
   * are unspecified when the failure came late; those checked first leave it as it was. */
  int32_t(SEMBLANCE_CALL *result_render)(const semblance_result *result,
                                         const semblance_pixels *src, const semblance_mask *mask,
                                         const semblance_pixels *dst, semblance_tally *tally,
                                         semblance_error *error);

  /* [any-thread] The complete recipe, every default filled in: JSON that makes the same bytes
   * again. Keep it beside the result. `*json` is yours: string_free. */
  int32_t(SEMBLANCE_CALL *result_recipe)(const semblance_result *result, char **json,
                                         semblance_error *error);

  /* [any-thread] What was done, how long each phase took, warnings: a JSON object. `*json` is
   * yours: string_free. */
  int32_t(SEMBLANCE_CALL *result_report)(const semblance_result *result, char **json,
                                         semblance_error *error);

  /* [any-thread] Gives the result back. NULL is fine. */
  void(SEMBLANCE_CALL *result_free)(semblance_result *result);

  /* -- all in one -- */

  /* [worker] job_start as FINAL that waits in line, job_wait, job_take, result_render. `src`,
   * `mask` and `dst` must stay as they are until the call returns: the layer is read when the job's
   * turn comes, and a cancel stops that too. `mask`, `progress`, `tally` and `result` may be NULL;
   * `*result` is yours: result_free. */
  int32_t(SEMBLANCE_CALL *edit)(semblance_engine *engine, const semblance_pixels *src,
                                const semblance_mask *mask, const char *recipe_json,
                                const semblance_pixels *dst, semblance_progress_fn progress,
                                void *user, semblance_tally *tally, semblance_result **result,
                                semblance_error *error);

  /* [worker] A preview: the same edit on a copy of the layer at another size. `src` shows the
   * layer's rectangle `part`, reduced by the host to src->rect; `mask` and `dst` are in the
   * copy's coordinates and otherwise as in result_render. What it shows is what the layer becomes:
   * the same change, at the places where the copy's pixels lie. With `part` equal to src->rect it
   * is result_render, byte for byte. */
  int32_t(SEMBLANCE_CALL *result_render_reduced)(const semblance_result *result,
                                                 const semblance_rect *part,
                                                 const semblance_pixels *src,
                                                 const semblance_mask *mask,
                                                 const semblance_pixels *dst,
                                                 semblance_tally *tally, semblance_error *error);
} semblance_api;

/* Whether the library's table has this function. */
#define SEMBLANCE_HAS(api, function)                                                             \
  ((api)->struct_size >= offsetof(semblance_api, function) + sizeof((api)->function) &&          \
   (api)->function != NULL)

/* [any-thread] The table for `major`, or NULL if this library does not serve it. Quick: no file,
 * no thread, no allocation. The table is the library's and lives until the process ends. */
typedef const semblance_api *(SEMBLANCE_CALL *semblance_get_api_fn)(uint32_t major);

#if defined(_WIN32) && !defined(SEMBLANCE_BUILD)
__declspec(dllimport)
#endif
const semblance_api *SEMBLANCE_CALL semblance_get_api(uint32_t major);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* SEMBLANCE_H */
