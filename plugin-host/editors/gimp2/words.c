/* Recipes in words: a layer's name, a command line, and back from what a script says.
 *
 * For: the plug-in of GIMP 2.10; python/semblance_words.py says the same in Python. Not for: checking
 * values, which the library does, with better texts.
 */
#include <math.h>
#include <string.h>

#include "gimp2.h"

const char *json_text(JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member(object, name);
  const char *text = node != NULL && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_string(node) : NULL;
  return text != NULL ? text : "";
}

double json_number(JsonObject *object, const char *name, double otherwise) {
  JsonNode *node = json_object_get_member(object, name);
  if (node == NULL || !JSON_NODE_HOLDS_VALUE(node) ||
      json_node_get_value_type(node) == G_TYPE_STRING) {
    return otherwise;
  }
  return json_node_get_double(node);
}

JsonObject *json_object_of(JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member(object, name);
  return node != NULL && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static JsonArray *array_of(JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member(object, name);
  return node != NULL && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
}

guint json_count(JsonObject *object, const char *name) {
  JsonArray *array = array_of(object, name);
  return array != NULL ? json_array_get_length(array) : 0;
}

JsonObject *json_item(JsonObject *object, const char *name, guint at) {
  JsonNode *node = json_array_get_element(array_of(object, name), at);
  return JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

char *json_write(JsonObject *object) {
  JsonNode *node = json_node_new(JSON_NODE_OBJECT);
  char *text;
  json_node_set_object(node, object);
  text = json_to_string(node, FALSE);
  json_node_unref(node);
  return text;
}

JsonObject *json_read(const char *text, GError **error) {
  GError *why = NULL;
  JsonNode *node = json_from_string(text, &why);
  JsonObject *object = NULL;
  if (node != NULL && JSON_NODE_HOLDS_OBJECT(node)) {
    object = json_node_dup_object(node);
  } else {
    g_set_error(error, REFUSED, 0, "%s", why != NULL ? why->message : "must be a JSON object");
  }
  g_clear_error(&why);
  g_clear_pointer(&node, json_node_unref);
  return object;
}

char *words_number(double value) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  size_t end;
  /* Adding 0 makes 0 of -0. */
  g_ascii_formatd(digits, sizeof digits, "%.3f", round(value * 1000) / 1000 + 0.0);
  end = strlen(digits);
  while (end > 0 && digits[end - 1] == '0') {
    end -= 1;
  }
  if (end > 0 && digits[end - 1] == '.') {
    end -= 1;
  }
  return g_strndup(digits, end);
}

/* `sunset` of a path to sunset.toml; to be freed. */
static char *short_name(const char *name) {
  char *base, *dot;
  if (strchr(name, '/') == NULL && !g_str_has_suffix(name, ".toml")) {
    return g_strdup(name);
  }
  base = g_path_get_basename(name);
  dot = strrchr(base, '.');
  if (dot != NULL && dot != base) {
    *dot = '\0';
  }
  return base;
}

char *words_title(JsonObject *recipe) {
  GString *title = g_string_new(NULL);
  JsonObject *text = json_object_of(recipe, "text");
  for (guint at = 0; at < json_count(recipe, "attributes"); at++) {
    JsonObject *slider = json_item(recipe, "attributes", at);
    if (slider != NULL) {
      char *name = short_name(json_text(slider, "name"));
      char *strength = words_number(json_number(slider, "strength", 1));
      g_string_append_printf(title, "%s%s %s", title->len > 0 ? ", " : "", name, strength);
      g_free(name);
      g_free(strength);
    }
  }
  if (text != NULL) {
    const char *to = json_text(text, "to");
    char *shown = g_utf8_strlen(to, -1) > 60 ? g_utf8_substring(to, 0, 60) : g_strdup(to);
    char *strength = words_number(json_number(text, "strength", 1));
    g_string_append_printf(title, "%s%s", title->len > 0 ? ", " : "", shown);
    if (strcmp(strength, "1") != 0) {
      g_string_append_printf(title, " %s", strength);
    }
    g_free(shown);
    g_free(strength);
  }
  return g_string_free(title, FALSE);
}

gboolean words_sliders(const char *text, JsonObject *recipe, GError **error) {
  char **parts = g_strsplit(text != NULL ? text : "", ",", -1);
  JsonArray *found = json_array_new();
  gboolean fine = TRUE;
  for (char **part = parts; fine && *part != NULL; part++) {
    char *equals, *end = NULL, *strength;
    double value = 0;
    g_strstrip(*part);
    if (**part == '\0') {
      continue;
    }
    equals = strrchr(*part, '=');
    if (equals != NULL) {
      strength = g_strchug(equals + 1);
      value = g_ascii_strtod(strength, &end);
      fine = end != strength && *end == '\0' && equals != *part;
    }
    if (equals == NULL || !fine) {
      g_set_error(error, REFUSED, 0,
                  "attributes: '%s': must be NAME=STRENGTH (try sunset=0.8)", *part);
      fine = FALSE;
    } else {
      JsonObject *slider = json_object_new();
      *equals = '\0';
      json_object_set_string_member(slider, "name", g_strchomp(*part));
      json_object_set_double_member(slider, "strength", value);
      json_array_add_object_element(found, slider);
    }
  }
  g_strfreev(parts);
  if (fine && json_array_get_length(found) > 0) {
    json_object_set_array_member(recipe, "attributes", found);
  } else {
    json_array_unref(found);
  }
  return fine;
}

JsonObject *words_recipe(const char *text, GError **error) {
  JsonObject *recipe;
  if (text == NULL || *text == '\0') {
    recipe = json_object_new();
    json_object_set_int_member(recipe, "semblance", 1);
    return recipe;
  }
  recipe = json_read(text, error);
  if (recipe == NULL) {
    g_prefix_error(error, "recipe: ");
    return NULL;
  }
  /* What the library writes about itself; a recipe of the user's own does not carry it. */
  if (json_object_has_member(recipe, "stamp")) {
    json_object_remove_member(recipe, "stamp");
  }
  return recipe;
}

gboolean words_change(JsonObject *recipe) {
  return json_count(recipe, "attributes") > 0 || json_object_of(recipe, "text") != NULL;
}

/* Appends a word of a command line, quoted where a shell needs it. */
static void append_word(GString *line, const char *word) {
  const char *plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_";
  if (line->len > 0) {
    g_string_append_c(line, ' ');
  }
  if (*word != '\0' && word[strspn(word, plain)] == '\0') {
    g_string_append(line, word);
  } else {
    char *quoted = g_shell_quote(word);
    g_string_append(line, quoted);
    g_free(quoted);
  }
}

static void append_option(GString *line, const char *option, const char *value) {
  append_word(line, option);
  append_word(line, value);
}

char *words_command(JsonObject *recipe, const char *source, const char *model, gboolean mask) {
  static const char *const others[] = {"scene",    "seed",       "steps",  "guidance", "noise",
                                       "compositor", "radius", "epsilon", "rest"};
  GString *line = g_string_new(NULL);
  JsonObject *text = json_object_of(recipe, "text");
  char *stem, *dot, *out;
  append_word(line, "semblance");
  append_option(line, "edit", source);
  for (guint at = 0; at < json_count(recipe, "attributes"); at++) {
    JsonObject *slider = json_item(recipe, "attributes", at);
    if (slider != NULL) {
      char *strength = words_number(json_number(slider, "strength", 1));
      char *word = g_strdup_printf("%s=%s", json_text(slider, "name"), strength);
      append_option(line, "-a", word);
      g_free(word);
      g_free(strength);
    }
  }
  if (text != NULL) {
    char *strength = words_number(json_number(text, "strength", 1));
    append_option(line, "--from", json_text(text, "from"));
    append_option(line, "--to", json_text(text, "to"));
    if (strcmp(strength, "1") != 0) {
      append_option(line, "--strength", strength);
    }
    g_free(strength);
  }
  for (guint at = 0; at < G_N_ELEMENTS(others); at++) {
    JsonNode *node = json_object_get_member(recipe, others[at]);
    if (node != NULL && JSON_NODE_HOLDS_VALUE(node)) {
      char *option = g_strdup_printf("--%s", others[at]);
      const char *said = json_node_get_string(node);
      char *value = said != NULL ? g_strdup(said)
                    : json_node_get_value_type(node) == G_TYPE_INT64
                        ? g_strdup_printf("%" G_GINT64_FORMAT, json_node_get_int(node))
                        : words_number(json_node_get_double(node));
      append_option(line, option, value);
      g_free(value);
      g_free(option);
    }
  }
  if (mask) {
    append_option(line, "--mask", "SELECTION.png");
  }
  if (*model != '\0') {
    append_option(line, "--model", model);
  }
  stem = g_path_get_basename(source);
  dot = strrchr(stem, '.');
  if (dot != NULL && dot != stem) {
    *dot = '\0';
  }
  out = g_strdup_printf("%s-edited.png", stem);
  append_option(line, "-o", out);
  g_free(out);
  g_free(stem);
  return g_string_free(line, FALSE);
}
