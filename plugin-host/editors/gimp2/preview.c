/* The preview: the result itself, at the size shown, with zoom and a before/after line.
 *
 * For: the window of the plug-in of GIMP 2.10 (GTK 2). Not for: models; it renders what it is handed.
 */
#include "preview.h"

#include <math.h>
#include <string.h>

#define WIDTH 520
#define HEIGHT 400
/* Screen pixels within which a press takes hold of the before/after line. */
#define REACH 12

static const struct {
  const char *name;
  double scale; /* screen pixels a layer pixel; 0: the whole layer */
} ZOOMS[] = {{"Fit", 0}, {"50 %", 0.5}, {"100 %", 1}, {"200 %", 2}};

/* A part of the layer, and screen pixels a layer pixel. */
typedef struct {
  int left, top, width, height;
  double scale;
} View;

typedef enum { DRAG_NONE, DRAG_LINE, DRAG_PICTURE } Drag;

struct Preview {
  GtkWidget *box, *image, *zooms, *both;
  void (*moved)(gpointer);
  gpointer data;

  const Source *source;
  guint8 *shown; /* the layer as it is seen: sRGB, 8 bits, straight alpha if it has some */
  int channels;

  View view;
  GdkPixbuf *copy;   /* the view's pixels at the size shown or, enlarged, their own */
  guint8 *mask;      /* the selection over them; NULL: everywhere */
  GdkPixbuf *before, *after; /* on the screen */

  double zoom, center_x, center_y, split;
  Drag drag;
  double drag_x, drag_y, drag_center_x, drag_center_y;
};

/* ----------------------------------------------------------------------------------- pixels -- */

gboolean preview_set_source(Preview *p, const Source *source, GError **error) {
  const gsize count = (gsize)source->width * source->height;
  const int channels = source->has_alpha ? 4 : 3;
  const Babl *format = babl_format(source->has_alpha ? "R'G'B'A u8" : "R'G'B' u8");
  GimpColorTransform *transform = NULL;
  guint8 *shown = g_try_malloc(count * channels);
  if (shown == NULL) {
    g_set_error(error, REFUSED, 0, "the preview needs %" G_GSIZE_FORMAT " MiB, which are not free",
                (count * channels) >> 20);
    return FALSE;
  }
  if (source->profile != NULL) {
    GimpColorProfile *srgb = gimp_color_profile_new_rgb_srgb();
    transform = gimp_color_transform_new(source->profile, source->format, srgb, format,
                                         GIMP_COLOR_RENDERING_INTENT_RELATIVE_COLORIMETRIC,
                                         GIMP_COLOR_TRANSFORM_FLAGS_BLACK_POINT_COMPENSATION);
    g_object_unref(srgb);
  }
  /* By rows, for their number of pixels fits into every type on the way. */
  for (int y = 0; y < source->height; y++) {
    const guint8 *from = source->bytes + (gsize)y * source->width * source->pixel_size;
    guint8 *to = shown + (gsize)y * source->width * channels;
    if (transform != NULL) {
      gimp_color_transform_process_pixels(transform, source->format, from, format, to,
                                          source->width);
    } else {
      babl_process(babl_fish(source->format, format), from, to, source->width);
    }
  }
  g_clear_object(&transform);
  g_free(p->shown);
  p->shown = shown;
  p->channels = channels;
  p->source = source;
  g_clear_object(&p->copy);
  return TRUE;
}

void preview_forget(Preview *p) {
  p->source = NULL;
  p->drag = DRAG_NONE;
}

/* The part of the layer that is seen. */
static View view_of(const Preview *p) {
  const int width = p->source->width, height = p->source->height;
  View v;
  v.scale = p->zoom > 0 ? p->zoom
                        : MIN(8.0, MIN(WIDTH / (double)width, HEIGHT / (double)height));
  v.width = p->zoom > 0 ? MIN(width, (int)(WIDTH / v.scale)) : width;
  v.height = p->zoom > 0 ? MIN(height, (int)(HEIGHT / v.scale)) : height;
  v.left = CLAMP((int)lround(p->center_x * width - v.width / 2.0), 0, width - v.width);
  v.top = CLAMP((int)lround(p->center_y * height - v.height / 2.0), 0, height - v.height);
  return v;
}

