/* The controls that say what an edit is, made from the library's lists.
 *
 * For: the window of the plug-in of GIMP 2.10 (GTK 2). Not for: what is done with the recipe.
 */
#include <math.h>
#include <string.h>

#include "controls.h"

/* An attribute's slider. */
typedef struct {
  char *name;
  GtkAdjustment *amount;
} Slider;

/* A further parameter of the recipe: a list or an entry. */
typedef struct {
  char *id, *type, *otherwise; /* the default as a text; empty where there is none */
  GtkWidget *field;
  gboolean is_choice;
} Field;

struct Controls {
  void (*changed)(gpointer);
  gpointer data;
  GArray *sliders, *fields;
  JsonArray *extra; /* attributes of files that the list does not have; they stay in the recipe */
  GtkWidget *scroll, *slider_box, *field_box, *words, *from, *to;
  GtkAdjustment *strength;
  gboolean loading;
};

static void moved(gpointer control, gpointer data) {
  Controls *c = data;
  (void)control;
  if (!c->loading) {
    c->changed(c->data);
  }
}

/* ---------------------------------------------------------- from the window to a recipe and back -- */

static double rounded(GtkAdjustment *amount) {
  return round(gtk_adjustment_get_value(amount) * 1000) / 1000 + 0.0;
}

static void add_slider(JsonArray *array, const char *name, double strength) {
  JsonObject *one = json_object_new();
  json_object_set_string_member(one, "name", name);
  json_object_set_double_member(one, "strength", strength);
  json_array_add_object_element(array, one);
}

/* A number where it is one; else the text, which the library refuses with its range. */
static void set_typed(JsonObject *recipe, const Field *field, const char *text) {
  char *end = NULL;
  if (strcmp(field->type, "integer") == 0) {
    const gint64 whole = g_ascii_strtoll(text, &end, 10);
    if (end != text && *end == '\0') {
      json_object_set_int_member(recipe, field->id, whole);
      return;
    }
  } else if (strcmp(field->type, "text") != 0) {
    const double number = g_ascii_strtod(text, &end);
    if (end != text && *end == '\0' && isfinite(number)) {
      json_object_set_double_member(recipe, field->id, number);
      return;
    }
  }
  json_object_set_string_member(recipe, field->id, text);
}

/* What the controls say. */
JsonObject *controls_recipe(Controls *c) {
  JsonObject *recipe = json_object_new();
  JsonArray *attributes = json_array_new();
  const char *before = gtk_entry_get_text(GTK_ENTRY(c->from));
  const char *after = gtk_entry_get_text(GTK_ENTRY(c->to));
  json_object_set_int_member(recipe, "semblance", 1);
  for (guint at = 0; at < c->sliders->len; at++) {
    const Slider *one = &g_array_index(c->sliders, Slider, at);
    if (rounded(one->amount) != 0) {
      add_slider(attributes, one->name, rounded(one->amount));
    }
  }
  for (guint at = 0; at < json_array_get_length(c->extra); at++) {
    JsonObject *one = json_array_get_object_element(c->extra, at);
    add_slider(attributes, json_text(one, "name"), json_number(one, "strength", 1));
  }
  if (json_array_get_length(attributes) > 0) {
    json_object_set_array_member(recipe, "attributes", attributes);
  } else {
    json_array_unref(attributes);
  }
  if (*before != '\0' || *after != '\0') {
    JsonObject *text = json_object_new();
    json_object_set_string_member(text, "from", before);
    json_object_set_string_member(text, "to", after);
    json_object_set_double_member(text, "strength", rounded(c->strength));
    json_object_set_object_member(recipe, "text", text);
  }
  for (guint at = 0; at < c->fields->len; at++) {
    const Field *field = &g_array_index(c->fields, Field, at);
    if (field->is_choice) {
      char *chosen = gtk_combo_box_text_get_active_text(GTK_COMBO_BOX_TEXT(field->field));
      if (chosen != NULL && strcmp(chosen, field->otherwise) != 0) {
        json_object_set_string_member(recipe, field->id, chosen);
      }
      g_free(chosen);
    } else {
      char *text = g_strstrip(g_strdup(gtk_entry_get_text(GTK_ENTRY(field->field))));
      if (*text != '\0') {
        set_typed(recipe, field, text);
      }
      g_free(text);
    }
  }
  return recipe;
}

