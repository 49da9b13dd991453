"""Semblance in Krita: Filter ▸ Semblance ▸ Edit Attribute…, and `edit` for scripts.

For: what Krita imports. Its modules, most of them every editor's, call each other by plain names.
"""

import os
import sys

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from krita import Krita  # noqa: E402

from semblance_extension import Semblance, edit  # noqa: E402,F401

Krita.instance().addExtension(Semblance(Krita.instance()))