/* The selection at a place of the layer, 0 to 1. */
static float coverage(const Source *source, int x, int y) {
  const Selection *s = &source->selection;
  x += source->x - s->x;
  y += source->y - s->y;
  if (x < 0 || y < 0 || x >= s->width || y >= s->height) {
    return 0;
  }
  const gsize at = (gsize)y * s->width + x;
  return s->samples == SEMBLANCE_SAMPLES_U8 ? s->data[at] / 255.0f
                                            : ((const float *)(gconstpointer)s->data)[at];
}

/* The selection over the view, a byte a pixel of `width` × `height`: the mean of what each covers. */
static guint8 *reduced_mask(const Source *source, const View *v, int width, int height) {
  guint8 *mask = g_malloc((gsize)width * height);
  for (int y = 0; y < height; y++) {
    const int top = v->top + (int)((gint64)y * v->height / height);
    const int bottom = MAX(top + 1, v->top + (int)((gint64)(y + 1) * v->height / height));
    /* Of large pictures only as many rows as make a good reduction. */
    const int step = MAX(1, (bottom - top) / 4);
    for (int x = 0; x < width; x++) {
      const int left = v->left + (int)((gint64)x * v->width / width);
      const int right = MAX(left + 1, v->left + (int)((gint64)(x + 1) * v->width / width));
      float sum = 0;
      int count = 0;
      for (int row = top; row < bottom; row += step) {
        for (int column = left; column < right; column++) {
          sum += coverage(source, column, row);
          count += 1;
        }
      }
      mask[(gsize)y * width + x] = (guint8)lroundf(CLAMP(sum / count, 0.0f, 1.0f) * 255);
    }
  }
  return mask;
}

/* Copies the view's pixels, unless they are there already. */
static void copy_view(Preview *p) {
  const View v = view_of(p);
  const gsize line = (gsize)p->source->width * p->channels;
  int step, width, height;
  GdkPixbuf *part;
  if (p->copy != NULL && memcmp(&v, &p->view, sizeof v) == 0) {
    return;
  }
  /* Of large pictures only as many rows as make a good reduction. */
  step = v.scale < 1 ? MAX(1, (int)(0.5 / v.scale)) : 1;
  part = gdk_pixbuf_new_from_data(p->shown + line * v.top + (gsize)v.left * p->channels,
                                  GDK_COLORSPACE_RGB, p->channels == 4, 8, v.width,
                                  (v.height + step - 1) / step, (int)(line * step), NULL, NULL);
  width = v.scale < 1 ? MAX(1, (int)lround(v.width * v.scale)) : v.width;
  height = v.scale < 1 ? MAX(1, (int)lround(v.height * v.scale)) : v.height;
  g_clear_object(&p->copy);
  p->copy = v.scale < 1 ? gdk_pixbuf_scale_simple(part, width, height, GDK_INTERP_BILINEAR)
                        : gdk_pixbuf_copy(part);
  g_object_unref(part);
  g_clear_pointer(&p->mask, g_free);
  if (p->source->selection.data != NULL) {
    p->mask = reduced_mask(p->source, &v, width, height);
  }
  p->view = v;
}

/* Describes a pixbuf for the library. */
static semblance_pixels described(GdkPixbuf *pixbuf) {
  const gboolean alpha = gdk_pixbuf_get_has_alpha(pixbuf);
  return (semblance_pixels){
      .struct_size = sizeof(semblance_pixels),
      .samples = SEMBLANCE_SAMPLES_U8,
      .order = alpha ? SEMBLANCE_ORDER_RGBA : SEMBLANCE_ORDER_RGB,
      .alpha = alpha ? SEMBLANCE_ALPHA_STRAIGHT : SEMBLANCE_ALPHA_NONE,
      .data = gdk_pixbuf_get_pixels(pixbuf),
      .data_size = gdk_pixbuf_get_byte_length(pixbuf),
      .row_stride = gdk_pixbuf_get_rowstride(pixbuf),
      .rect = {0, 0, gdk_pixbuf_get_width(pixbuf), gdk_pixbuf_get_height(pixbuf)},
      .color = SEMBLANCE_COLOR_SRGB,
  };
}

