/* The window: sliders made from the library's lists, a preview that is the result, one new layer.
 *
 * For: the interactive run of the plug-in of GIMP 2.10 (GTK 2). Not for: pixels (layers.c), drawing
 * (preview.c). The work is a job of the library, which a timer polls; a newer one supersedes it.
 */
#include <string.h>

#include "controls.h"
#include "preview.h"

/* Milliseconds: after the last change of a control until the edit starts; between looks at the work. */
#define PATIENCE 120
#define TICK 60

enum { RESPONSE_RESET = 1, RESPONSE_COPY };

typedef struct {
  const char *program;
  gint32 image, layer, original; /* `original` is `layer`, or what that was made from */
  Memory memory;
  JsonObject *last;
  char *model;

  Work work;
  Source *source;
  gboolean open; /* engine and source are there */

  semblance_job *job; /* that of `asked` */
  GSList *retired;    /* superseded jobs, freed once they ended so that the window never waits */
  char *asked, *made; /* recipes: of the job, of the result */
  semblance_result *result;

  GtkWidget *window, *models, *sources, *replace, *progress, *said;
  Controls *controls;
  Preview *preview;
  guint timer, ticking;
  gboolean loading, pending, done;
} Dialog;

/* ------------------------------------------------------------------------------------- the work -- */

static void say(Dialog *d, const char *text, gboolean failed) {
  char *markup = g_markup_printf_escaped(failed ? "<b>%s</b>" : "%s", text);
  gtk_label_set_markup(GTK_LABEL(d->said), markup);
  g_free(markup);
}

static void show_progress(Dialog *d, const char *text, double fraction) {
  gtk_progress_bar_set_text(GTK_PROGRESS_BAR(d->progress), text);
  gtk_progress_bar_set_fraction(GTK_PROGRESS_BAR(d->progress), CLAMP(fraction, 0, 1));
}

/* Says what went wrong; nothing can be put into the image until something else is asked. */
static void say_error(Dialog *d, GError *error) {
  show_progress(d, "", 0);
  d->pending = FALSE;
  gtk_dialog_set_response_sensitive(GTK_DIALOG(d->window), GTK_RESPONSE_OK, FALSE);
  say(d, error->message, TRUE);
  g_error_free(error);
}

/* Frees the superseded jobs that have ended, or with `all` every one. */
static void free_retired(Dialog *d, gboolean all) {
  GSList *kept = NULL;
  for (GSList *at = d->retired; at != NULL; at = at->next) {
    semblance_job_state state = {.struct_size = sizeof state};
    if (all || d->work.api->job_poll(at->data, &state, NULL) != SEMBLANCE_OK ||
        state.state >= SEMBLANCE_STATE_DONE) {
      d->work.api->job_free(at->data);
    } else {
      kept = g_slist_prepend(kept, at->data);
    }
  }
  g_slist_free(d->retired);
  d->retired = kept;
}

/* Drops what is under way. */
static void retire(Dialog *d) {
  if (d->job != NULL) {
    d->work.api->job_cancel(d->job);
    d->retired = g_slist_prepend(d->retired, d->job);
    d->job = NULL;
  }
  g_clear_pointer(&d->asked, g_free);
}

static void forget_result(Dialog *d) {
  if (d->result != NULL) {
    d->work.api->result_free(d->result);
    d->result = NULL;
  }
  g_clear_pointer(&d->made, g_free);
}

/* Whether there is a result of what the controls say. */
static gboolean is_current(Dialog *d) {
  JsonObject *recipe = controls_recipe(d->controls);
  char *text = json_write(recipe);
  const gboolean current = d->made != NULL && strcmp(d->made, text) == 0;
  g_free(text);
  json_object_unref(recipe);
  return current;
}

static void draw(Dialog *d, const semblance_result *result) {
  GError *error = NULL;
  if (!preview_draw(d->preview, &d->work, result, &error)) {
    say_error(d, error);
  }
}

