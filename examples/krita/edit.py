"""One edit of a picture by Krita without a window, after `semblance install krita`:

    PYTHONPATH=~/.local/share/krita/pykrita:examples/krita QT_QPA_PLATFORM=offscreen \\
        kritarunner -s edit -f main in.png out.png "sunset=0.8, fog=0.3"

Krita's runner exits 0 whatever happens: look for the file that it writes.
"""

from krita import InfoObject, Krita

from semblance_krita import edit


def main(arguments):
    source, target, attributes = arguments
    document = Krita.instance().openDocument(source)
    document.setBatchmode(True)
    new = edit(document, document.topLevelNodes()[-1], attributes)
    print("new layer:", new.name(), flush=True)
    document.exportImage(target, InfoObject())