/* The value of a recipe's member as a text, empty where it is absent; to be freed. */
static char *value_in_words(JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member(object, name);
  if (node == NULL || !JSON_NODE_HOLDS_VALUE(node)) {
    return g_strdup("");
  }
  if (json_node_get_value_type(node) == G_TYPE_STRING) {
    return g_strdup(json_node_get_string(node));
  }
  if (json_node_get_value_type(node) == G_TYPE_INT64) {
    return g_strdup_printf("%" G_GINT64_FORMAT, json_node_get_int(node));
  }
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  return g_strdup(g_ascii_formatd(digits, sizeof digits, "%g", json_node_get_double(node)));
}

static void choose(GtkWidget *combo, const char *text) {
  GtkTreeModel *model = gtk_combo_box_get_model(GTK_COMBO_BOX(combo));
  GtkTreeIter at;
  for (gboolean more = gtk_tree_model_get_iter_first(model, &at); more;
       more = gtk_tree_model_iter_next(model, &at)) {
    char *option = NULL;
    gtk_tree_model_get(model, &at, 0, &option, -1);
    if (option != NULL && strcmp(option, text) == 0) {
      gtk_combo_box_set_active_iter(GTK_COMBO_BOX(combo), &at);
    }
    g_free(option);
  }
}

/* Sets the controls to a recipe's values. */
void controls_set(Controls *c, JsonObject *recipe) {
  JsonObject *text = json_object_of(recipe, "text");
  JsonArray *extra = json_array_new();
  c->loading = TRUE;
  for (guint at = 0; at < c->sliders->len; at++) {
    gtk_adjustment_set_value(g_array_index(c->sliders, Slider, at).amount, 0);
  }
  for (guint given = 0; given < json_count(recipe, "attributes"); given++) {
    JsonObject *one = json_item(recipe, "attributes", given);
    const char *name = one != NULL ? json_text(one, "name") : "";
    const double strength = one != NULL ? json_number(one, "strength", 1) : 0;
    gboolean found = FALSE;
    for (guint at = 0; at < c->sliders->len; at++) {
      const Slider *slider = &g_array_index(c->sliders, Slider, at);
      if (strcmp(slider->name, name) == 0) {
        gtk_adjustment_set_value(slider->amount, strength);
        found = TRUE;
      }
    }
    if (!found && *name != '\0') {
      add_slider(extra, name, strength);
    }
  }
  g_clear_pointer(&c->extra, json_array_unref);
  c->extra = extra;
  gtk_entry_set_text(GTK_ENTRY(c->from), text != NULL ? json_text(text, "from") : "");
  gtk_entry_set_text(GTK_ENTRY(c->to), text != NULL ? json_text(text, "to") : "");
  gtk_adjustment_set_value(c->strength, text != NULL ? json_number(text, "strength", 1) : 1);
  for (guint at = 0; at < c->fields->len; at++) {
    const Field *field = &g_array_index(c->fields, Field, at);
    char *value = value_in_words(recipe, field->id);
    if (field->is_choice) {
      choose(field->field, *value != '\0' ? value : field->otherwise);
    } else {
      gtk_entry_set_text(GTK_ENTRY(field->field),
                         strcmp(value, field->otherwise) == 0 ? "" : value);
    }
    g_free(value);
  }
  c->loading = FALSE;
}

static void clear_lists(Controls *c) {
  for (guint at = 0; at < c->sliders->len; at++) {
    g_free(g_array_index(c->sliders, Slider, at).name);
  }
  for (guint at = 0; at < c->fields->len; at++) {
    const Field *field = &g_array_index(c->fields, Field, at);
    g_free(field->id);
    g_free(field->type);
    g_free(field->otherwise);
  }
  g_array_set_size(c->sliders, 0);
  g_array_set_size(c->fields, 0);
}

