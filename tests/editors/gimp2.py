"""What the plug-in does in GIMP 2.10, checked byte by byte against the command line.

Run by tests/editors/gimp2: `gimp2.py OUT`, with the plug-in in OUT/2.10. GIMP is driven by Script-Fu,
whose exit code is always 0: judged is what it wrote.
"""

import base64
import json
import os
import struct
import subprocess
import sys
import zlib

import tiff
from checks import check, finished

OUT = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
REPO = os.path.dirname(os.path.dirname(HERE))
SEMBLANCE = f"{REPO}/target/release/semblance"
COAST, TOWN = f"{REPO}/examples/coast.png", f"{REPO}/examples/town.png"
PROFILE = "file:///usr/share/color/icc/ghostscript/a98.icc"  # Adobe RGB; comes with GIMP


def gimp(*lines, **environment):
    """Runs lines of Scheme, each after those of gimp2.scm and for itself; what GIMP said."""
    words = ["gimp-console-2.10", "-i", "-d", "-f"]
    with open(f"{HERE}/gimp2.scm", encoding="utf-8") as file:
        scheme = file.read()
    for line in lines:
        words += ["-b", scheme + line]
    done = subprocess.run(words + ["-b", "(gimp-quit 0)"], stdout=subprocess.PIPE, timeout=300,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                          env={**os.environ, "GIMP2_DIRECTORY": f"{OUT}/2.10", "LANG": "C.UTF-8",
                               **environment})
    with open(f"{OUT}/gimp2.log", "a", encoding="utf-8") as log:
        log.write(done.stdout)
    return done.stdout


def semblance(source, out, *options):
    """The command line's picture of the same edit."""
    subprocess.run([SEMBLANCE, "edit", source, "-o", out, *options], check=True,
                   stdout=subprocess.DEVNULL)


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def call(attributes="", seed=0, before="", after="", strength=1, source=0, model="", recipe=""):
    """The procedure's call as a Scheme function of image and layer."""
    return (f"(lambda (image layer) (plug-in-semblance-edit RUN-NONINTERACTIVE image layer "
            f"{quoted(attributes)} {seed} {quoted(before)} {quoted(after)} {strength} {source} "
            f"{quoted(model)} {quoted(recipe)}))")


def forms():
    """The picture in other forms, saved by GIMP."""
    precise = "(lambda (image layer) (gimp-image-convert-precision image {}))"
    steps = {
        "16 bits": precise.format("PRECISION-U16-GAMMA"),
        "float": precise.format("PRECISION-FLOAT-GAMMA"),
        "grey": "(lambda (image layer) (gimp-image-convert-grayscale image))",
        "alpha": "translucent",
        "16 bits with alpha": "(lambda (image layer) (translucent image layer)"
                              " (gimp-image-convert-precision image PRECISION-U16-GAMMA))",
        "Adobe RGB": f"(lambda (image layer) (gimp-image-set-color-profile-from-file image "
                     f"{quoted(PROFILE)}))",
    }
    made = {what: f"{OUT}/form-{what.replace(' ', '-')}.tif" for what in steps}
    gimp(*(f"(form {quoted(COAST)} {quoted(made[what])} {step})" for what, step in steps.items()))
    for what, path in made.items():
        if what != "Adobe RGB":
            tiff.drop_profile(path)
    return made


