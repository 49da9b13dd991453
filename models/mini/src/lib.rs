//! The embedded model, as bytes: a small Stable Diffusion pipeline in diffusers layout, trained by `training/`.
//!
//! For the engine's feature `embedded-model`. Not a loader: it knows paths and bytes, nothing of what they mean.
//! `image_encoder/` lies beside the other parts in the repository and is not embedded: no edit reads it.

/// Forces the alignment of what it wraps, so that weights can be read in place.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, {
            static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!("../", $path)));
            &FILE.0
        })),*]
    };
}

/// Every embedded file: its path inside the pipeline folder (`unet/config.json`) and its bytes, which start at a
/// multiple of 64. Sorted by path.
pub static FILES: &[(&str, &[u8])] = files![
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The bytes of one file, by its path inside the pipeline folder.
pub fn file(path: &str) -> Option<&'static [u8]> {
    FILES
        .binary_search_by(|(p, _)| (*p).cmp(path))
        .ok()
        .and_then(|i| FILES.get(i))
        .map(|(_, bytes)| *bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_file_is_found_by_its_path_and_starts_at_a_multiple_of_64() {
        for (path, bytes) in FILES {
            assert_eq!(file(path).unwrap(), *bytes);
            assert_eq!(bytes.as_ptr() as usize % 64, 0, "{path}");
        }
        assert!(file("unet").is_none());
    }

    #[test]
    fn weights_are_safetensors_of_less_than_40_megabytes_in_all() {
        let weights: Vec<_> = FILES
            .iter()
            .filter(|(path, _)| path.ends_with(".safetensors"))
            .collect();
        assert_eq!(weights.len(), 3);
        for (path, bytes) in weights {
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert!(header < 200_000 && bytes[8] == b'{', "{path}");
        }
        assert!(FILES.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() < 40_000_000);
    }
}
