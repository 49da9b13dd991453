/* What the parts of the plug-in for GIMP 2.10 know of each other.
 *
 * words.c    recipes in words and as JSON
 * work.c     the library: found, opened, its errors
 * layers.c   GIMP's layers as the library sees them, its results as GIMP's layers
 * preview.c  the picture in the window
 * dialog.c   the window
 * semblance-edit.c  GIMP's procedure
 *
 * GIMP starts the plug-in as a process of its own, for one call at a time. Everything runs on the
 * main thread, for GIMP's wire knows no other; the library's jobs run on theirs and are polled.
 */
#ifndef SEMBLANCE_GIMP2_H
#define SEMBLANCE_GIMP2_H

#include <json-glib/json-glib.h>
#include <libgimp/gimp.h>

#include "semblance.h"

#define PROCEDURE "plug-in-semblance-edit"

/* ------------------------------------------------------------------------------------- words -- */

/* An error of ours; its text says what failed, the value, the range and a hint. */
#define REFUSED (g_quark_from_static_string("semblance"))

/* A member of a JSON object, or what stands for it where it is absent or of another kind. */
const char *json_text(JsonObject *object, const char *name);
double json_number(JsonObject *object, const char *name, double otherwise);
JsonObject *json_object_of(JsonObject *object, const char *name);
guint json_count(JsonObject *object, const char *name);
JsonObject *json_item(JsonObject *object, const char *name, guint at);

/* The JSON of an object, to be freed. */
char *json_write(JsonObject *object);

/* The object in a JSON text, to be unreferenced; NULL with an error. */
JsonObject *json_read(const char *text, GError **error);

/* At most three decimals, without needless zeros; to be freed. */
char *words_number(double value);

/* The edit in a few words, for a layer's name: `sunset 0.8, fog 0.3`; to be freed. */
char *words_title(JsonObject *recipe);

/* Sets the attributes of a script's `sunset=0.8, fog=0.3`; an empty text changes nothing. */
gboolean words_sliders(const char *text, JsonObject *recipe, GError **error);

/* The recipe in a JSON text without the library's stamp; that of an empty text says nothing. */
JsonObject *words_recipe(const char *text, GError **error);

/* Whether a recipe says anything at all; the library refuses one that does not. */
gboolean words_change(JsonObject *recipe);

/* The line that makes the same edit in a shell, from the file `source`; to be freed. */
char *words_command(JsonObject *recipe, const char *source, const char *model, gboolean mask);

/* -------------------------------------------------------------------------------------- work -- */

/* The library and an engine of it. */
typedef struct {
  const semblance_api *api;
  semblance_engine *engine;
} Work;

/* Opens the library (SEMBLANCE_LIBRARY, else beside `program`) and an engine on the model in the
 * folder `model`, or on the embedded one where that is empty. */
gboolean work_open(Work *work, const char *program, const char *model, GError **error);
void work_close(Work *work);

/* Turns the library's error into GLib's; always FALSE. */
gboolean work_failed(const semblance_error *said, GError **error);

/* What a result says about itself. Recipe: the library's own text. Warnings: lines. To be freed. */
char *work_recipe(const Work *work, const semblance_result *result, GError **error);
char *work_warnings(const Work *work, const semblance_result *result);

/* The library's lists, to be unreferenced: an object with the array "attributes", "parameters". */
JsonObject *work_attributes(const Work *work, GError **error);
JsonObject *work_parameters(const Work *work, GError **error);

/* ------------------------------------------------------------------------------------ layers -- */

/* A selection's coverage and place on the canvas; `data` NULL: everything is selected. */
typedef struct {
  guint8 *data;
  int x, y, width, height;
  int samples; /* SEMBLANCE_SAMPLES_U8 or _F32 */
} Selection;

/* The pixels of a layer, or of all that is visible, read once. */
typedef struct {
  gint32 image;
  gint32 layer;    /* the layer that is edited, or above which the visible image is shown */
  gint32 drawable; /* whose pixels these are; of a visible image a layer outside it, or -1 later */
  gboolean visible, gray, has_alpha;
  gboolean native; /* whether `bytes` are the layer's own samples */
  int x, y, width, height;
  const Babl *format; /* of `bytes` */
  int samples, color, pixel_size;
  guint8 *bytes;
  gsize size;
  GimpColorProfile *profile; /* of these numbers; NULL: sRGB, or linear sRGB */
  Selection selection;
} Source;

/* What a layer that was made here remembers. */
typedef struct {
  JsonObject *recipe; /* NULL: nothing */
  gint32 layer;       /* its source; -1 where that is gone */
  gboolean visible;
  char *model; /* its folder, "": the embedded one; NULL: not said */
  Selection selection;
} Memory;

/* Whether the drawable can be edited. */
gboolean layers_check(gint32 drawable, GError **error);

/* Reads `layer`, or what is visible but `hidden` (-1: nothing is hidden). Where nothing is selected,
 * `before` (may be NULL) is the selection. */
Source *source_read(gint32 layer, gboolean visible, const Selection *before, gint32 hidden,
                    GError **error);
void source_free(Source *source);

/* Describes `data` (its own bytes where NULL) for the library; valid while the source is. */
semblance_pixels source_pixels(const Source *source, void *data);

/* The selection for the library, in the layer's coordinates; NULL where there is none. */
const semblance_mask *source_mask(const Source *source, semblance_mask *mask);

/* The result's bytes, to be freed. */
guint8 *source_render(const Source *source, const Work *work, const semblance_result *result,
                      GError **error);

/* Puts a result into the image as one undo step, above its source or in the place of `replaces`
 * (-1: of none); returns the new layer. `recipe` is JSON, `model` the folder of the model or "". */
gint32 layers_add(Source *source, const guint8 *data, const char *recipe, const char *model,
                  gint32 replaces);

/* What the layer remembers; empty with memory_clear. */
Memory layers_memory(gint32 layer);
void memory_clear(Memory *memory);

/* ------------------------------------------------------------------------------------ dialog -- */

/* Shows the window; the new layer, or -1: cancelled where no error is set. `last` is what was asked
 * the last time, {"recipe", "model", "source"}, and is set anew. */
gint32 dialog_run(const char *program, gint32 image, gint32 layer, JsonObject *last,
                  GError **error);

#endif
