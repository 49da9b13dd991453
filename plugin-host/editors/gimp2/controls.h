/* The controls that say what an edit is, made from the library's lists. */
#ifndef SEMBLANCE_CONTROLS_H
#define SEMBLANCE_CONTROLS_H

#include "gimp2.h"

/* After gimp.h, which it needs and does not include. */
#include <libgimp/gimpui.h>

typedef struct Controls Controls;

/* `changed` is called when the user moved one. */
Controls *controls_new(void (*changed)(gpointer), gpointer data);
void controls_free(Controls *controls);

/* The parts: attributes; free text; the recipe's further parameters. */
GtkWidget *controls_sliders(Controls *controls);
GtkWidget *controls_words(Controls *controls);
GtkWidget *controls_fields(Controls *controls);

/* Makes sliders and fields anew from {"attributes": […]} and {"parameters": […]}. */
void controls_list(Controls *controls, JsonObject *attributes, JsonObject *parameters);

/* What the controls say, to be unreferenced; and their values set to what a recipe says. */
JsonObject *controls_recipe(Controls *controls);
void controls_set(Controls *controls, JsonObject *recipe);

/* Puts the keyboard on the first slider's number. */
void controls_focus(Controls *controls);

/* A row of a table of two columns: a name, whose letter after a _ leads to the widget with Alt, and that. */
void controls_row(GtkWidget *table, guint row, const char *name, GtkWidget *widget);
GtkWidget *controls_table(guint rows, guint columns);

#endif