/* Asks for what the controls say; what was asked before is superseded. */
static void restart(Dialog *d) {
  JsonObject *recipe;
  if (!d->open) {
    return;
  }
  recipe = controls_recipe(d->controls);
  say(d, "", FALSE);
  gtk_dialog_set_response_sensitive(GTK_DIALOG(d->window), GTK_RESPONSE_OK, words_change(recipe));
  retire(d);
  if (!words_change(recipe)) {
    forget_result(d);
    show_progress(d, "Move a slider", 0);
    draw(d, NULL);
  } else if (!is_current(d)) {
    semblance_error said = {.struct_size = sizeof said};
    semblance_mask mask;
    const semblance_pixels pixels = source_pixels(d->source, NULL);
    GError *error = NULL;
    d->asked = json_write(recipe);
    if (d->work.api->job_start(d->work.engine, &pixels, source_mask(d->source, &mask), d->asked,
                               SEMBLANCE_JOB_PREVIEW, SEMBLANCE_IF_BUSY_WAIT, &d->job, &said) !=
        SEMBLANCE_OK) {
      work_failed(&said, &error);
      retire(d);
      say_error(d, error);
    }
  } else {
    show_progress(d, "Done", 1);
    draw(d, d->result);
  }
  json_object_unref(recipe);
}

/* Another part of the picture, or another size. */
static void redraw(gpointer data) {
  Dialog *d = data;
  if (d->open) {
    draw(d, d->result);
  }
}

/* The job has ended. */
static void take(Dialog *d) {
  semblance_error said = {.struct_size = sizeof said};
  semblance_result *result = NULL;
  GError *error = NULL;
  const int32_t code = d->work.api->job_take(d->job, &result, &said);
  d->work.api->job_free(d->job);
  d->job = NULL;
  if (code != SEMBLANCE_OK) {
    g_clear_pointer(&d->asked, g_free);
    work_failed(&said, &error);
    say_error(d, error);
    return;
  }
  forget_result(d);
  d->result = result;
  d->made = g_steal_pointer(&d->asked);
  show_progress(d, "Done", 1);
  char *warnings = work_warnings(&d->work, result);
  say(d, warnings, FALSE);
  g_free(warnings);
  draw(d, result);
}

static gboolean tick(gpointer data) {
  Dialog *d = data;
  if (!d->open) {
    return TRUE;
  }
  free_retired(d, FALSE);
  if (d->job != NULL) {
    semblance_job_state state = {.struct_size = sizeof state};
    d->work.api->job_poll(d->job, &state, NULL);
    if (state.state >= SEMBLANCE_STATE_DONE) {
      take(d);
    } else {
      const char *phase = d->work.api->phase_name(state.phase);
      show_progress(d, state.phase != SEMBLANCE_PHASE_NONE ? phase : "…", state.fraction);
    }
  }
  if (d->pending && d->job == NULL && d->timer == 0 && is_current(d)) {
    d->done = TRUE;
    gtk_main_quit();
  }
  return TRUE;
}

static gboolean later(gpointer data) {
  Dialog *d = data;
  d->timer = 0;
  restart(d);
  return FALSE;
}

/* A control was moved. */
static void changed(gpointer data) {
  Dialog *d = data;
  if (d->timer != 0) {
    g_source_remove(d->timer);
  }
  d->timer = g_timeout_add(PATIENCE, later, d);
}

/* ---------------------------------------------------------------------------------- the controls -- */

static void list_models(Dialog *d) {
  GtkComboBoxText *models = GTK_COMBO_BOX_TEXT(d->models);
  d->loading = TRUE;
  gtk_list_store_clear(GTK_LIST_STORE(gtk_combo_box_get_model(GTK_COMBO_BOX(models))));
  gtk_combo_box_text_append_text(models, "Inside the library");
  if (*d->model != '\0') {
    gtk_combo_box_text_append_text(models, d->model);
  }
  gtk_combo_box_text_append_text(models, "A folder…");
  gtk_combo_box_set_active(GTK_COMBO_BOX(models), *d->model != '\0' ? 1 : 0);
  d->loading = FALSE;
}

