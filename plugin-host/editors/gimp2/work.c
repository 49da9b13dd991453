/* The library: found, opened, and its answers as GLib's things.
 *
 * For: every other part of the plug-in of GIMP 2.10. Not for: GIMP.
 */
#include <gmodule.h>
#include <string.h>

#include "gimp2.h"

#if defined(G_OS_WIN32)
#define LIBRARY "semblance.dll"
#elif defined(__APPLE__)
#define LIBRARY "libsemblance.dylib"
#else
#define LIBRARY "libsemblance.so"
#endif

gboolean work_failed(const semblance_error *said, GError **error) {
  g_set_error(error, REFUSED, said->code, *said->hint != '\0' ? "%s (%s)" : "%s%s", said->message,
              said->hint);
  return FALSE;
}

/* The function table; the library stays in the process until it ends. */
static const semblance_api *open_library(const char *program, GError **error) {
  const char *told = g_getenv("SEMBLANCE_LIBRARY");
  char *folder = g_path_get_dirname(program);
  char *path = told != NULL && *told != '\0' ? g_strdup(told)
                                             : g_build_filename(folder, LIBRARY, NULL);
  const semblance_api *api = NULL;
  gpointer get_api = NULL;
  GModule *module;
  g_free(folder);
  if (!g_file_test(path, G_FILE_TEST_EXISTS)) {
    g_set_error(error, REFUSED, 0,
                "%s: the Semblance library is not there (run `semblance install gimp` again)", path);
    g_free(path);
    return NULL;
  }
  module = g_module_open(path, G_MODULE_BIND_LOCAL);
  if (module == NULL) {
    g_set_error(error, REFUSED, 0, "%s", g_module_error());
  } else if (!g_module_symbol(module, "semblance_get_api", &get_api)) {
    g_set_error(error, REFUSED, 0, "%s: is not the Semblance library", path);
  } else {
    api = ((semblance_get_api_fn)get_api)(SEMBLANCE_MAJOR);
    if (api == NULL || !SEMBLANCE_HAS(api, result_render_reduced)) {
      g_set_error(error, REFUSED, 0,
                  "%s: does not serve version %u of its interface (run `semblance install gimp` "
                  "again)",
                  path, SEMBLANCE_MAJOR);
      api = NULL;
    }
  }
  g_free(path);
  return api;
}

gboolean work_open(Work *work, const char *program, const char *model, GError **error) {
  semblance_error said = {.struct_size = sizeof said};
  JsonObject *options = json_object_new();
  char *text;
  int32_t code;
  work->engine = NULL;
  work->api = open_library(program, error);
  if (work->api == NULL) {
    json_object_unref(options);
    return FALSE;
  }
  json_object_set_int_member(options, "semblance", 1);
  if (*model != '\0') {
    json_object_set_string_member(options, "model_folder", model);
  }
  text = json_write(options);
  json_object_unref(options);
  code = work->api->engine_create(text, &work->engine, &said);
  g_free(text);
  return code == SEMBLANCE_OK || work_failed(&said, error);
}

void work_close(Work *work) {
  if (work->api != NULL) {
    work->api->engine_destroy(work->engine);
    work->engine = NULL;
  }
}

/* A string of the library's as one of GLib's. */
static char *taken(const Work *work, char *text) {
  char *copy = g_strdup(text);
  work->api->string_free(text);
  return copy;
}

char *work_recipe(const Work *work, const semblance_result *result, GError **error) {
  semblance_error said = {.struct_size = sizeof said};
  char *text = NULL;
  if (work->api->result_recipe(result, &text, &said) != SEMBLANCE_OK) {
    work_failed(&said, error);
    return NULL;
  }
  return taken(work, text);
}

static JsonObject *listed(const Work *work, char *text, GError **error) {
  char *copy = taken(work, text);
  JsonObject *object = json_read(copy, error);
  g_free(copy);
  return object;
}

JsonObject *work_attributes(const Work *work, GError **error) {
  semblance_error said = {.struct_size = sizeof said};
  char *text = NULL;
  if (work->api->engine_attributes(work->engine, &text, &said) != SEMBLANCE_OK) {
    work_failed(&said, error);
    return NULL;
  }
  return listed(work, text, error);
}

JsonObject *work_parameters(const Work *work, GError **error) {
  semblance_error said = {.struct_size = sizeof said};
  char *text = NULL;
  if (work->api->engine_parameters(work->engine, &text, &said) != SEMBLANCE_OK) {
    work_failed(&said, error);
    return NULL;
  }
  return listed(work, text, error);
}

char *work_warnings(const Work *work, const semblance_result *result) {
  GString *lines = g_string_new(NULL);
  char *text = NULL;
  JsonObject *report = NULL;
  JsonNode *node;
  if (work->api->result_report(result, &text, NULL) == SEMBLANCE_OK) {
    report = listed(work, text, NULL);
  }
  node = report != NULL ? json_object_get_member(report, "warnings") : NULL;
  if (node != NULL && JSON_NODE_HOLDS_ARRAY(node)) {
    JsonArray *warnings = json_node_get_array(node);
    for (guint at = 0; at < json_array_get_length(warnings); at++) {
      const char *warning = json_array_get_string_element(warnings, at);
      g_string_append_printf(lines, "%s%s", lines->len > 0 ? "\n" : "",
                             warning != NULL ? warning : "");
    }
  }
  g_clear_pointer(&report, json_object_unref);
  return g_string_free(lines, FALSE);
}
