/* GIMP's layers as the library sees them, and its results as GIMP's layers.
 *
 * For: pixels, selection, profile, names, the recipe that a layer carries (the same that the plug-in
 * of GIMP 3 keeps, so that either edits again what the other made). Not for: windows, models.
 */
#include <gio/gio.h>
#include <stdio.h>
#include <string.h>

#include "gimp2.h"

#define RECIPE "semblance-recipe"
#define SELECTION "semblance-selection"

/* ---------------------------------------------------------------------------------- a source -- */

gboolean layers_check(gint32 drawable, GError **error) {
  if (!gimp_item_is_layer(drawable)) {
    char *name = gimp_item_is_valid(drawable) ? gimp_item_get_name(drawable) : NULL;
    g_set_error(error, REFUSED, 0,
                "“%s” is not a layer: must be one (click the layer beside its mask or channel)",
                name != NULL ? name : "");
    g_free(name);
    return FALSE;
  }
  if (gimp_image_base_type(gimp_item_get_image(drawable)) == GIMP_INDEXED) {
    g_set_error(error, REFUSED, 0,
                "the image is indexed: must be RGB or grey, for an edit needs colours that no "
                "palette has (Image ▸ Mode ▸ RGB)");
    return FALSE;
  }
  return TRUE;
}

/* The library's samples for the image's; whether it is those that GIMP stores. */
static gboolean samples_of(GimpPrecision precision, int *samples) {
  switch (precision) {
    case GIMP_PRECISION_U8_LINEAR:
    case GIMP_PRECISION_U8_GAMMA:
      *samples = SEMBLANCE_SAMPLES_U8;
      return TRUE;
    case GIMP_PRECISION_U16_LINEAR:
    case GIMP_PRECISION_U16_GAMMA:
      *samples = SEMBLANCE_SAMPLES_U16;
      return TRUE;
    case GIMP_PRECISION_HALF_LINEAR:
    case GIMP_PRECISION_HALF_GAMMA:
      *samples = SEMBLANCE_SAMPLES_F16;
      return TRUE;
    case GIMP_PRECISION_FLOAT_LINEAR:
    case GIMP_PRECISION_FLOAT_GAMMA:
      *samples = SEMBLANCE_SAMPLES_F32;
      return TRUE;
    default: /* 32-bit integers and doubles */
      *samples = SEMBLANCE_SAMPLES_F32;
      return FALSE;
  }
}

static gboolean is_linear(GimpPrecision precision) {
  switch (precision) {
    case GIMP_PRECISION_U8_LINEAR:
    case GIMP_PRECISION_U16_LINEAR:
    case GIMP_PRECISION_U32_LINEAR:
    case GIMP_PRECISION_HALF_LINEAR:
    case GIMP_PRECISION_FLOAT_LINEAR:
    case GIMP_PRECISION_DOUBLE_LINEAR:
      return TRUE;
    default:
      return FALSE;
  }
}

/* A layer outside the image with what is seen of it, `hidden` left out. */
static gint32 all_visible(gint32 image, gint32 hidden) {
  gint32 layer;
  if (hidden < 0 || !gimp_item_get_visible(hidden)) {
    return gimp_layer_new_from_visible(image, image, "visible");
  }
  gimp_image_undo_freeze(image);
  gimp_item_set_visible(hidden, FALSE);
  layer = gimp_layer_new_from_visible(image, image, "visible");
  gimp_item_set_visible(hidden, TRUE);
  gimp_image_undo_thaw(image);
  return layer;
}

static gpointer copied(gconstpointer data, gsize size) {
  gpointer copy = g_malloc(size);
  memcpy(copy, data, size);
  return copy;
}

static gsize selection_size(const Selection *s) {
  return (gsize)s->width * s->height * (s->samples == SEMBLANCE_SAMPLES_U8 ? 1 : sizeof(float));
}

static void read_selection(Source *source, const Selection *before) {
  Selection *s = &source->selection;
  gboolean some = FALSE;
  int right = 0, bottom = 0;
  if (!gimp_selection_bounds(source->image, &some, &s->x, &s->y, &right, &bottom) || !some) {
    if (before != NULL && before->data != NULL) {
      *s = *before;
      s->data = copied(before->data, selection_size(before));
    }
    return;
  }
  s->width = right - s->x;
  s->height = bottom - s->y;
  s->samples = source->samples == SEMBLANCE_SAMPLES_U8 ? SEMBLANCE_SAMPLES_U8
                                                       : SEMBLANCE_SAMPLES_F32;
  s->data = g_malloc(selection_size(s));
  GeglBuffer *buffer = gimp_drawable_get_buffer(gimp_image_get_selection(source->image));
  gegl_buffer_get(buffer, GEGL_RECTANGLE(s->x, s->y, s->width, s->height), 1.0,
                  babl_format(s->samples == SEMBLANCE_SAMPLES_U8 ? "Y u8" : "Y float"), s->data,
                  GEGL_AUTO_ROWSTRIDE, GEGL_ABYSS_NONE);
  g_object_unref(buffer);
}