def equality():
    """Case by case, whether GIMP's new layer holds the bytes that the command line makes."""
    made = forms()
    words = "a photo of a landscape", "a photo of a landscape, at night"
    recipe = json.dumps({"semblance": 1, "attributes": [{"name": "snow", "strength": 1}], "steps": 6})
    cases = {
        "8 bits": (COAST, call("sunset=0.8"), "name sunset 0.8", ["-a", "sunset=0.8"]),
        "two attributes and a seed": (TOWN, call("fog=0.6, autumn=-0.5", seed=7),
                                      "name fog 0.6, autumn -0.5",
                                      ["-a", "fog=0.6", "-a", "autumn=-0.5", "--seed", "7"]),
        "words": (COAST, call(before=words[0], after=words[1], strength=0.7),
                  f"name {words[1]} 0.7",
                  ["--from", words[0], "--to", words[1], "--strength", "0.7"]),
        "a recipe": (COAST, call(recipe=recipe), "name snow 1", ["-a", "snow=1", "--steps", "6"]),
    }
    for what in made:
        assume = ["--assume", "srgb"] if what == "float" else []
        cases[what] = made[what], call("night=0.9"), "name night 0.9", ["-a", "night=0.9", *assume]
    gimp(*(f"(edited {quoted(source)} {quoted(place(what))} {change})"
           for what, (source, change, _, _) in cases.items()))
    for what, (source, _, _, options) in cases.items():
        semblance(source, f"{place(what)}-cli{os.path.splitext(source)[1]}", *options)
    gimp(*(line for what, (source, _, _, _) in cases.items() for line in (
        f"(again {quoted(source)} {quoted(place(what) + '-in.tif')})",
        f"(again {quoted(place(what) + '-cli' + os.path.splitext(source)[1])} "
        f"{quoted(place(what) + '-wanted.tif')})")))
    for what, (_, _, name, _) in cases.items():
        got, wanted, before, below = (tiff.pixels(f"{place(what)}{end}.tif")
                                      for end in ("", "-wanted", "-in", "-below"))
        check(f"{what}: equals the command line's bytes", got is not None and got == wanted)
        if got is not None and wanted is not None and got != wanted:
            print("      ", got[1:], wanted[1:], sum(a != b for a, b in zip(got[0], wanted[0])))
        check(f"{what}: changes the picture", got != before)
        check(f"{what}: leaves the layer below as it was", below is not None and below == before)
        check(f"{what}: is called {name[5:]}", text(f"{place(what)}.name") == name[5:])


def place(what):
    return f"{OUT}/case-{what.replace(' ', '-')}"


def text(path):
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def grey_png(path, width, height, rows):
    """Writes a grey picture of 8 bits."""
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n"
                   + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
                   + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
                   + chunk(b"IEND", b""))