/* Gives engine, source and what hangs on them back. */
static void shut(Dialog *d) {
  if (d->open) {
    retire(d);
    free_retired(d, TRUE);
    forget_result(d);
  }
  d->open = FALSE;
  work_close(&d->work);
  preview_forget(d->preview);
  g_clear_pointer(&d->source, source_free);
}

/* An engine, the pixels, and the lists. */
static gboolean open_all(Dialog *d, GError **error) {
  const gboolean visible = gtk_combo_box_get_active(GTK_COMBO_BOX(d->sources)) == 1;
  const gint32 hidden = d->memory.recipe != NULL && visible ? d->layer : -1;
  JsonObject *attributes = NULL, *parameters = NULL;
  d->source = source_read(d->original, visible, &d->memory.selection, hidden, error);
  if (d->source != NULL && work_open(&d->work, d->program, d->model, error) &&
      (attributes = work_attributes(&d->work, error)) != NULL &&
      (parameters = work_parameters(&d->work, error)) != NULL &&
      preview_set_source(d->preview, d->source, error)) {
    controls_list(d->controls, attributes, parameters);
    d->open = TRUE;
  }
  g_clear_pointer(&attributes, json_object_unref);
  g_clear_pointer(&parameters, json_object_unref);
  if (!d->open) {
    shut(d);
  }
  return d->open;
}

/* After another model or source was chosen; the recipe stays. */
static void reopen(Dialog *d) {
  JsonObject *recipe = controls_recipe(d->controls);
  GError *error = NULL;
  shut(d);
  if (open_all(d, &error)) {
    controls_set(d->controls, recipe);
    draw(d, NULL);
    restart(d);
  } else {
    say_error(d, error);
  }
  json_object_unref(recipe);
}

static void source_chosen(GtkComboBox *sources, gpointer data) {
  Dialog *d = data;
  (void)sources;
  if (!d->loading) {
    reopen(d);
  }
}

static void model_chosen(GtkComboBox *models, gpointer data) {
  Dialog *d = data;
  const int at = gtk_combo_box_get_active(models);
  const int folder = *d->model != '\0' ? 2 : 1;
  char *chosen = NULL;
  if (d->loading) {
    return;
  }
  if (at == folder) {
    GtkWidget *chooser = gtk_file_chooser_dialog_new(
        "The folder of a model", GTK_WINDOW(d->window), GTK_FILE_CHOOSER_ACTION_SELECT_FOLDER,
        GTK_STOCK_CANCEL, GTK_RESPONSE_CANCEL, GTK_STOCK_OPEN, GTK_RESPONSE_ACCEPT, NULL);
    if (gtk_dialog_run(GTK_DIALOG(chooser)) == GTK_RESPONSE_ACCEPT) {
      chosen = gtk_file_chooser_get_filename(GTK_FILE_CHOOSER(chooser));
    }
    gtk_widget_destroy(chooser);
  } else if (at == 0) {
    chosen = g_strdup("");
  }
  const gboolean another = chosen != NULL && strcmp(chosen, d->model) != 0;
  if (another) {
    g_free(d->model);
    d->model = g_steal_pointer(&chosen);
  }
  g_free(chosen);
  list_models(d);
  if (another) {
    reopen(d);
  }
}

static void copy_command(Dialog *d) {
  JsonObject *recipe = controls_recipe(d->controls);
  char *file = gimp_image_get_filename(d->image);
  char *line = words_command(recipe, file != NULL ? file : "IN.png", d->model,
                             d->source != NULL && d->source->selection.data != NULL);
  GtkClipboard *clipboard = gtk_clipboard_get(GDK_SELECTION_CLIPBOARD);
  gtk_clipboard_set_text(clipboard, line, -1);
  gtk_clipboard_store(clipboard);
  say(d, line, FALSE);
  g_free(line);
  g_free(file);
  json_object_unref(recipe);
}