Source *source_read(gint32 layer, gboolean visible, const Selection *before, gint32 hidden,
                    GError **error) {
  Source *source = g_new0(Source, 1);
  const gint32 image = gimp_item_get_image(layer);
  const GimpPrecision precision = gimp_image_get_precision(image);
  source->image = image;
  source->layer = layer;
  source->visible = visible;
  source->drawable = visible ? all_visible(image, hidden) : layer;
  source->width = gimp_drawable_width(source->drawable);
  source->height = gimp_drawable_height(source->drawable);
  if (!visible) {
    gimp_drawable_offsets(layer, &source->x, &source->y);
  }
  source->gray = gimp_image_base_type(image) == GIMP_GRAY;
  source->has_alpha = gimp_drawable_has_alpha(source->drawable);
  source->native = samples_of(precision, &source->samples);
  source->color = is_linear(precision) ? SEMBLANCE_COLOR_LINEAR_SRGB : SEMBLANCE_COLOR_SRGB;
  if (source->native) {
    source->format = gimp_drawable_get_format(source->drawable);
  } else {
    const gboolean linear = is_linear(precision);
    const char *color = source->gray ? (linear ? "Y" : "Y'") : (linear ? "RGB" : "R'G'B'");
    char *name = g_strconcat(color, source->has_alpha ? "A float" : " float", NULL);
    source->format = babl_format(name);
    g_free(name);
  }
  source->pixel_size = babl_format_get_bytes_per_pixel(source->format);
  source->size = (gsize)source->width * source->height * source->pixel_size;
  source->bytes = g_try_malloc(source->size);
  if (source->bytes == NULL) {
    g_set_error(error, REFUSED, 0, "the layer needs %" G_GSIZE_FORMAT " MiB, which are not free",
                source->size >> 20);
    source_free(source);
    return NULL;
  }
  /* The formats of GIMP 2.10 claim sRGB whatever the profile, so that reading converts nothing. */
  GeglBuffer *buffer = gimp_drawable_get_buffer(source->drawable);
  gegl_buffer_get(buffer, GEGL_RECTANGLE(0, 0, source->width, source->height), 1.0, source->format,
                  source->bytes, GEGL_AUTO_ROWSTRIDE, GEGL_ABYSS_NONE);
  g_object_unref(buffer);
  source->profile = gimp_image_get_color_profile(image);
  read_selection(source, before);
  return source;
}

void source_free(Source *source) {
  if (source == NULL) {
    return;
  }
  if (source->visible && source->drawable >= 0) {
    gimp_item_delete(source->drawable);
  }
  g_clear_object(&source->profile);
  g_free(source->selection.data);
  g_free(source->bytes);
  g_free(source);
}

semblance_pixels source_pixels(const Source *source, void *data) {
  semblance_pixels pixels = {
      .struct_size = sizeof pixels,
      .samples = source->samples,
      .order = source->gray
                   ? (source->has_alpha ? SEMBLANCE_ORDER_GRAY_ALPHA : SEMBLANCE_ORDER_GRAY)
                   : (source->has_alpha ? SEMBLANCE_ORDER_RGBA : SEMBLANCE_ORDER_RGB),
      .alpha = source->has_alpha ? SEMBLANCE_ALPHA_STRAIGHT : SEMBLANCE_ALPHA_NONE,
      .data = data != NULL ? data : source->bytes,
      .data_size = source->size,
      .row_stride = (int64_t)source->width * source->pixel_size,
      .rect = {0, 0, source->width, source->height},
      .color = source->color,
  };
  if (source->profile != NULL) {
    gsize length = 0;
    pixels.icc = gimp_color_profile_get_icc_profile(source->profile, &length);
    pixels.icc_size = length;
    pixels.color = SEMBLANCE_COLOR_ICC;
  }
  return pixels;
}

const semblance_mask *source_mask(const Source *source, semblance_mask *mask) {
  const Selection *s = &source->selection;
  if (s->data == NULL) {
    return NULL;
  }
  *mask = (semblance_mask){
      .struct_size = sizeof *mask,
      .samples = s->samples,
      .data = s->data,
      .data_size = selection_size(s),
      .row_stride = (int64_t)(selection_size(s) / s->height),
      .rect = {s->x - source->x, s->y - source->y, s->width, s->height},
  };
  return mask;
}

