/* Semblance in GIMP 2.10: Filters ▸ Semblance ▸ Edit Attribute…, and the same for scripts.
 *
 * For: GIMP's procedure and what its run modes mean. Not for: pixels (layers.c), the window
 * (dialog.c). `semblance install gimp` compiles and installs this; by hand, in a folder with these
 * files and semblance.h:
 *
 *   cc -std=gnu11 -O2 -o semblance-edit *.c $(pkg-config --cflags --libs \
 *       gimpui-2.0 gmodule-2.0 json-glib-1.0) -lm
 */
#include <string.h>

#include "gimp2.h"

/* What the arguments are, in their order. */
enum {
  RUN_MODE, IMAGE, DRAWABLE, ATTRIBUTES, SEED, FROM_TEXT, TO_TEXT, TEXT_STRENGTH, SOURCE, MODEL,
  RECIPE, ARGUMENTS
};

/* How this process was called, to find the library beside it. */
static const char *program = "";

static void query(void) {
  static const GimpParamDef arguments[ARGUMENTS] = {
      {GIMP_PDB_INT32, "run-mode", "RUN-INTERACTIVE, RUN-NONINTERACTIVE or RUN-WITH-LAST-VALS"},
      {GIMP_PDB_IMAGE, "image", "The image"},
      {GIMP_PDB_DRAWABLE, "drawable", "The layer"},
      {GIMP_PDB_STRING, "attributes", "NAME=STRENGTH, separated by commas (\"sunset=0.8, fog=0.3\"); a "
                                      "strength is -2 to 2, 1 is the full effect"},
      {GIMP_PDB_INT32, "seed", "Seed of all noise; 0: that of the recipe, or 0"},
      {GIMP_PDB_STRING, "from-text", "What the picture shows, in words, or \"\""},
      {GIMP_PDB_STRING, "to-text", "What it should show, or \"\""},
      {GIMP_PDB_FLOAT, "text-strength", "Strength of the edit in words, -2 to 2"},
      {GIMP_PDB_INT32, "source", "What is edited: the layer (0) or the visible image (1)"},
      {GIMP_PDB_STRING, "model", "Folder of a model in diffusers layout; \"\" for the one inside the "
                                 "library"},
      {GIMP_PDB_STRING, "recipe", "A complete recipe (JSON), or \"\"; the other arguments replace its "
                                  "parts"},
  };
  static const GimpParamDef results[] = {{GIMP_PDB_LAYER, "layer", "The new layer"}};
  gimp_install_procedure(
      PROCEDURE, "Change one attribute of a layer, keep its likeness",
      "Sets attributes (\"sunset=0.8, fog=0.3\"), or follows words (from, to), and puts the result into "
      "a new layer above, named after the edit; nothing outside the selection changes. The layer keeps "
      "its recipe: on such a layer the dialog edits it again.",
      "Semblance", "Semblance", "2026", "_Edit Attribute...", "*", GIMP_PLUGIN, ARGUMENTS,
      G_N_ELEMENTS(results), arguments, results);
  gimp_plugin_menu_register(PROCEDURE, "<Image>/Filters/Semblance");
}

static const char *text_of(const GimpParam *param) {
  return param->data.d_string != NULL ? param->data.d_string : "";
}

/* The recipe that a script's arguments say: that of `recipe`, with the others in its place. */
static JsonObject *asked(const GimpParam *given, GError **error) {
  const char *before = text_of(&given[FROM_TEXT]), *after = text_of(&given[TO_TEXT]);
  JsonObject *recipe = words_recipe(text_of(&given[RECIPE]), error);
  if (recipe == NULL || !words_sliders(text_of(&given[ATTRIBUTES]), recipe, error)) {
    g_clear_pointer(&recipe, json_object_unref);
    return NULL;
  }
  if (*before != '\0' || *after != '\0') {
    JsonObject *text = json_object_new();
    json_object_set_string_member(text, "from", before);
    json_object_set_string_member(text, "to", after);
    json_object_set_double_member(text, "strength", given[TEXT_STRENGTH].data.d_float);
    json_object_set_object_member(recipe, "text", text);
  }
  if (given[SEED].data.d_int32 != 0 || !json_object_has_member(recipe, "seed")) {
    json_object_set_int_member(recipe, "seed", given[SEED].data.d_int32);
  }
  return recipe;
}

/* Waits for a job, showing how far it is; its result, or NULL. */
static semblance_result *waited(const Work *work, semblance_job *job, GError **error) {
  semblance_error said = {.struct_size = sizeof said};
  semblance_job_state state = {.struct_size = sizeof state};
  semblance_result *result = NULL;
  int32_t code;
  while ((code = work->api->job_wait(job, 50, &state, &said)) == SEMBLANCE_OK &&
         state.state < SEMBLANCE_STATE_DONE) {
    gimp_progress_set_text_printf("Semblance: %s", work->api->phase_name(state.phase));
    gimp_progress_update(state.fraction);
  }
  if (code != SEMBLANCE_OK || work->api->job_take(job, &result, &said) != SEMBLANCE_OK) {
    work_failed(&said, error);
  }
  return result;
}