static void answered(GtkDialog *window, int response, gpointer data) {
  Dialog *d = data;
  JsonObject *nothing;
  (void)window;
  switch (response) {
    case RESPONSE_RESET:
      nothing = json_object_new();
      controls_set(d->controls, nothing);
      json_object_unref(nothing);
      restart(d);
      controls_focus(d->controls);
      break;
    case RESPONSE_COPY:
      copy_command(d);
      break;
    case GTK_RESPONSE_OK:
      /* A number that was typed counts without Enter. */
      gtk_window_set_focus(GTK_WINDOW(d->window), NULL);
      if (d->timer != 0) {
        g_source_remove(d->timer);
        later(d);
      }
      d->pending = TRUE;
      break;
    default:
      gtk_main_quit();
  }
}

static GtkWidget *expander(const char *name, GtkWidget *child) {
  GtkWidget *expander = gtk_expander_new_with_mnemonic(name);
  gtk_container_add(GTK_CONTAINER(expander), child);
  return expander;
}

static void build(Dialog *d, gboolean visible) {
  GtkWidget *columns = gtk_hbox_new(FALSE, 12), *side = gtk_vbox_new(FALSE, 6), *table, *above;
  char *name = gimp_item_get_name(d->original), *this_layer;
  d->window = gimp_dialog_new("Semblance: Edit Attribute", "semblance-edit", NULL, 0, NULL, NULL,
                              "_Reset", RESPONSE_RESET, "Copy as Co_mmand", RESPONSE_COPY, "_Cancel",
                              GTK_RESPONSE_CANCEL, "_OK", GTK_RESPONSE_OK, NULL);
  gtk_dialog_set_default_response(GTK_DIALOG(d->window), GTK_RESPONSE_OK);
  gimp_window_set_transient(GTK_WINDOW(d->window));
  g_signal_connect(d->window, "response", G_CALLBACK(answered), d);
  /* Closing is an answer; the window is ours to destroy. */
  g_signal_connect(d->window, "delete-event", G_CALLBACK(gtk_true), NULL);

  gtk_container_set_border_width(GTK_CONTAINER(columns), 12);
  gtk_box_pack_start(GTK_BOX(gtk_dialog_get_content_area(GTK_DIALOG(d->window))), columns, TRUE,
                     TRUE, 0);
  d->preview = preview_new(redraw, d);
  gtk_box_pack_start(GTK_BOX(columns), preview_widget(d->preview), TRUE, TRUE, 0);
  gtk_widget_set_size_request(side, 400, -1);
  gtk_box_pack_start(GTK_BOX(columns), side, FALSE, FALSE, 0);

  d->controls = controls_new(changed, d);
  gtk_box_pack_start(GTK_BOX(side), controls_sliders(d->controls), TRUE, TRUE, 0);
  gtk_box_pack_start(GTK_BOX(side), expander("In _words", controls_words(d->controls)), FALSE, FALSE,
                     0);
  gtk_box_pack_start(GTK_BOX(side), expander("_How it is made", controls_fields(d->controls)), FALSE,
                     FALSE, 0);

  table = controls_table(3, 2);
  d->models = gtk_combo_box_text_new();
  list_models(d);
  g_signal_connect(d->models, "changed", G_CALLBACK(model_chosen), d);
  controls_row(table, 0, "Mo_del", d->models);
  d->sources = gtk_combo_box_text_new();
  this_layer = g_strdup_printf("This layer (%s)", name);
  gtk_combo_box_text_append_text(GTK_COMBO_BOX_TEXT(d->sources), this_layer);
  gtk_combo_box_text_append_text(GTK_COMBO_BOX_TEXT(d->sources), "The visible image");
  gtk_combo_box_set_active(GTK_COMBO_BOX(d->sources), visible ? 1 : 0);
  g_signal_connect(d->sources, "changed", G_CALLBACK(source_chosen), d);
  controls_row(table, 1, "Ed_it", d->sources);
  d->replace = gtk_check_button_new_with_mnemonic("Re_place this layer");
  gtk_toggle_button_set_active(GTK_TOGGLE_BUTTON(d->replace), d->memory.recipe != NULL);
  gtk_widget_set_sensitive(d->replace, d->memory.recipe != NULL);
  above = gtk_label_new("a new layer above");
  gtk_misc_set_alignment(GTK_MISC(above), 0, 0.5);
  controls_row(table, 2, "Result", d->memory.recipe != NULL ? d->replace : above);
  gtk_box_pack_start(GTK_BOX(side), table, FALSE, FALSE, 0);
  g_free(this_layer);
  g_free(name);

  d->progress = gtk_progress_bar_new();
  gtk_box_pack_start(GTK_BOX(side), d->progress, FALSE, FALSE, 0);
  d->said = gtk_label_new(NULL);
  gtk_misc_set_alignment(GTK_MISC(d->said), 0, 0);
  gtk_label_set_line_wrap(GTK_LABEL(d->said), TRUE);
  gtk_label_set_selectable(GTK_LABEL(d->said), TRUE);
  gtk_widget_set_can_focus(d->said, FALSE);
  gtk_widget_set_size_request(d->said, 390, -1);
  gtk_box_pack_start(GTK_BOX(side), d->said, FALSE, FALSE, 0);
}