def selection():
    """A soft selection and a layer that sticks out; what is kept with the layer and the file."""
    out = f"{OUT}/selection"
    gimp(f"""(let* ((image (opened {quoted(COAST)})) (layer (active image)))
        (gimp-layer-set-offsets layer -40 30)
        (gimp-image-select-ellipse image CHANNEL-OP-REPLACE 50 60 300 200)
        (gimp-selection-feather image 30)
        (edit image layer "snow=1")
        (save image 0 "{out}.tif")
        (describe image "{out}.txt")
        (gimp-xcf-save RUN-NONINTERACTIVE image (active image) "{out}.xcf" "{out}.xcf")
        (let* ((again (opened "{out}.xcf")))
          (kept again "semblance-recipe" "{out}.json")
          (kept again "semblance-selection" "{out}.packed")))""")
    described = (text(f"{out}.txt") or "\n").splitlines()
    check(f"the new layer is masked and lies where the old one does ({described})", described == [
        "snow 1|visible|(-40 30)|masked", "Background|visible|(-40 30)|plain"])
    remembered = json.loads(text(f"{out}.json") or "{}")
    check("the recipe is saved with the file", remembered.get("recipe", {}).get("attributes")
          == [{"name": "snow", "strength": 1.0}] and remembered["source"] == "layer")
    head, _, packed = (text(f"{out}.packed") or "0 0 1 1 u8\n").partition("\n")
    left, top, width, height = map(int, head.split()[:4])
    cover = zlib.decompress(base64.b64decode(packed)) if packed else b""
    check(f"so is the selection ({head})", len(cover) == width * height and len(set(cover)) > 50)
    before = tiff.pixels(f"{place('8 bits')}-in.tif")
    whole, line = before[3], bytearray(before[3])
    rows = [bytes(line) for _ in range(len(before[0]) // before[2] // whole)]
    for y in range(height):
        row = bytearray(rows[top - 30 + y])
        row[left + 40:left + 40 + width] = cover[y * width:(y + 1) * width]
        rows[top - 30 + y] = bytes(row)
    grey_png(f"{out}-mask.png", whole, len(rows), rows)
    semblance(COAST, f"{out}-cli.png", "-a", "snow=1", "--mask", f"{out}-mask.png")
    gimp(f"(again \"{out}-cli.png\" \"{out}-wanted.tif\")")
    got = tiff.pixels(f"{out}.tif")
    check("inside a selection: equals the command line's bytes",
          got is not None and got == tiff.pixels(f"{out}-wanted.tif"))
    same = [got[0][at * 3:at * 3 + 3] == before[0][at * 3:at * 3 + 3]
            for at in range(len(got[0]) // 3)]
    flat = b"".join(rows)
    outside = sum(not kept for kept, mask in zip(same, flat) if mask == 0)
    inside = sum(not kept for kept, mask in zip(same, flat) if mask > 0)
    check(f"no pixel outside the selection changed ({inside} inside did)",
          outside == 0 and inside > 3000)


def curves():
    """However the numbers are stored, the colours come out the same; the rest keeps its depth."""
    lines, cases = [], {}
    for precision in ("U16-LINEAR", "FLOAT-LINEAR", "HALF-GAMMA", "U32-GAMMA", "DOUBLE-LINEAR"):
        cases[precision] = f"{OUT}/curve-{precision}.tif"
        lines.append(f"""(let* ((image (opened {quoted(COAST)})))
            (gimp-image-convert-precision image PRECISION-{precision})
            (edit image (active image) "sunset=0.8")
            (gimp-image-convert-precision image PRECISION-U8-GAMMA)
            (save image 0 {quoted(cases[precision])}))""")
    gimp(*lines)
    wanted = tiff.pixels(f"{place('8 bits')}.tif")
    for precision, path in cases.items():
        got = tiff.pixels(path)
        most = max(abs(a - b) for a, b in zip(got[0], wanted[0])) if got else None
        check(f"{precision}: the colours of 8 bits, to {most} of 255", got and most <= 2)


def blending():
    """A copy above a layer that is not opaque blends twice unless the layer below is hidden."""
    out = f"{OUT}/blending"
    gimp(f"""(let* ((image (opened "{OUT}/form-alpha.tif")))
        (edit image (active image) "fog=0")
        (save image 0 "{out}.tif") (save image 1 "{out}-below.tif") (describe image "{out}.txt"))""",
         f"""(let* ((image (opened {quoted(COAST)})) (layer (active image)))
        (gimp-layer-set-opacity layer 60)
        (gimp-layer-set-mode layer LAYER-MODE-MULTIPLY)
        (edit image layer "fog=0.5")
        (describe image "{out}-2.txt"))""",
         f"""(let* ((image (opened {quoted(COAST)})) (layer (active image)))
        (plug-in-semblance-edit RUN-NONINTERACTIVE image layer "sunset=0.8" 0 "" "" 1 1 "" "")
        (gimp-layer-flatten (active image))
        (save image 0 "{out}-visible.tif"))""")
    got = tiff.pixels(f"{out}.tif")
    check("strength 0 keeps every byte", got is not None and got == tiff.pixels(f"{out}-below.tif"))
    check("a translucent original is hidden", [line.split("|")[1] for line in (
        text(f"{out}.txt") or "").splitlines()] == ["visible", "hidden"])
    check("so is one with an opacity and a mode", [line.split("|")[1] for line in (
        text(f"{out}-2.txt") or "").splitlines()] == ["visible", "hidden"])
    got = tiff.pixels(f"{out}-visible.tif")
    check("the visible image is edited like a layer with its pixels",
          got is not None and got == tiff.pixels(f"{place('8 bits')}.tif"))


def refusals():
    """What is refused, and how: the library's texts; nothing is added."""
    def refused(what, change, *wanted):
        out = f"{OUT}/refused.txt"
        if os.path.exists(out):
            os.remove(out)
        said = gimp(f"(let ((image (opened {quoted(COAST)}))) ({change} image (active image)))",
                    f"(describe (vector-ref (cadr (gimp-image-list)) 0) \"{out}\")")
        line = next((line for line in said.splitlines() if "edit failed: " in line), said[-300:])
        check(f"{what} is refused: {line}", all(word in said for word in wanted)
              and len((text(out) or "").splitlines()) == 1)

    out = f"{OUT}/locked.txt"
    gimp(f"""(let* ((image (opened {quoted(COAST)})))
        (gimp-item-set-lock-content (active image) TRUE)
        (edit image (active image) "night=1")
        (describe image "{out}"))""")
    check("a layer whose pixels are locked is edited too", len((text(out) or "").splitlines()) == 2)
    refused("a misspelt attribute", call("sunst=1"), "sunst", "sunset")
    refused("a strength out of range", call("sunset=9"), "-2..=2")
    refused("an attribute without strength", call("sunset"), "NAME=STRENGTH")
    refused("an edit of nothing", call(), "nothing to change")
    refused("a model that is not there", call("night=1", model="/nowhere"), "/nowhere")
    refused("a damaged recipe", call(recipe="{"), "recipe")
    refused("a layer mask", """(lambda (image layer)
        (let* ((mask (car (gimp-layer-create-mask layer ADD-MASK-WHITE))))
          (gimp-layer-add-mask layer mask) (edit image mask "night=1")))""", "not a layer")
    refused("an indexed image", """(lambda (image layer)
        (gimp-image-convert-indexed image CONVERT-DITHER-NONE CONVERT-PALETTE-GENERATE 64 FALSE FALSE "")
        (edit image layer "night=1"))""", "Mode ▸ RGB")


def deaths():
    """What is left of a picture when the library dies, or is killed, in the middle of an edit."""
    out, death = f"{OUT}/death-of", f"{OUT}/death-2.10"
    recipe = json.dumps({"semblance": 1, "attributes": [{"name": "night", "strength": 1}],
                         "steps": 200})  # enough for a middle
    library = {"SEMBLANCE_LIBRARY": f"{OUT}/crashing.so", "SEMBLANCE_DEATH": death,
               "SEMBLANCE_WHOLE": f"{REPO}/target/release/libsemblance.so"}
    image = "(image (vector-ref (cadr (gimp-image-list)) 0))"
    for what, where in (("aborts in the middle of a run", "run 6"),
                        ("meets a bad address in the middle of a run", "run 11"),
                        ("is killed in the middle of a run", "run 9"),
                        ("aborts while it writes the pixels", "render 6")):
        with open(death, "w", encoding="utf-8") as file:
            file.write(where)
        for path in (f"{out}.txt", f"{out}.tif", f"{out}-after.tif", f"{out}.dirty", f"{out}.clean"):
            if os.path.exists(path):
                os.remove(path)
        said = gimp(
            f"(let ((image (opened {quoted(COAST)})))"
            f" (write-text \"{out}.clean\" (car (gimp-image-is-dirty image)))"
            f" ({call(recipe=recipe)} image (active image)))",
            f"(let ({image}) (describe image \"{out}.txt\") (save image 0 \"{out}.tif\")"
            f" (write-text \"{out}.dirty\" (car (gimp-image-is-dirty image))))",
            f"(let ({image}) (file-delete \"{death}\") (edit image (active image) \"sunset=0.8\")"
            f" (save image 0 \"{out}-after.tif\"))", **library)
        check(f"the library {what}: the edit fails", "edit failed" in said.lower())
        check("the picture is as it was",
              (text(f"{out}.txt") or "").splitlines() == ["Background|visible|(0 0)|plain"]
              and tiff.pixels(f"{out}.tif") == tiff.pixels(f"{place('8 bits')}-in.tif")
              and text(f"{out}.dirty") == text(f"{out}.clean") is not None)
        got = tiff.pixels(f"{out}-after.tif")
        check("GIMP goes on", got is not None and got == tiff.pixels(f"{place('8 bits')}.tif"))


for stage in (equality, selection, curves, blending, refusals, deaths):
    try:
        stage()
    except Exception as error:  # the other stages are still worth running
        check(f"{stage.__name__}: ended early: {error!r}", False)
sys.exit(not finished())