/* A whole edit without a window; the new layer, or -1. */
static gint32 edit(gint32 layer, JsonObject *recipe, const char *model, gboolean visible,
                   GError **error) {
  semblance_error said = {.struct_size = sizeof said};
  Work work = {NULL, NULL};
  Source *source = NULL;
  semblance_job *job = NULL;
  semblance_result *result = NULL;
  semblance_mask mask;
  guint8 *data = NULL;
  char *text = NULL;
  gint32 new = -1;
  if (!words_change(recipe)) {
    g_set_error(error, REFUSED, 0, "nothing to change (say attributes \"sunset=0.8\", or from-text "
                                   "and to-text, or a recipe)");
    return -1;
  }
  gimp_progress_init("Semblance");
  source = source_read(layer, visible, NULL, -1, error);
  if (source != NULL && work_open(&work, program, model, error)) {
    const semblance_pixels pixels = source_pixels(source, NULL);
    text = json_write(recipe);
    if (work.api->job_start(work.engine, &pixels, source_mask(source, &mask), text,
                            SEMBLANCE_JOB_FINAL, SEMBLANCE_IF_BUSY_WAIT, &job, &said) !=
        SEMBLANCE_OK) {
      work_failed(&said, error);
    } else {
      result = waited(&work, job, error);
      work.api->job_free(job);
    }
    g_clear_pointer(&text, g_free);
  }
  if (result != NULL) {
    data = source_render(source, &work, result, error);
    text = data != NULL ? work_recipe(&work, result, error) : NULL;
    if (text != NULL) {
      char *warnings = work_warnings(&work, result);
      new = layers_add(source, data, text, model, -1);
      if (*warnings != '\0') {
        g_message("%s", warnings);
      }
      g_free(warnings);
    }
    work.api->result_free(result);
  }
  g_free(text);
  g_free(data);
  work_close(&work);
  source_free(source);
  gimp_progress_end();
  return new;
}

/* What was asked the last time, {"recipe", "model", "source"}, to be unreferenced. */
static JsonObject *last_values(void) {
  const gint size = gimp_get_data_size(PROCEDURE);
  char *text = g_malloc0((gsize)MAX(0, size) + 1);
  JsonObject *last = size > 0 && gimp_get_data(PROCEDURE, text) ? json_read(text, NULL) : NULL;
  g_free(text);
  return last != NULL ? last : json_object_new();
}

static gint32 run_mode(const GimpParam *given, gint count, GError **error) {
  const GimpRunMode mode = given[RUN_MODE].data.d_int32;
  const gint32 image = given[IMAGE].data.d_image, layer = given[DRAWABLE].data.d_drawable;
  JsonObject *last, *recipe;
  gint32 new = -1;
  if (!layers_check(layer, error)) {
    return -1;
  }
  if (mode == GIMP_RUN_NONINTERACTIVE) {
    if (count != ARGUMENTS) {
      g_set_error(error, REFUSED, 0, "%d arguments: must be %d", count, ARGUMENTS);
      return -1;
    }
    recipe = asked(given, error);
    if (recipe != NULL) {
      new = edit(layer, recipe, text_of(&given[MODEL]), given[SOURCE].data.d_int32 == 1, error);
      json_object_unref(recipe);
    }
    return new;
  }
  last = last_values();
  recipe = json_object_of(last, "recipe");
  if (mode == GIMP_RUN_WITH_LAST_VALS && recipe != NULL) {
    new = edit(layer, recipe, json_text(last, "model"),
               strcmp(json_text(last, "source"), "visible") == 0, error);
  } else {
    new = dialog_run(program, image, layer, last, error);
    if (new >= 0) {
      char *text = json_write(last);
      gimp_set_data(PROCEDURE, text, (guint32)strlen(text));
      g_free(text);
    }
  }
  json_object_unref(last);
  return new;
}

static void run(const gchar *name, gint count, const GimpParam *given, gint *result_count,
                GimpParam **results) {
  static GimpParam values[2];
  static char *said = NULL;
  GError *error = NULL;
  gint32 new;
  (void)name;
  gegl_init(NULL, NULL);
  gimp_plugin_enable_precision();
  new = run_mode(given, count, &error);
  *results = values;
  values[0].type = GIMP_PDB_STATUS;
  if (error != NULL) {
    said = g_strdup(error->message);
    g_error_free(error);
    values[0].data.d_status = GIMP_PDB_EXECUTION_ERROR;
    values[1].type = GIMP_PDB_STRING;
    values[1].data.d_string = said;
    *result_count = 2;
  } else if (new < 0) {
    values[0].data.d_status = GIMP_PDB_CANCEL;
    *result_count = 1;
  } else {
    values[0].data.d_status = GIMP_PDB_SUCCESS;
    values[1].type = GIMP_PDB_LAYER;
    values[1].data.d_layer = new;
    *result_count = 2;
    gimp_displays_flush();
  }
}

int main(int argc, char *argv[]) {
  static const GimpPlugInInfo info = {NULL, NULL, query, run};
  program = argv[0];
  return gimp_main(&info, argc, argv);
}
