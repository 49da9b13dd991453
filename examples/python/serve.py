#!/usr/bin/env python3
"""One edit of a binary PPM by `semblance serve`, which keeps the model out of this process.

    python3 examples/python/serve.py in.ppm out.ppm \\
        '{"semblance": 1, "attributes": [{"name": "sunset", "strength": 0.8}]}' --preview small.ppm

Needs nothing but the command: any program that starts processes can do the same. With --preview it
works as a window does: run once, show the result small, then put it onto the picture. The protocol is
what `semblance help serve` prints.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from edit import ROOT, read_ppm, show

REDUCED = 4  # a preview has every fourth pixel of every fourth row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("recipe", help="JSON, as semblance.h describes it")
    parser.add_argument("model", nargs="?", help="folder of a model; the embedded one if absent")
    parser.add_argument("--preview", help="a PPM for the result at a quarter of the size")
    parser.add_argument("--semblance", default=str(ROOT / "target/release/semblance"))
    args = parser.parse_args()
    width, height, rgb = read_ppm(args.input)
    command = [args.semblance, "serve", "--stdio"] + (["--model", args.model] if args.model else [])
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    # A named temporary file has mode 600, which the command asks for.
    with tempfile.NamedTemporaryFile(dir=memory) as shared, subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        hello = json.loads(server.stdout.readline())
        if hello.get("serve") != 1:
            sys.exit(hello["error"]["message"] if "error" in hello else f"not protocol 1: {hello}")

        def onto(pixels, width, height, **request):
            """These pixels and the answer, after a request that edits them."""
            shared.seek(0)
            shared.write(pixels)
            shared.flush()
            answer = ask(server, file=shared.name,
                         layer={"width": width, "height": height, "order": "rgb"}, **request)
            shared.seek(0)
            return shared.read(len(pixels)), answer

        recipe = json.loads(args.recipe)
        if args.preview:
            _, answer = onto(rgb, width, height, id=1, do="preview", recipe=recipe)
            small = [rgb[3 * (y * width + x):][:3] for y in range(0, height, REDUCED)
                     for x in range(0, width, REDUCED)]
            size = -(-width // REDUCED), -(-height // REDUCED)
            whole = {"x": 0, "y": 0, "width": width, "height": height}
            small, _ = onto(b"".join(small), *size, id=2, do="render", of=1, part=whole)
            write_ppm(args.preview, *size, small)
            rgb, _ = onto(rgb, width, height, id=3, do="render", of=1)
        else:
            rgb, answer = onto(rgb, width, height, id=1, do="edit", recipe=recipe)
        server.stdin.close()  # the end of its input is the end of the server
    print(file=sys.stderr)
    write_ppm(args.output, width, height, rgb)
    print(answer["report"])


def ask(server, **request):
    """What is answered to a request; ends the program where that is a failure."""
    print(json.dumps(request), file=server.stdin, flush=True)
    for line in server.stdout:
        answer = json.loads(line)
        if "ok" not in answer:
            show(answer["phase"], answer["fraction"])
        elif answer["ok"]:
            return answer["answer"]
        else:
            sys.exit(f"\n{answer['error']['message']} ({answer['error']['hint']})")
    sys.exit("the server ended without an answer")


def write_ppm(path, width, height, rgb):
    pathlib.Path(path).write_bytes(b"P6\n%d %d\n255\n" % (width, height) + rgb)


if __name__ == "__main__":
    main()