guint8 *source_render(const Source *source, const Work *work, const semblance_result *result,
                      GError **error) {
  semblance_error said = {.struct_size = sizeof said};
  guint8 *data = g_try_malloc(source->size);
  semblance_mask mask;
  if (data == NULL) {
    g_set_error(error, REFUSED, 0, "the result needs %" G_GSIZE_FORMAT " MiB, which are not free",
                source->size >> 20);
    return NULL;
  }
  const semblance_pixels from = source_pixels(source, NULL), to = source_pixels(source, data);
  if (work->api->result_render(result, &from, source_mask(source, &mask), &to, NULL, &said) !=
      SEMBLANCE_OK) {
    work_failed(&said, error);
    g_clear_pointer(&data, g_free);
  }
  return data;
}

/* --------------------------------------------------------------------------------- a new layer -- */

/* Whether one sample at `at` is opaque. */
static gboolean is_full(const guint8 *at, int samples) {
  guint16 half;
  float single;
  switch (samples) {
    case SEMBLANCE_SAMPLES_U8:
      return *at == 0xff;
    case SEMBLANCE_SAMPLES_U16:
      return at[0] == 0xff && at[1] == 0xff;
    case SEMBLANCE_SAMPLES_F16:
      memcpy(&half, at, sizeof half);
      return half == 0x3c00; /* 1.0 */
    default:
      memcpy(&single, at, sizeof single);
      return single == 1.0f;
  }
}

/* Whether a full copy above the layer looks as the copy alone. */
static gboolean is_plain(const Source *source) {
  const gint32 layer = source->layer;
  GimpLayerMode mode;
  if (source->visible) {
    return TRUE;
  }
  mode = gimp_layer_get_mode(layer);
  if (gimp_layer_get_opacity(layer) < 100 || gimp_layer_get_mask(layer) >= 0 ||
      gimp_item_is_group(layer) ||
      (mode != GIMP_LAYER_MODE_NORMAL && mode != GIMP_LAYER_MODE_NORMAL_LEGACY)) {
    return FALSE;
  }
  if (source->has_alpha) {
    const int alpha = source->pixel_size / (source->gray ? 2 : 4);
    for (gsize at = source->pixel_size - alpha; at < source->size; at += source->pixel_size) {
      if (!is_full(source->bytes + at, source->samples)) {
        return FALSE;
      }
    }
  }
  return TRUE;
}

/* Writes only the runs of pixels that changed: floats hold less than 32-bit integers do. */
static void write_changed(GeglBuffer *buffer, const Source *source, const guint8 *data) {
  const gsize size = source->pixel_size, line = size * source->width;
  for (int y = 0; y < source->height; y++) {
    const guint8 *old = source->bytes + line * y, *new = data + line * y;
    for (int x = 0; x < source->width; x++) {
      const int start = x;
      while (x < source->width && memcmp(old + size * x, new + size * x, size) != 0) {
        x += 1;
      }
      if (x > start) {
        gegl_buffer_set(buffer, GEGL_RECTANGLE(start, y, x - start, 1), 0, source->format,
                        new + size * start, GEGL_AUTO_ROWSTRIDE);
      }
    }
  }
}

/* A layer outside the image with these pixels and, of the source, place, opacity, mode and mask. */
static gint32 layer_with(Source *source, const guint8 *data) {
  const gint32 layer = source->layer;
  gint32 new;
  if (source->visible) {
    new = source->drawable;
    source->drawable = -1; /* the image's from now on */
  } else if (!gimp_item_is_group(layer) && !gimp_item_is_text_layer(layer)) {
    new = gimp_layer_copy(layer);
  } else {
    /* A copy of these would stay a text or a group, drawn anew over our pixels. */
    new = gimp_layer_new(source->image, "", source->width, source->height,
                         gimp_drawable_type(layer), gimp_layer_get_opacity(layer),
                         gimp_layer_get_mode(layer));
    gimp_layer_set_offsets(new, source->x, source->y);
  }
  gimp_item_set_lock_content(new, FALSE); /* GIMP ends a plug-in that writes into a locked layer */
  GeglBuffer *buffer = gimp_drawable_get_buffer(new);
  if (source->native) {
    gegl_buffer_set(buffer, GEGL_RECTANGLE(0, 0, source->width, source->height), 0, source->format,
                    data, GEGL_AUTO_ROWSTRIDE);
  } else {
    write_changed(buffer, source, data);
  }
  gegl_buffer_flush(buffer);
  g_object_unref(buffer);
  return new;
}