void controls_row(GtkWidget *table, guint row, const char *name, GtkWidget *widget) {
  GtkWidget *label = gtk_label_new_with_mnemonic(name);
  gtk_label_set_mnemonic_widget(GTK_LABEL(label), widget);
  gtk_misc_set_alignment(GTK_MISC(label), 0, 0.5);
  gtk_table_attach(GTK_TABLE(table), label, 0, 1, row, row + 1, GTK_FILL, GTK_FILL, 0, 0);
  gtk_table_attach(GTK_TABLE(table), widget, 1, 2, row, row + 1, GTK_EXPAND | GTK_FILL, GTK_FILL, 0,
                   0);
}

GtkWidget *controls_table(guint rows, guint columns) {
  GtkWidget *table = gtk_table_new(MAX(1, rows), columns, FALSE);
  gtk_table_set_col_spacings(GTK_TABLE(table), 6);
  gtk_table_set_row_spacings(GTK_TABLE(table), 4);
  gtk_container_set_border_width(GTK_CONTAINER(table), 6);
  return table;
}

/* A fresh table in the place of what is in `box`. */
static GtkWidget *table_in(GtkWidget *box, guint rows, guint columns) {
  GtkWidget *table = controls_table(rows, columns), *old = gtk_bin_get_child(GTK_BIN(box));
  if (old != NULL) {
    gtk_widget_destroy(old);
  }
  gtk_container_add(GTK_CONTAINER(box), table);
  return table;
}

static GtkAdjustment *add_scale(Controls *c, GtkWidget *table, guint row, const char *name,
                                double value, double low, double high, const char *tip) {
  GtkAdjustment *amount = GTK_ADJUSTMENT(gimp_scale_entry_new(
      GTK_TABLE(table), 0, (gint)row, name, 150, 6, value, low, high, 0.05, 0.25, 2, TRUE, 0, 0, tip,
      NULL));
  g_signal_connect(amount, "value-changed", G_CALLBACK(moved), c);
  return amount;
}

/* Sliders from the library's list. */
static void list_attributes(Controls *c, JsonObject *listed) {
  const guint count = json_count(listed, "attributes");
  GtkWidget *table = table_in(c->slider_box, count, 3);
  for (guint at = 0; at < count; at++) {
    JsonObject *one = json_item(listed, "attributes", at);
    JsonNode *node = json_object_get_member(one, "range");
    JsonArray *range = node != NULL && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
    const gboolean bounds = range != NULL && json_array_get_length(range) == 2;
    const char *title = json_text(one, "title");
    Slider slider = {.name = g_strdup(json_text(one, "name"))};
    slider.amount = add_scale(c, table, at, *title != '\0' ? title : slider.name, 0,
                              bounds ? json_array_get_double_element(range, 0) : -2,
                              bounds ? json_array_get_double_element(range, 1) : 2,
                              json_text(one, "description"));
    gimp_scale_entry_set_sensitive(GTK_OBJECT(slider.amount),
                                   json_object_get_boolean_member(one, "served"));
    g_array_append_val(c->sliders, slider);
  }
}

/* Lists and entries of the recipe's further parameters. */
static void list_parameters(Controls *c, JsonObject *listed) {
  const guint count = json_count(listed, "parameters");
  GtkWidget *table = table_in(c->field_box, count, 2);
  for (guint at = 0; at < count; at++) {
    JsonObject *one = json_item(listed, "parameters", at);
    if (!json_object_get_boolean_member(one, "advanced")) {
      continue;
    }
    Field field = {.id = g_strdup(json_text(one, "id")),
                   .type = g_strdup(json_text(one, "type")),
                   .otherwise = value_in_words(one, "default")};
    field.is_choice = strcmp(field.type, "choice") == 0;
    if (field.is_choice) {
      JsonArray *options = json_object_get_array_member(one, "options");
      field.field = gtk_combo_box_text_new();
      for (guint option = 0; option < json_array_get_length(options); option++) {
        gtk_combo_box_text_append_text(GTK_COMBO_BOX_TEXT(field.field),
                                       json_array_get_string_element(options, option));
      }
      choose(field.field, field.otherwise);
    } else {
      field.field = gtk_entry_new();
    }
    char *low = value_in_words(one, "min"), *high = value_in_words(one, "max");
    char *tip = g_strdup_printf(
        "%s %s%s%s%s Left empty: %s.", json_text(one, "help"), low, *low != '\0' ? " to " : "", high,
        *low != '\0' ? "." : "", *field.otherwise != '\0' ? field.otherwise : "as the model says");
    char *name = g_strdelimit(g_strdup(field.id), "_", ' ');
    gtk_widget_set_tooltip_text(field.field, tip);
    g_signal_connect(field.field, "changed", G_CALLBACK(moved), c);
    controls_row(table, at, name, field.field);
    g_array_append_val(c->fields, field);
    g_free(name);
    g_free(tip);
    g_free(low);
    g_free(high);
  }
}

