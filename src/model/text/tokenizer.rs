//! CLIP's tokenizer: lower case, words and single digits, byte-pair pieces.
//!
//! For: texts to ids as transformers' `CLIPTokenizer` gives them, padded; which words a small model
//! never learned. Not for: any other tokenizer. From `tokenizer.json` only vocabulary, merges are
//! taken: its patterns could be made to take for ever.

use serde_json::{Value, json};

use crate::error::{Code, Error, Result};
use crate::weights::{Config, MAX_TOKENIZER_BYTES, ModelSource};

/// Bytes of a text; a model reads a few hundred. Stops a text that keeps the tokenizer busy.
const MAX_TEXT_BYTES: usize = 1 << 14;

/// Pieces in a vocabulary from which on a word in several pieces says nothing: CLIP's own 49,408
/// compose meanings from pieces; a vocabulary of a few thousand holds its words whole.
const LARGE_VOCABULARY: usize = 16384;

/// A text as ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenized {
    /// Start, the text's pieces, end, padding: as many as the model takes.
    pub ids: Vec<u32>,
    /// Place of the end token.
    pub end: usize,
    /// Pieces that did not fit.
    pub dropped: usize,
}

/// The tokenizer of one model.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    start: u32,
    end: u32,
    pad: u32,
    length: usize,
    vocabulary: usize,
    untrained: Vec<String>,
}

impl Tokenizer {
    /// Reads `tokenizer/` for a text encoder that takes `length` tokens.
    pub fn load(source: &ModelSource, length: usize) -> Result<Self> {
        let read = |name: &str| source.read(&format!("tokenizer/{name}"), MAX_TOKENIZER_BYTES);
        let bad = |name: &str, what: String| {
            let place = source.describe(&format!("tokenizer/{name}"));
            Error::new(Code::InvalidModel, format!("{place}: {what}"))
        };
        let (vocab, merges, place) = if source.has("tokenizer/tokenizer.json") {
            let place = "tokenizer.json";
            let mut whole: Value =
                serde_json::from_slice(&read(place)?).map_err(|e| bad(place, e.to_string()))?;
            let model = whole.get_mut("model").map(Value::take).unwrap_or_default();
            if model.get("type").is_some_and(|t| t != "BPE") {
                return Err(bad(place, "not a byte-pair tokenizer".into()));
            }
            let part = |key: &str| model.get(key).cloned().unwrap_or_default();
            let mut vocab = part("vocab");
            // Older files have the special tokens here only.
            for added in whole
                .get("added_tokens")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                if let (Some(vocab), Some(text), Some(id)) = (
                    vocab.as_object_mut(),
                    added.get("content").and_then(Value::as_str),
                    added.get("id"),
                ) {
                    vocab.insert(text.to_owned(), id.clone());
                }
            }
            (vocab, part("merges"), place)
        } else {
            let place = "vocab.json";
            let vocab: Value =
                serde_json::from_slice(&read(place)?).map_err(|e| bad(place, e.to_string()))?;
            let text = String::from_utf8(read("merges.txt")?)
                .map_err(|e| bad("merges.txt", e.to_string()))?;
            let merges: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with("#version") && !line.is_empty())
                .collect();
            (vocab, json!(merges), place)
        };
        let id = |token: &str| {
            vocab
                .get(token)
                .and_then(Value::as_u64)
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| bad(place, format!("no token {token:?}")))
        };
        let vocabulary = vocab.as_object().map_or(0, |v| v.len());
        let special = Special::read(source)?;
        let (start, end, pad) = (id(&special.start)?, id(&special.end)?, id(&special.pad)?);
        // The padding is special too: Stable Diffusion 2's "!" is id 0 wherever a text has it.
        let mut added = vec![(&special.start, start), (&special.end, end)];
        if pad != end && pad != start {
            added.push((&special.pad, pad));
        }
        added.sort_by_key(|(_, id)| *id);
        let added: Vec<Value> = added
            .into_iter()
            .map(|(content, id)| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let whole = json!({
            "version": "1.0",
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "NFC"},
                {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
                {"type": "Lowercase"}]},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "behavior": "Removed", "invert": true, "pattern": {"Regex":
                    "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
            "post_processor": null,
            "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": special.end,
                "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
                "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges},
        });
        let inner: tokenizers::Tokenizer =
            serde_json::from_value(whole).map_err(|e| bad(place, e.to_string()))?;
        Ok(Tokenizer {
            inner,
            start,
            end,
            pad,
            length: length.min(special.length).max(2),
            vocabulary,
            untrained: special.untrained,
        })
    }

    fn encode(&self, text: &str) -> Result<tokenizers::Encoding> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::new(
                Code::InvalidParameter,
                format!("a text of {} bytes: at most {MAX_TEXT_BYTES}", text.len()),
            )
            .with_hint("models read a sentence or two"));
        }
        self.inner
            .encode(text, false)
            .map_err(|e| Error::new(Code::Internal, format!("tokenizer: {e}")))
    }

    /// `text` as ids, cut and padded to what the text encoder takes.
    pub fn ids(&self, text: &str) -> Result<Tokenized> {
        let encoding = self.encode(text)?;
        let pieces = encoding.get_ids();
        let kept = pieces.len().min(self.length - 2);
        let mut ids = Vec::with_capacity(self.length);
        ids.push(self.start);
        ids.extend(pieces.iter().take(kept));
        ids.push(self.end);
        ids.resize(self.length, self.pad);
        // As transformers has it: the first, which a text may bring itself.
        let end = ids.iter().position(|id| *id == self.end);
        Ok(Tokenized {
            ids,
            end: end.unwrap_or(kept + 1),
            dropped: pieces.len() - kept,
        })
    }

    /// The words of `text` that the model never learned, in lower case and each once: those that its
    /// configuration lists as `untrained_words`, and those that fall into pieces, unless the
    /// vocabulary is large and its pieces carry meaning.
    pub fn unknown_words(&self, text: &str) -> Result<Vec<String>> {
        let whole = self.vocabulary < LARGE_VOCABULARY;
        let mut unknown: Vec<String> = Vec::new();
        for word in text.split(|c: char| !c.is_alphabetic()) {
            let word = word.to_lowercase();
            let learned =
                !self.untrained.contains(&word) && (!whole || self.encode(&word)?.len() <= 1);
            if !learned && !unknown.contains(&word) {
                unknown.push(word);
            }
        }
        Ok(unknown)
    }
}