/* Puts the result into the image; the new layer, or -1. */
static gint32 finish(Dialog *d, GError **error) {
  const gboolean replace = d->memory.recipe != NULL &&
                           gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(d->replace));
  if (!gimp_item_is_valid(d->original) || !gimp_item_is_valid(d->layer)) {
    g_set_error(error, REFUSED, 0, "the layer is gone: it was deleted while its edit was chosen");
    return -1;
  }
  guint8 *data = source_render(d->source, &d->work, d->result, error);
  char *recipe = data != NULL ? work_recipe(&d->work, d->result, error) : NULL;
  gint32 new = -1;
  if (recipe != NULL) {
    JsonObject *asked = json_read(d->made, NULL);
    gtk_widget_hide(d->window);
    new = layers_add(d->source, data, recipe, d->model, replace ? d->layer : -1);
    if (asked != NULL) {
      json_object_set_object_member(d->last, "recipe", asked);
    }
    json_object_set_string_member(d->last, "model", d->model);
    json_object_set_string_member(d->last, "source", d->source->visible ? "visible" : "layer");
  }
  g_free(recipe);
  g_free(data);
  return new;
}

gint32 dialog_run(const char *program, gint32 image, gint32 layer, JsonObject *last,
                  GError **error) {
  Dialog d = {.program = program, .image = image, .layer = layer, .original = layer, .last = last};
  JsonObject *recipe = json_object_of(last, "recipe");
  gboolean visible = strcmp(json_text(last, "source"), "visible") == 0;
  gint32 new = -1;
  gimp_ui_init("semblance-edit", FALSE);
  d.memory = layers_memory(layer);
  if (d.memory.recipe != NULL && d.memory.layer < 0) {
    memory_clear(&d.memory); /* what it was made from is gone: a layer like any other */
  }
  if (d.memory.recipe != NULL) {
    recipe = d.memory.recipe;
    d.original = d.memory.layer;
    visible = d.memory.visible;
  }
  /* As when the layer was made, unless that folder is gone. */
  const char *model = d.memory.model;
  const gboolean there =
      model != NULL && (*model == '\0' || g_file_test(model, G_FILE_TEST_IS_DIR));
  d.model = g_strdup(there ? model : json_text(last, "model"));
  build(&d, visible);
  if (open_all(&d, error)) {
    JsonObject *nothing = json_object_new();
    controls_set(d.controls, recipe != NULL ? recipe : nothing);
    json_object_unref(nothing);
    draw(&d, NULL);
    gtk_widget_show_all(d.window);
    controls_focus(d.controls);
    restart(&d);
    d.ticking = g_timeout_add(TICK, tick, &d);
    gtk_main();
    g_source_remove(d.ticking);
    if (d.timer != 0) {
      g_source_remove(d.timer);
    }
    if (d.done) {
      new = finish(&d, error);
    }
  }
  shut(&d);
  d.loading = TRUE; /* what the controls say as they go counts for nothing */
  gtk_widget_destroy(d.window);
  preview_free(d.preview);
  controls_free(d.controls);
  memory_clear(&d.memory);
  g_free(d.model);
  return new;
}