/* As it is on the screen, over squares where it is not opaque. */
static GdkPixbuf *on_screen(const Preview *p, GdkPixbuf *pixbuf) {
  const int width = MAX(1, (int)lround(p->view.width * p->view.scale));
  const int height = MAX(1, (int)lround(p->view.height * p->view.scale));
  if (gdk_pixbuf_get_has_alpha(pixbuf)) {
    return gdk_pixbuf_composite_color_simple(pixbuf, width, height, GDK_INTERP_BILINEAR, 255, 8,
                                             0x999999, 0x666666);
  }
  /* Left as it is where it can be: compositing makes it darker by one. */
  if (gdk_pixbuf_get_width(pixbuf) == width && gdk_pixbuf_get_height(pixbuf) == height) {
    return g_object_ref(pixbuf);
  }
  return gdk_pixbuf_scale_simple(pixbuf, width, height, GDK_INTERP_BILINEAR);
}

/* Puts before and after together. */
static void compose(Preview *p) {
  if (p->after == NULL) {
    return;
  }
  if (!gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(p->both))) {
    gtk_image_set_from_pixbuf(GTK_IMAGE(p->image), p->after);
    return;
  }
  GdkPixbuf *both = gdk_pixbuf_copy(p->after);
  const int width = gdk_pixbuf_get_width(both), height = gdk_pixbuf_get_height(both);
  const int x = CLAMP((int)lround(width * p->split), 1, MAX(1, width - 1));
  gdk_pixbuf_copy_area(p->before, 0, 0, x, height, both, 0, 0);
  GdkPixbuf *line = gdk_pixbuf_new_subpixbuf(both, x - 1, 0, 1, height);
  gdk_pixbuf_fill(line, 0xffffffff);
  g_object_unref(line);
  gtk_image_set_from_pixbuf(GTK_IMAGE(p->image), both);
  g_object_unref(both);
}

gboolean preview_draw(Preview *p, const Work *work, const semblance_result *result,
                      GError **error) {
  GdkPixbuf *after;
  copy_view(p);
  after = gdk_pixbuf_copy(p->copy);
  if (result != NULL) {
    semblance_error said = {.struct_size = sizeof said};
    const semblance_rect part = {p->view.left, p->view.top, p->view.width, p->view.height};
    const semblance_pixels from = described(p->copy), to = described(after);
    const semblance_mask mask = {
        .struct_size = sizeof mask,
        .samples = SEMBLANCE_SAMPLES_U8,
        .data = p->mask,
        .data_size = (uint64_t)from.rect.width * from.rect.height,
        .row_stride = from.rect.width,
        .rect = from.rect,
    };
    if (work->api->result_render_reduced(result, &part, &from, p->mask != NULL ? &mask : NULL, &to,
                                         NULL, &said) != SEMBLANCE_OK) {
      g_object_unref(after);
      return work_failed(&said, error);
    }
  }
  g_clear_object(&p->before);
  g_clear_object(&p->after);
  p->before = on_screen(p, p->copy);
  p->after = on_screen(p, after);
  g_object_unref(after);
  compose(p);
  return TRUE;
}

/* ---------------------------------------------------------------------------------- controls -- */

static void zoomed(GtkComboBox *zooms, gpointer data) {
  Preview *p = data;
  p->zoom = ZOOMS[MAX(0, gtk_combo_box_get_active(zooms))].scale;
  p->moved(p->data);
}

static void toggled(GtkToggleButton *both, gpointer data) {
  (void)both;
  compose(data);
}

/* Where the pointer is, as a part of the picture's width. */
static double place(const Preview *p, double x) {
  const double width = gdk_pixbuf_get_width(p->after);
  return (x - (p->image->allocation.width - width) / 2) / width;
}

static gboolean pressed(GtkWidget *box, GdkEventButton *event, gpointer data) {
  Preview *p = data;
  (void)box;
  if (p->source != NULL && p->after != NULL && event->button == 1) {
    const double away =
        fabs(place(p, event->x) - p->split) * gdk_pixbuf_get_width(p->after);
    const gboolean line = gtk_toggle_button_get_active(GTK_TOGGLE_BUTTON(p->both)) &&
                          (away < REACH || p->zoom == 0);
    p->drag = line ? DRAG_LINE : DRAG_PICTURE;
    p->drag_x = event->x;
    p->drag_y = event->y;
    p->drag_center_x = p->center_x;
    p->drag_center_y = p->center_y;
  }
  return TRUE;
}

