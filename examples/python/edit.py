#!/usr/bin/env python3
"""One blocking edit of a binary PPM through libsemblance.

    python3 examples/python/edit.py in.ppm out.ppm \\
        '{"semblance": 1, "attributes": [{"name": "sunset", "strength": 0.8}]}'
"""

import argparse
import json
import os
import pathlib
import re
import sys

import semblance

ROOT = pathlib.Path(__file__).resolve().parents[2]


def read_ppm(path):
    data = pathlib.Path(path).read_bytes()
    head = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", data)
    if head is None:
        raise ValueError(f"{path}: is not a binary PPM of 8 bits (P6, 255)")
    width, height = int(head[1]), int(head[2])
    rgb = bytearray(data[head.end():])
    if len(rgb) != width * height * 3 or not rgb:
        raise ValueError(f"{path}: {len(rgb)} bytes of pixels, must be {width * height * 3}")
    return width, height, rgb


def show(phase, fraction):
    print(f"\r{fraction:4.0%} {phase:8}", end="", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("recipe", help="JSON, as semblance.h describes it")
    parser.add_argument("model", nargs="?", help="folder of a model; the embedded one if absent")
    parser.add_argument("--library", default=os.environ.get(
        "SEMBLANCE_LIBRARY", ROOT / "target/release/libsemblance.so"))
    args = parser.parse_args()
    try:
        recipe = json.loads(args.recipe)
        width, height, rgb = read_ppm(args.input)
        api = semblance.load(str(args.library))
        options = {"model_folder": args.model} if args.model else {}
        with semblance.Engine(api, **options) as engine:
            layer = semblance.pixels(rgb, width, height)
            report, _ = engine.edit(layer, recipe, progress=show)
        print(file=sys.stderr)
        pathlib.Path(args.output).write_bytes(b"P6\n%d %d\n255\n" % (width, height) + rgb)
        print(report)
    except (semblance.Error, OSError, ValueError) as error:
        sys.exit(f"\n{error}")


if __name__ == "__main__":
    main()