/* A layer mask: white wherever the selection is not 0, so that the pixels' own blend shows. */
static void show_only_selected(gint32 new, const Source *source) {
  const Selection *s = &source->selection;
  const int left = MAX(s->x, source->x), top = MAX(s->y, source->y);
  const int right = MIN(s->x + s->width, source->x + source->width);
  const int bottom = MIN(s->y + s->height, source->y + source->height);
  const gint32 mask = gimp_layer_create_mask(new, GIMP_ADD_MASK_BLACK);
  gimp_layer_add_mask(new, mask);
  if (left < right && top < bottom) {
    const int width = right - left;
    guint8 *line = g_malloc(width);
    GeglBuffer *buffer = gimp_drawable_get_buffer(mask);
    for (int y = top; y < bottom; y++) {
      const gsize start = (gsize)(y - s->y) * s->width + (left - s->x);
      for (int x = 0; x < width; x++) {
        const gboolean some = s->samples == SEMBLANCE_SAMPLES_U8
                                  ? s->data[start + x] > 0
                                  : ((const float *)(gconstpointer)s->data)[start + x] > 0;
        line[x] = some ? 255 : 0;
      }
      gegl_buffer_set(buffer, GEGL_RECTANGLE(left - source->x, y - source->y, width, 1), 0,
                      babl_format("Y u8"), line, GEGL_AUTO_ROWSTRIDE);
    }
    gegl_buffer_flush(buffer);
    g_object_unref(buffer);
    g_free(line);
  }
  gimp_drawable_update(mask, 0, 0, source->width, source->height);
  gimp_layer_set_edit_mask(new, FALSE); /* the next edit is of the layer, not of its mask */
}

/* -------------------------------------------------------------------------------- what is kept -- */

static void attach(gint32 layer, const char *name, const char *text, gsize size) {
  GimpParasite *parasite = gimp_parasite_new(
      name, GIMP_PARASITE_PERSISTENT | GIMP_PARASITE_UNDOABLE, (guint32)size, text);
  gimp_item_attach_parasite(layer, parasite);
  gimp_parasite_free(parasite);
}

/* zlib's form of `data`, or with `back` what it was; NULL where it is damaged. */
static GByteArray *zipped(gconstpointer data, gsize size, gboolean back) {
  GConverter *converter =
      back ? G_CONVERTER(g_zlib_decompressor_new(G_ZLIB_COMPRESSOR_FORMAT_ZLIB))
           : G_CONVERTER(g_zlib_compressor_new(G_ZLIB_COMPRESSOR_FORMAT_ZLIB, 6));
  GInputStream *whole = g_memory_input_stream_new_from_data(data, (gssize)size, NULL);
  GInputStream *stream = g_converter_input_stream_new(whole, converter);
  GByteArray *out = g_byte_array_new();
  guint8 part[65536];
  gssize got;
  while ((got = g_input_stream_read(stream, part, sizeof part, NULL, NULL)) > 0) {
    g_byte_array_append(out, part, (guint)got);
  }
  g_object_unref(stream);
  g_object_unref(whole);
  g_object_unref(converter);
  if (got < 0) {
    g_clear_pointer(&out, g_byte_array_unref);
  }
  return out;
}

/* Keeps the recipe, its model, where its pixels came from and what was selected, with the layer. */
static void remember(gint32 new, const char *recipe, const char *model, const Source *source) {
  const Selection *s = &source->selection;
  JsonObject *folder = json_object_new();
  json_object_set_string_member(folder, "model", model);
  char *rest = json_write(folder); /* {"model":"..."}, escaped */
  char *kept = g_strdup_printf("{\"recipe\": %s, \"source\": \"%s\", \"layer\": %d, %s", recipe,
                               source->visible ? "visible" : "layer",
                               gimp_item_get_tattoo(source->layer), rest + 1);
  json_object_unref(folder);
  g_free(rest);
  attach(new, RECIPE, kept, strlen(kept));
  g_free(kept);
  gimp_item_detach_parasite(new, SELECTION);
  if (s->data != NULL) {
    GByteArray *packed = zipped(s->data, selection_size(s), FALSE);
    char *base64 = packed != NULL ? g_base64_encode(packed->data, packed->len) : NULL;
    char *text = g_strdup_printf("%d %d %d %d %s\n%s", s->x, s->y, s->width, s->height,
                                 s->samples == SEMBLANCE_SAMPLES_U8 ? "u8" : "f32",
                                 base64 != NULL ? base64 : "");
    if (base64 != NULL) {
      attach(new, SELECTION, text, strlen(text));
    }
    g_free(text);
    g_free(base64);
    g_clear_pointer(&packed, g_byte_array_unref);
  }
}

