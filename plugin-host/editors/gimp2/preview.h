/* The picture in the window: the result itself, at the size shown. */
#ifndef SEMBLANCE_PREVIEW_H
#define SEMBLANCE_PREVIEW_H

#include "gimp2.h"

/* After gimp.h, which it needs and does not include. */
#include <libgimp/gimpui.h>

typedef struct Preview Preview;

/* `moved` is called when another part, or another size, is to be drawn. */
Preview *preview_new(void (*moved)(gpointer), gpointer data);
void preview_free(Preview *preview);
GtkWidget *preview_widget(Preview *preview);

/* Another picture, which must live until it is another's turn. Colours are converted here, once. */
gboolean preview_set_source(Preview *preview, const Source *source, GError **error);

/* Gives that picture up; what is on the screen stays there. */
void preview_forget(Preview *preview);

/* Shows the part that is seen with `result` applied (NULL: as it was). */
gboolean preview_draw(Preview *preview, const Work *work, const semblance_result *result,
                      GError **error);

#endif
