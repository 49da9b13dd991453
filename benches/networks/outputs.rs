//! What each network of a model gives for inputs that somebody else gives others too.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};

use semblance::Latent;
use semblance::job::Cancel;
use semblance::model::{Pipeline, TextEmbedding};
use semblance::nn::native::Native;
use semblance::weights::ModelSource;

/// The text whose embedding is asked for.
const PROMPT: &str = "a photo of a mountain lake, at sunset";

/// Reads `latent` (1 × c × h × w), `words` (1 × length × width) and `picture` (1 × 3 × h × w), f32, from the
/// safetensors file `from`, and writes `text` (of [`PROMPT`]), `U-Net` (at t = 500), `encode` (the mean, scaled) and
/// `decode` to the file `to`.
pub fn write(native: Native, source: &ModelSource, from: &Path, to: &Path) {
    let run = Cancel::new();
    let p = Pipeline::load_on(native, source, &run).unwrap();
    let bytes = std::fs::read(from).unwrap();
    let inputs = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| {
        let tensor = inputs.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        let (words, _) = tensor.data().as_chunks::<4>();
        let data: Vec<f32> = words.iter().map(|w| f32::from_le_bytes(*w)).collect();
        (data, tensor.shape().to_vec())
    };
    let (data, shape) = numbers("latent");
    let [_, channels, height, width] = shape[..] else {
        panic!("latent: {shape:?}");
    };
    let latent = Latent {
        data,
        channels,
        height,
        width,
    };
    let (data, shape) = numbers("words");
    let words = TextEmbedding {
        data,
        length: shape[1],
        width: shape[2],
        dropped: 0,
    };
    let (picture, shape) = numbers("picture");
    let context = p.context(&words).unwrap();
    let predicted = p.unet(&[(&latent, 500.0, &context)], &run).unwrap();
    let encoded = p.vae_encode(&picture, shape[2], shape[3], &run).unwrap();
    let outputs = [
        ("text", p.encode_text(PROMPT, &run).unwrap().data),
        ("U-Net", predicted.into_iter().next().unwrap().data),
        ("encode", encoded.data),
        ("decode", p.vae_decode(&latent, &run).unwrap()),
    ];
    let outputs = outputs.map(|(name, x)| {
        let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        (name, x.len(), bytes)
    });
    let views = outputs.iter().map(|(name, len, bytes)| {
        let view = TensorView::new(Dtype::F32, vec![*len], bytes).unwrap();
        (*name, view)
    });
    serialize_to_file(views, None, to).unwrap();
}