/* The text of a layer's parasite, to be freed, or NULL. */
static char *attached(gint32 layer, const char *name) {
  GimpParasite *parasite = gimp_item_get_parasite(layer, name);
  char *text = NULL;
  if (parasite != NULL) {
    text = g_strndup(gimp_parasite_data(parasite), gimp_parasite_data_size(parasite));
    gimp_parasite_free(parasite);
  }
  return text;
}

static Selection selection_of(const char *text) {
  Selection s = {NULL, 0, 0, 0, 0, SEMBLANCE_SAMPLES_U8};
  const char *base64 = strchr(text, '\n');
  char samples[4] = "";
  gsize size = 0;
  if (base64 == NULL || sscanf(text, "%d %d %d %d %3s", &s.x, &s.y, &s.width, &s.height,
                               samples) != 5 || s.width <= 0 || s.height <= 0) {
    return s;
  }
  if (strcmp(samples, "u8") != 0) {
    s.samples = SEMBLANCE_SAMPLES_F32;
  }
  guchar *packed = g_base64_decode(base64 + 1, &size);
  GByteArray *whole = zipped(packed, size, TRUE);
  g_free(packed);
  if (whole != NULL && whole->len == selection_size(&s)) {
    s.data = g_byte_array_free(g_steal_pointer(&whole), FALSE);
  }
  g_clear_pointer(&whole, g_byte_array_unref);
  return s;
}

Memory layers_memory(gint32 layer) {
  Memory memory = {.recipe = NULL, .layer = -1};
  char *text = attached(layer, RECIPE);
  JsonObject *kept = text != NULL ? json_read(text, NULL) : NULL;
  JsonObject *recipe = kept != NULL ? json_object_of(kept, "recipe") : NULL;
  g_free(text);
  if (recipe != NULL) {
    const int tattoo = (int)json_number(kept, "layer", 0);
    memory.recipe = json_object_ref(recipe);
    if (json_object_has_member(recipe, "stamp")) {
      json_object_remove_member(recipe, "stamp");
    }
    if (json_object_has_member(kept, "model")) {
      memory.model = g_strdup(json_text(kept, "model"));
    }
    memory.visible = strcmp(json_text(kept, "source"), "visible") == 0;
    memory.layer =
        tattoo > 0 ? gimp_image_get_layer_by_tattoo(gimp_item_get_image(layer), tattoo) : -1;
    text = attached(layer, SELECTION);
    if (text != NULL) {
      memory.selection = selection_of(text);
      g_free(text);
    }
  }
  g_clear_pointer(&kept, json_object_unref);
  return memory;
}

void memory_clear(Memory *memory) {
  g_clear_pointer(&memory->recipe, json_object_unref);
  g_clear_pointer(&memory->model, g_free);
  g_clear_pointer(&memory->selection.data, g_free);
}

gint32 layers_add(Source *source, const guint8 *data, const char *recipe, const char *model,
                  gint32 replaces) {
  const gint32 image = source->image, layer = source->layer;
  const gint32 over = replaces >= 0 ? replaces : layer;
  const gboolean plain = is_plain(source);
  const gint32 new = layer_with(source, data);
  JsonObject *said = json_read(recipe, NULL);
  char *title = said != NULL ? words_title(said) : g_strdup("");
  g_clear_pointer(&said, json_object_unref);
  gimp_image_undo_group_start(image);
  gimp_item_set_name(new, *title != '\0' ? title : "Semblance");
  if (source->visible && replaces < 0) {
    gimp_image_insert_layer(image, new, -1, 0);
  } else {
    gimp_image_insert_layer(image, new, gimp_item_get_parent(over),
                            gimp_image_get_item_position(image, over));
  }
  /* A full copy above a layer that is not opaque would blend twice: then the original is hidden.
   * Else a layer mask shows the new layer only where something was selected. */
  if (source->selection.data != NULL && plain) {
    show_only_selected(new, source);
  }
  gimp_drawable_update(new, 0, 0, source->width, source->height);
  remember(new, recipe, model, source);
  gimp_item_set_visible(new, TRUE);
  if (replaces >= 0) {
    gimp_image_remove_layer(image, replaces);
  }
  if (!plain) {
    gimp_item_set_visible(layer, FALSE);
  }
  gimp_image_set_active_layer(image, new);
  gimp_image_undo_group_end(image);
  g_free(title);
  return new;
}
