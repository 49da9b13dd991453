#!/usr/bin/env python3
"""One edit of a binary PPM by `semblance serve`, which keeps the model out of this process.

    python3 examples/python/serve.py in.ppm out.ppm \\
        '{"semblance": 1, "attributes": [{"name": "sunset", "strength": 0.8}]}'

Needs nothing but the command: any program that starts processes can do the same. The protocol is what
`semblance help serve` prints.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from edit import ROOT, read_ppm, show


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("recipe", help="JSON, as semblance.h describes it")
    parser.add_argument("model", nargs="?", help="folder of a model; the embedded one if absent")
    parser.add_argument("--semblance", default=str(ROOT / "target/release/semblance"))
    args = parser.parse_args()
    width, height, rgb = read_ppm(args.input)
    command = [args.semblance, "serve", "--stdio"] + (["--model", args.model] if args.model else [])
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    # A named temporary file has mode 600, which the command asks for.
    with tempfile.NamedTemporaryFile(dir=memory) as shared:
        shared.write(rgb)
        shared.flush()
        with subprocess.Popen(command, text=True, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as server:
            hello = json.loads(server.stdout.readline())
            if hello.get("serve") != 1:
                sys.exit(hello["error"]["message"] if "error" in hello else f"not protocol 1: {hello}")
            request = {"id": 1, "do": "edit", "file": shared.name, "recipe": json.loads(args.recipe),
                       "layer": {"width": width, "height": height, "order": "rgb"}}
            print(json.dumps(request), file=server.stdin, flush=True)
            for line in server.stdout:
                answer = json.loads(line)
                if "ok" in answer:
                    break
                show(answer["phase"], answer["fraction"])
            server.stdin.close()  # the end of its input is the end of the server
        if not answer["ok"]:
            sys.exit(f"\n{answer['error']['message']} ({answer['error']['hint']})")
        print(file=sys.stderr)
        shared.seek(0)
        rgb = shared.read()
    pathlib.Path(args.output).write_bytes(b"P6\n%d %d\n255\n" % (width, height) + rgb)
    print(answer["answer"]["report"])


if __name__ == "__main__":
    main()
