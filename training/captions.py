"""The words of the model: prompts, opposites and the tokenizer.

Mirrors tools/atelier/src/caption.rs. The tokenizer is CLIP's (lower case, byte-level BPE, `</w>` on last pieces) with a
vocabulary of its own: 256 bytes, the same as word ends, and merges that make every word of WORDS one token, so that an
unknown word still tokenises, into letters.
"""
import json
import os

from data import ATTRS

MAX = 32
NEUTRAL = "a photo of a landscape"
PREFIXES = ("a photo of ", "a picture of ", "")
PLACES = {
    "lake": "a mountain lake", "hills": "rolling hills", "coast": "a sea coast", "fields": "fields",
    "desert": "desert dunes", "forest": "a forest", "town": "a small town",
}
PHRASES = {
    "sunset": ("at sunset", "with a sunset sky"), "night": ("at night", "at night, under the stars"),
    "snow": ("covered in snow", "in winter, with snow"), "fog": ("in fog", "in thick fog"),
    "autumn": ("in autumn", "with autumn colors"), "overcast": ("under an overcast sky", "on a cloudy day"),
    "rain": ("in the rain", "on a rainy day"),
}
CLEAR = ("on a clear day", "in summer", "in daylight")
# what takes an attribute away: the `opposite` of each
OPPOSITES = {
    "sunset": "in daylight", "night": "in daylight", "snow": "in summer", "fog": "on a clear day",
    "autumn": "in summer", "overcast": "on a clear day", "rain": "on a clear day",
}
assert tuple(PHRASES) == ATTRS
# words of no caption that people type: whole in the vocabulary, for whoever trains on; this model never sees them,
# which the tokenizer's configuration says as `untrained_words`
OTHER = """the of and image painting view scene lake mountains hill beach ocean river tree trees house houses street city
road cloud clouds sunny sun moon light dark bright warm cold mist misty haze snowy winter spring green golden blue red
evening morning dusk dawn storm wet dry grass leaves water rocks sand desert village countryside meadow wood photograph"""


def caption_words():
    text = " ".join([*PREFIXES, NEUTRAL, *PLACES.values(), *(p for v in PHRASES.values() for p in v), *CLEAR])
    return set(text.replace(",", " ").split())


def untrained_words():
    return sorted(set(OTHER.split()) - caption_words())


def words():
    return sorted(caption_words() | set(OTHER.split()))


def make_tokenizer(folder):
    """Write vocab.json, merges.txt, tokenizer.json and the two configs; return a callable text -> ids, padded to MAX."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = list(pre_tokenizers.ByteLevel.alphabet())
    letters.sort()
    merges, have = [], set()
    pieces = {w: list(w[:-1]) + [w[-1] + "</w>"] for w in words()}
    while True:  # plain BPE, the most frequent pair first, until each word is one piece
        count = {}
        for p in pieces.values():
            for ab in zip(p, p[1:]):
                count[ab] = count.get(ab, 0) + 1
        if not count:
            break
        best = max(sorted(count), key=count.get)
        merges.append(best)
        for w, p in pieces.items():
            out, i = [], 0
            while i < len(p):
                if i + 1 < len(p) and (p[i], p[i + 1]) == best:
                    out.append(p[i] + p[i + 1])
                    i += 2
                else:
                    out.append(p[i])
                    i += 1
            pieces[w] = out
    names = letters + [c + "</w>" for c in letters]
    have = set(names)
    for a, b in merges:
        if a + b not in have:
            have.add(a + b)
            names.append(a + b)
    bos, eos = "<|startoftext|>", "<|endoftext|>"
    names += [bos, eos]
    vocab = {n: i for i, n in enumerate(names)}
    os.makedirs(folder, exist_ok=True)
    put = lambda name, x: json.dump(x, open(f"{folder}/{name}", "w"), ensure_ascii=False, indent=None if name == "vocab.json" else 2)
    put("vocab.json", vocab)
    with open(f"{folder}/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    put("special_tokens_map.json", {"bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": eos})
    put("tokenizer_config.json", {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": MAX, "do_lower_case": True, "add_prefix_space": False,
        "errors": "replace", "bos_token": bos, "eos_token": eos, "unk_token": eos, "pad_token": eos,
        "untrained_words": untrained_words(),
    })
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token=eos, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    split = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.RobertaProcessing((eos, vocab[eos]), (bos, vocab[bos]), add_prefix_space=False, trim_offsets=False)
    t.add_special_tokens([bos, eos])
    t.save(f"{folder}/tokenizer.json")
    return tokenizer(folder)


def tokenizer(folder):
    from tokenizers import Tokenizer

    t = Tokenizer.from_file(f"{folder}/tokenizer.json")
    eos = t.token_to_id("<|endoftext|>")
    t.enable_truncation(MAX)
    t.enable_padding(length=MAX, pad_id=eos, pad_token="<|endoftext|>")
    return lambda texts: [e.ids for e in t.encode_batch(list(texts))]


if __name__ == "__main__":
    import sys

    tok = make_tokenizer(sys.argv[1])
    bad = [w for w, i in zip(words(), tok(words())) if i[2] != i[-1]]
    n = len(json.load(open(f"{sys.argv[1]}/vocab.json")))
    print(n, "tokens,", len(words()), "words, not whole:", bad, tok(["A photo of a Landscape, at sunset zebra 12!"]))
    from transformers import CLIPTokenizer

    c = CLIPTokenizer.from_pretrained(sys.argv[1])
    for s in ("A photo of a  landscape, at sunset zebra 12!", "", "naïve café’s 日本"):
        print(c(s, padding="max_length", truncation=True).input_ids == tok([s])[0], c.model_max_length)