void controls_list(Controls *c, JsonObject *attributes, JsonObject *parameters) {
  clear_lists(c);
  list_attributes(c, attributes);
  list_parameters(c, parameters);
  gtk_widget_show_all(c->slider_box);
  gtk_widget_show_all(c->field_box);
}

/* ----------------------------------------------------------------------------------- the whole -- */

static GtkWidget *sliders_new(Controls *c) {
  GtkWidget *scroll = gtk_scrolled_window_new(NULL, NULL);
  c->slider_box = gtk_viewport_new(NULL, NULL);
  gtk_viewport_set_shadow_type(GTK_VIEWPORT(c->slider_box), GTK_SHADOW_NONE);
  gtk_scrolled_window_set_policy(GTK_SCROLLED_WINDOW(scroll), GTK_POLICY_NEVER,
                                 GTK_POLICY_AUTOMATIC);
  gtk_widget_set_size_request(scroll, -1, 250);
  gtk_container_add(GTK_CONTAINER(scroll), c->slider_box);
  return scroll;
}

static GtkWidget *words_new(Controls *c) {
  GtkWidget *table = controls_table(3, 3);
  c->from = gtk_entry_new();
  c->to = gtk_entry_new();
  gtk_widget_set_tooltip_text(c->from, "For example: a photo of hills");
  gtk_widget_set_tooltip_text(c->to, "For example: a photo of hills, at night");
  gimp_table_attach_aligned(GTK_TABLE(table), 0, 0, "It show_s", 0, 0.5, c->from, 2, FALSE);
  gimp_table_attach_aligned(GTK_TABLE(table), 0, 1, "It sho_uld show", 0, 0.5, c->to, 2, FALSE);
  c->strength = add_scale(c, table, 2, "How much", 1, -2, 2, "Strength of the edit in words");
  g_signal_connect(c->from, "changed", G_CALLBACK(moved), c);
  g_signal_connect(c->to, "changed", G_CALLBACK(moved), c);
  return table;
}

Controls *controls_new(void (*changed)(gpointer), gpointer data) {
  Controls *c = g_new0(Controls, 1);
  c->changed = changed;
  c->data = data;
  c->sliders = g_array_new(FALSE, FALSE, sizeof(Slider));
  c->fields = g_array_new(FALSE, FALSE, sizeof(Field));
  c->extra = json_array_new();
  c->scroll = sliders_new(c);
  c->words = words_new(c);
  c->field_box = gtk_alignment_new(0, 0, 1, 1);
  return c;
}

void controls_free(Controls *c) {
  clear_lists(c);
  g_array_free(c->sliders, TRUE);
  g_array_free(c->fields, TRUE);
  json_array_unref(c->extra);
  g_free(c);
}

GtkWidget *controls_sliders(Controls *c) { return c->scroll; }

GtkWidget *controls_words(Controls *c) { return c->words; }

GtkWidget *controls_fields(Controls *c) { return c->field_box; }

void controls_focus(Controls *c) {
  if (c->sliders->len > 0) {
    gtk_widget_grab_focus(GIMP_SCALE_ENTRY_SPINBUTTON(g_array_index(c->sliders, Slider, 0).amount));
  }
}
