/* edit.c: one blocking edit through semblance.h, in C99.
 *
 *   cc -std=c99 -Iinclude examples/c/edit.c -Ltarget/release -lsemblance -o edit
 *   LD_LIBRARY_PATH=target/release ./edit in.ppm out.ppm \
 *       '{"semblance": 1, "attributes": [{"name": "sunset", "strength": 0.8}]}'
 *
 * Pictures are binary PPM (P6, 8 bits), which needs no library; `convert` makes them of anything.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "semblance/semblance.h"

typedef struct {
  unsigned width;
  unsigned height;
  unsigned char *rgb;
} picture;

static int fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

static int read_ppm(const char *path, picture *p) {
  unsigned most = 0;
  size_t size;
  int ok;
  FILE *f = fopen(path, "rb");
  if (f == NULL) {
    return fail(path, "cannot be read");
  }
  ok = fscanf(f, "P6 %u %u %u", &p->width, &p->height, &most) == 3 && fgetc(f) != EOF &&
       most == 255 && p->width > 0 && p->width <= 65536 && p->height > 0 && p->height <= 65536;
  size = ok ? (size_t)p->width * p->height * 3 : 0;
  p->rgb = ok ? malloc(size) : NULL;
  ok = p->rgb != NULL && fread(p->rgb, 1, size, f) == size;
  fclose(f);
  return ok ? 0 : fail(path, "is not a whole binary PPM of 8 bits (P6, 255)");
}

static int write_ppm(const char *path, const picture *p) {
  const size_t size = (size_t)p->width * p->height * 3;
  int ok;
  FILE *f = fopen(path, "wb");
  if (f == NULL) {
    return fail(path, "cannot be written");
  }
  ok = fprintf(f, "P6\n%u %u\n255\n", p->width, p->height) > 0 &&
       fwrite(p->rgb, 1, size, f) == size;
  ok = fclose(f) == 0 && ok;
  return ok ? 0 : fail(path, "cannot be written");
}

/* {"semblance": 1, "model_folder": FOLDER}, escaped. */
static char *engine_options(const char *folder) {
  static const char begin[] = "{\"semblance\": 1, \"model_folder\": \"";
  char *json = malloc(sizeof begin + 2 * strlen(folder) + 3);
  char *to = json;
  if (json != NULL) {
    to += sprintf(to, "%s", begin);
    for (; *folder != '\0'; ++folder) {
      if (*folder == '"' || *folder == '\\') {
        *to++ = '\\';
      }
      *to++ = *folder;
    }
    strcpy(to, "\"}");
  }
  return json;
}

/* Called on this thread while the library works on its own. */
static int32_t progress(void *user, const semblance_job_state *state) {
  const semblance_api *api = user;
  fprintf(stderr, "\r%3.0f %% %-8s", 100.0 * state->fraction, api->phase_name(state->phase));
  return SEMBLANCE_CONTINUE;
}

static int edit(const semblance_api *api, picture *p, const char *recipe, const char *folder) {
  semblance_error error = {.struct_size = sizeof error};
  semblance_tally tally = {.struct_size = sizeof tally};
  semblance_pixels layer = {.struct_size = sizeof layer};
  semblance_engine *engine = NULL;
  semblance_result *result = NULL;
  char *options = folder == NULL ? NULL : engine_options(folder);
  int32_t code;

  layer.samples = SEMBLANCE_SAMPLES_U8;
  layer.order = SEMBLANCE_ORDER_RGB;
  layer.alpha = SEMBLANCE_ALPHA_NONE;
  layer.color = SEMBLANCE_COLOR_SRGB;
  layer.data = p->rgb;
  layer.data_size = (uint64_t)p->width * p->height * 3;
  layer.row_stride = (int64_t)p->width * 3;
  layer.rect.width = p->width;
  layer.rect.height = p->height;

  code = api->engine_create(options, &engine, &error);
  free(options);
  if (code == SEMBLANCE_OK) {
    /* In place: dst is the layer itself. */
    code = api->edit(engine, &layer, NULL, recipe, &layer, progress, (void *)api, &tally, &result,
                     &error);
    fputc('\n', stderr);
  }
  if (code == SEMBLANCE_OK) {
    char *report = NULL;
    printf("%llu pixels changed\n", (unsigned long long)tally.changed);
    if (api->result_report(result, &report, &error) == SEMBLANCE_OK) {
      puts(report);
      api->string_free(report);
    }
  } else {
    fprintf(stderr, "%s: %s\n", api->code_name(code), error.message);
    if (error.hint[0] != '\0') {
      fprintf(stderr, "hint: %s\n", error.hint);
    }
  }
  api->result_free(result);
  api->engine_destroy(engine);
  return code == SEMBLANCE_OK ? 0 : 1;
}

int main(int argc, char **argv) {
  const semblance_api *api = semblance_get_api(SEMBLANCE_MAJOR);
  picture p = {0, 0, NULL};
  int status;
  if (argc < 4 || argc > 5) {
    fprintf(stderr,
            "usage: %s IN.ppm OUT.ppm RECIPE [MODEL_FOLDER]\n"
            "  RECIPE        such as '{\"semblance\": 1, \"attributes\": [{\"name\": \"sunset\", "
            "\"strength\": 0.8}]}'\n"
            "  MODEL_FOLDER  a model in diffusers layout; the embedded one if absent\n",
            argv[0]);
    return 2;
  }
  if (api == NULL) {
    return fail("libsemblance", "does not serve version 1 of its interface");
  }
  status = read_ppm(argv[1], &p);
  if (status == 0) {
    status = edit(api, &p, argv[3], argc > 4 ? argv[4] : NULL);
  }
  if (status == 0) {
    status = write_ppm(argv[2], &p);
  }
  free(p.rgb);
  return status;
}