/// The special tokens, the length and the words never trained on, from tokenizer_config.json, with
/// CLIP's own as default.
struct Special {
    start: String,
    end: String,
    pad: String,
    length: usize,
    untrained: Vec<String>,
}

impl Special {
    fn read(source: &ModelSource) -> Result<Self> {
        let path = "tokenizer/tokenizer_config.json";
        let config = match source.has(path) {
            true => Some(Config::read(source, path)?),
            false => None,
        };
        let map = "tokenizer/special_tokens_map.json";
        let map = match source.has(map) {
            true => Some(Config::read(source, map)?),
            false => None,
        };
        let token = |key: &str, default: &str| {
            [&config, &map]
                .into_iter()
                .flatten()
                .find_map(|file| {
                    let value = file.get(key)?;
                    value.as_str().or_else(|| value.get("content")?.as_str())
                })
                .unwrap_or(default)
                .to_owned()
        };
        let length = config
            .as_ref()
            .and_then(|c| c.get("model_max_length")?.as_u64())
            .map_or(usize::MAX, |n| n as usize);
        let untrained = config
            .as_ref()
            .and_then(|c| c.get("untrained_words")?.as_array())
            .into_iter()
            .flatten()
            .filter_map(|word| Some(word.as_str()?.to_lowercase()))
            .collect();
        Ok(Special {
            untrained,
            start: token("bos_token", "<|startoftext|>"),
            end: token("eos_token", "<|endoftext|>"),
            pad: token("pad_token", "<|endoftext|>"),
            length,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn words_in_pieces_and_words_that_the_configuration_lists_were_never_learned() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("tokenizer");
        std::fs::create_dir(&place).unwrap();
        let write = |name: &str, text: &str| std::fs::write(place.join(name), text).unwrap();
        let vocab = r#"{"a":0,"b":1,"a</w>":2,"b</w>":3,"ab</w>":4,"bb</w>":5,
            "<|startoftext|>":6,"<|endoftext|>":7}"#;
        write("vocab.json", vocab);
        write("merges.txt", "#version: 0.2\na b</w>\nb b</w>\n");
        let source = ModelSource::Directory(folder.path().into());
        let unknown = || {
            let tokenizer = Tokenizer::load(&source, 8).unwrap();
            tokenizer.unknown_words("AB, bb ba bb a").unwrap()
        };
        write("tokenizer_config.json", "{}");
        assert_eq!(unknown(), ["ba"]);
        write("tokenizer_config.json", r#"{"untrained_words": ["Bb", 3]}"#);
        assert_eq!(unknown(), ["bb", "ba"]);
    }
}
