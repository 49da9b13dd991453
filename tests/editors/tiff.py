"""The samples of TIFF files as GIMP 2.10 and the command line write them, without a library."""

import os
import struct

SAMPLES = {(8, 1): "B", (16, 1): "H", (32, 1): "I", (32, 3): "f"}


def pixels(path):
    """(the samples of an uncompressed TIFF, their type, channels, width), or None without a file."""
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        data = file.read()
    end = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(end + "I", data, 4)
    tags = {}
    for entry in range(struct.unpack_from(end + "H", data, at)[0]):
        tag, kind, count, value = struct.unpack_from(end + "HHI4s", data, at + 2 + 12 * entry)
        code = {3: "H", 4: "I"}.get(kind)
        if code is not None:
            size = struct.calcsize(code) * count
            where = value if size <= 4 else data[struct.unpack(end + "I", value)[0]:][:size]
            tags[tag] = struct.unpack_from(f"{end}{count}{code}", where)
    raw = b"".join(data[o:o + n] for o, n in zip(tags[273], tags[279]))
    kind = SAMPLES[tags[258][0], tags.get(339, (1,))[0]]
    return memoryview(raw).cast(kind), kind, tags[277][0], tags[256][0]


def drop_profile(path):
    """Takes the profile out of a TIFF: GIMP writes its own sRGB into those of images without one."""
    with open(path, "r+b") as file:
        data = file.read()
        end = "<" if data[:2] == b"II" else ">"
        (at,) = struct.unpack_from(end + "I", data, 4)
        (count,) = struct.unpack_from(end + "H", data, at)
        entries = [data[at + 2 + 12 * n:][:12] for n in range(count)]
        kept = [entry for entry in entries if struct.unpack(end + "H", entry[:2])[0] != 34675]
        file.seek(at)
        file.write(struct.pack(end + "H", len(kept)) + b"".join(kept) + bytes(4))
