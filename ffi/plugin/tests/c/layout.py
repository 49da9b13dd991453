"""Prints the layout of the ctypes module's structs in the form of layout.c."""

import ctypes
import semblance

NAMES = {"semblance_error": semblance.ErrorStruct, "semblance_rect": semblance.Rect,
         "semblance_pixels": semblance.Pixels, "semblance_mask": semblance.Mask,
         "semblance_job_state": semblance.JobState, "semblance_tally": semblance.Tally,
         "semblance_log_entry": semblance.LogEntry, "semblance_api": semblance.Table}

for name, struct in NAMES.items():
    print(name, ctypes.sizeof(struct))
    for field, *_ in struct._fields_:
        place = getattr(struct, field)
        print(f"{name}.{field} {place.offset} {place.size}")
