/* libsemblance with a planted death: what becomes of a picture when the library dies.
 *
 * For: the editors' tests, which have a plug-in load it through SEMBLANCE_LIBRARY. Never installed. It
 * passes everything on to the library that SEMBLANCE_WHOLE names. The file that SEMBLANCE_DEATH names says
 * where the process ends and by which signal: "run 6" aborts in the middle of an edit, between two
 * predictions of the network, "render 11" while the result is put into the layer's pixels. Without that
 * file nothing dies.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "semblance.h"

static const semblance_api *whole;
static semblance_api table;

static void die(const char *here) {
  const char *path = getenv("SEMBLANCE_DEATH");
  FILE *file = path != NULL ? fopen(path, "r") : NULL;
  char where[16] = "";
  int number = 0, read;
  if (file == NULL) {
    return;
  }
  read = fscanf(file, "%15s %d", where, &number);
  fclose(file);
  if (read == 2 && strcmp(where, here) == 0) {
    raise(number);
  }
}

/* The run is in its middle from the first step of the inversion on. */
static void look(const semblance_job_state *state) {
  if (state != NULL && state->state == SEMBLANCE_STATE_RUNNING &&
      state->phase >= SEMBLANCE_PHASE_INVERT) {
    die("run");
  }
}

static int32_t SEMBLANCE_CALL poll(const semblance_job *job, semblance_job_state *state,
                                   semblance_error *error) {
  const int32_t code = whole->job_poll(job, state, error);
  look(state);
  return code;
}

static int32_t SEMBLANCE_CALL wait(const semblance_job *job, int64_t timeout_ms,
                                   semblance_job_state *state, semblance_error *error) {
  const int32_t code = whole->job_wait(job, timeout_ms, state, error);
  look(state);
  return code;
}

static int32_t SEMBLANCE_CALL render(const semblance_result *result, const semblance_pixels *src,
                                     const semblance_mask *mask, const semblance_pixels *dst,
                                     semblance_tally *tally, semblance_error *error) {
  const int32_t code = whole->result_render(result, src, mask, dst, tally, error);
  die("render");
  return code;
}

const semblance_api *SEMBLANCE_CALL semblance_get_api(uint32_t major) {
  const char *path = getenv("SEMBLANCE_WHOLE");
  void *library = path != NULL ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  void *found = library != NULL ? dlsym(library, "semblance_get_api") : NULL;
  semblance_get_api_fn get_api;
  if (found == NULL) {
    fprintf(stderr, "crashing.c: SEMBLANCE_WHOLE must name the library: %s\n", dlerror());
    return NULL;
  }
  memcpy(&get_api, &found, sizeof get_api);
  whole = get_api(major);
  if (whole == NULL || whole->struct_size < sizeof table) {
    return NULL;
  }
  memcpy(&table, whole, sizeof table);
  table.struct_size = sizeof table;
  table.job_poll = poll;
  table.job_wait = wait;
  table.result_render = render;
  return &table;
}