/* The centre after a drag by so many screen pixels, kept where the view still moves. */
static double dragged(double center, double by, double scale, int part, int whole) {
  const double edge = part / 2.0 / whole;
  return CLAMP(center - by / scale / whole, edge, MAX(edge, 1 - edge));
}

static gboolean moving(GtkWidget *box, GdkEventMotion *event, gpointer data) {
  Preview *p = data;
  (void)box;
  if (p->drag == DRAG_LINE) {
    p->split = CLAMP(place(p, event->x), 0, 1);
    compose(p);
  } else if (p->drag == DRAG_PICTURE && p->zoom > 0) {
    const View v = view_of(p);
    p->center_x = dragged(p->drag_center_x, event->x - p->drag_x, v.scale, v.width,
                          p->source->width);
    p->center_y = dragged(p->drag_center_y, event->y - p->drag_y, v.scale, v.height,
                          p->source->height);
  }
  return TRUE;
}

static gboolean released(GtkWidget *box, GdkEventButton *event, gpointer data) {
  Preview *p = data;
  (void)box;
  (void)event;
  if (p->drag == DRAG_PICTURE && p->zoom > 0) {
    p->moved(p->data);
  }
  p->drag = DRAG_NONE;
  return TRUE;
}

Preview *preview_new(void (*moved)(gpointer), gpointer data) {
  Preview *p = g_new0(Preview, 1);
  GtkWidget *events = gtk_event_box_new(), *bar = gtk_hbox_new(FALSE, 6);
  GtkWidget *label = gtk_label_new_with_mnemonic("_Zoom");
  p->moved = moved;
  p->data = data;
  p->center_x = p->center_y = p->split = 0.5;
  p->box = gtk_vbox_new(FALSE, 6);

  p->image = gtk_image_new();
  gtk_widget_set_size_request(p->image, WIDTH, HEIGHT);
  gtk_container_add(GTK_CONTAINER(events), p->image);
  gtk_widget_add_events(events, GDK_BUTTON_PRESS_MASK | GDK_BUTTON_RELEASE_MASK |
                                    GDK_BUTTON1_MOTION_MASK);
  g_signal_connect(events, "button-press-event", G_CALLBACK(pressed), p);
  g_signal_connect(events, "motion-notify-event", G_CALLBACK(moving), p);
  g_signal_connect(events, "button-release-event", G_CALLBACK(released), p);
  gtk_box_pack_start(GTK_BOX(p->box), events, TRUE, TRUE, 0);

  p->zooms = gtk_combo_box_text_new();
  for (guint at = 0; at < G_N_ELEMENTS(ZOOMS); at++) {
    gtk_combo_box_text_append_text(GTK_COMBO_BOX_TEXT(p->zooms), ZOOMS[at].name);
  }
  gtk_combo_box_set_active(GTK_COMBO_BOX(p->zooms), 0);
  gtk_widget_set_tooltip_text(p->zooms, "At 100 % and more, drag the picture to move it");
  g_signal_connect(p->zooms, "changed", G_CALLBACK(zoomed), p);
  gtk_label_set_mnemonic_widget(GTK_LABEL(label), p->zooms);
  gtk_box_pack_start(GTK_BOX(bar), label, FALSE, FALSE, 0);
  gtk_box_pack_start(GTK_BOX(bar), p->zooms, FALSE, FALSE, 0);
  p->both = gtk_check_button_new_with_mnemonic("_Before | after");
  gtk_widget_set_tooltip_text(p->both, "Left of the line as it was; drag the line");
  g_signal_connect(p->both, "toggled", G_CALLBACK(toggled), p);
  gtk_box_pack_end(GTK_BOX(bar), p->both, FALSE, FALSE, 0);
  gtk_box_pack_start(GTK_BOX(p->box), bar, FALSE, FALSE, 0);
  return p;
}

GtkWidget *preview_widget(Preview *p) { return p->box; }

void preview_free(Preview *p) {
  g_clear_object(&p->copy);
  g_clear_object(&p->before);
  g_clear_object(&p->after);
  g_free(p->mask);
  g_free(p->shown);
  g_free(p);
}
