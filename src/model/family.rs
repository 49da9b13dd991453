//! The pipeline: the networks of one model, their tokenizer and their schedule, as the engine uses
//! them.
//!
//! For: loading (once per process, shared), text, latents and predictions as plain numbers. Not for:
//! sampling (`diffusion`). Families: Stable Diffusion 1.x and 2.x and whatever has their shape, the
//! embedded model among them.

use std::sync::Arc;

use super::build::Builder;
use super::text::Tokenizer;
use super::text::clip::{ClipText, ClipTextConfig};
use super::unet::{Prediction, TextKeys, UNet, UNetConfig};
use super::vae::{Vae, VaeConfig};
use crate::diffusion::{Latent, Schedule, ScheduleConfig};
use crate::error::{Code, Error, Result};
use crate::job::Cancel;
use crate::limits::MAX_GRID_SIDE;
use crate::nn::native::Native;
use crate::nn::{Count, Ops, Several, Shape};
use crate::weights::{self, Kept, Layout, ModelSource, Packs};

/// Side of the square pictures that a model may be trained at, pixels: its 2:1 pictures keep within
/// [`MAX_GRID_SIDE`]. Stops: a file whose sizes to choose from are millions.
const MAX_NATIVE_SIZE: usize = MAX_GRID_SIDE as usize / 2;

/// A text as the U-Net's cross-attention sees it: `length × width` numbers, token by token.
#[derive(Clone, Debug, PartialEq)]
pub struct TextEmbedding {
    /// The numbers.
    pub data: Vec<f32>,
    /// Tokens, padding included.
    pub length: usize,
    /// Numbers per token.
    pub width: usize,
    /// Pieces of the text that were cut off because it is too long.
    pub dropped: usize,
}

/// A text's (or a mix of texts') keys and values in every cross-attention layer: what a prediction
/// takes. Cheap to clone.
#[derive(Debug)]
pub struct Context<O: Ops = Native>(TextKeys<O::Tensor>);

impl<O: Ops> Clone for Context<O> {
    fn clone(&self) -> Self {
        Context(self.0.clone())
    }
}

/// A size that the model works at, in picture pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// What a model's configuration says of it, weights unread: enough to choose a picture size and to
/// forecast the memory.
#[derive(Clone, Debug)]
pub struct Outline {
    name: String,
    unet: UNetConfig,
    vae: VaeConfig,
    text: ClipTextConfig,
    schedule: ScheduleConfig,
    numbers: Count,
}

impl Outline {
    /// Reads the configuration of the model at `source`, and the headers of its weights.
    ///
    /// Errors as [`Pipeline::load`].
    pub fn read(source: &ModelSource) -> Result<Outline> {
        Self::of(&Layout::open(source)?)
    }

    fn of(layout: &Layout) -> Result<Outline> {
        check_family(layout)?;
        let outline = Outline {
            name: layout.source().name(),
            unet: UNetConfig::read(&layout.config("unet")?)?,
            vae: VaeConfig::read(&layout.config("vae")?)?,
            text: ClipTextConfig::read(&layout.config("text_encoder")?)?,
            schedule: layout.scheduler()?,
            numbers: numbers(layout)?,
        };
        let file = layout.source().describe("scheduler/scheduler_config.json");
        Schedule::new(&outline.schedule).map_err(|e| {
            let (code, hint) = (e.code(), e.hint().to_owned());
            let what = e
                .message()
                .strip_prefix("scheduler: ")
                .unwrap_or(e.message());
            Error::new(code, format!("{file}: {what}")).with_hint(hint)
        })?;
        let native = outline.native_size();
        if native > MAX_NATIVE_SIZE {
            return Err(Error::new(
                Code::InvalidModel,
                format!(
                    "{}: unet sample_size = {}: pictures of {native} pixels, must be at most {MAX_NATIVE_SIZE}",
                    outline.name, outline.unet.sample_size
                ),
            )
            .with_hint("Stable Diffusion has 64 or 96"));
        }
        let (unet, vae, text) = (&outline.unet, &outline.vae, &outline.text);
        let fits = [
            (
                "unet in_channels",
                unet.in_channels,
                "vae latent_channels",
                vae.latent_channels,
            ),
            (
                "unet out_channels",
                unet.out_channels,
                "vae latent_channels",
                vae.latent_channels,
            ),
            (
                "unet cross_attention_dim",
                unet.text_width,
                "text_encoder hidden_size",
                text.width,
            ),
        ];
        for (a, x, b, y) in fits {
            if x != y {
                return Err(Error::new(
                    Code::UnsupportedModel,
                    format!("{}: {a} = {x} and {b} = {y}: must be equal", outline.name),
                )
                .with_hint("inpainting and depth models do not run; take the plain one"));
            }
        }
        Ok(outline)
    }

    /// The model's name for people: its folder's, or `mini`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The family that attributes may serve: `sd1`, `sd2`, or `mini` for the embedded model and
    /// whatever else paints such small pictures.
    pub fn family(&self) -> &'static str {
        match (self.native_size(), self.unet.text_width) {
            (..=128, _) => "mini",
            (_, 768) => "sd1",
            (_, 1024) => "sd2",
            _ => "sd",
        }
    }

    /// The noise levels that the model was trained on.
    pub fn schedule(&self) -> &ScheduleConfig {
        &self.schedule
    }

    /// Channels of a latent.
    pub fn latent_channels(&self) -> usize {
        self.vae.latent_channels
    }

    /// Picture pixels per latent pixel, in each direction.
    pub fn vae_factor(&self) -> usize {
        self.vae.factor()
    }

    /// The picture size that the model was trained at, square.
    pub fn native_size(&self) -> usize {
        self.unet.sample_size.saturating_mul(self.vae_factor())
    }

    /// The sizes that the model works well at: sides a multiple of what its coarsest level needs
    /// (32 pixels for the embedded model), 0.9 to 1.25 times the native area, at most 2:1.
    pub fn grids(&self) -> Vec<Grid> {
        let unit = self.vae_factor() << (self.unet.levels.len() - 1);
        let native = self.native_size();
        let area = native * native;
        let sides = || (1..=2 * native / unit).map(move |k| k * unit);
        let mut grids: Vec<Grid> = sides()
            .flat_map(|height| sides().map(move |width| Grid { width, height }))
            .filter(|g| g.width <= 2 * g.height && g.height <= 2 * g.width)
            .filter(|g| {
                let own = g.width * g.height;
                10 * own >= 9 * area && 4 * own <= 5 * area
            })
            .collect();
        if grids.is_empty() {
            grids.push(Grid {
                width: native,
                height: native,
            });
        }
        grids
    }

    /// Bytes of the weights once they are loaded on `ops`, from their headers alone: an estimate from above.
    pub fn weight_bytes(&self, ops: &impl Ops) -> u64 {
        ops.weight_bytes(self.numbers)
    }

    /// Bytes that one prediction, encoding or decoding at `grid` takes at its peak, besides the
    /// weights: an estimate from above. `batch` is the number of latents in one prediction.
    pub fn work_bytes(&self, grid: Grid, batch: usize) -> u64 {
        let pixels = (grid.width * grid.height) as u64;
        let channels = &self.vae.channels;
        // The decoder's widest maps are those of the first two levels at the picture's full size:
        // input, norm, convolution, residual, and the gathered tiles of both threads.
        let wide = channels.iter().take(2).max().copied().unwrap_or(1) as u64;
        let vae = pixels * wide * 4 * 5;
        let unet = &self.unet;
        let factor = (self.vae_factor() * self.vae_factor()) as u64;
        let skips: u64 = unet
            .levels
            .iter()
            .enumerate()
            .map(|(i, l)| ((l.channels * (unet.layers + 4)) as u64 * (pixels / factor)) >> (2 * i))
            .sum();
        let gathered = unet.levels.iter().map(|l| l.channels).max().unwrap_or(1) as u64 * 18;
        let unet = 4 * batch as u64 * (skips * 3 + gathered * pixels / factor);
        vae.max(unet) + (32 << 20)
    }
}

/// A loaded model, on the backend `O`.
pub struct Pipeline<O: Ops = Native> {
    outline: Outline,
    hash: String,
    ops: O,
    tokenizer: Tokenizer,
    text: ClipText<O>,
    unet: UNet<O>,
    vae: Vae<O>,
    kept: Kept,
}

impl<O: Ops> std::fmt::Debug for Pipeline<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("name", &self.outline.name)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// The model at `source` on the CPU path that [`Cpu::detect`] gives: the one already loaded in
    /// this process, or a new one.
    ///
    /// Errors as [`Pipeline::load_on`], and [`Code::InvalidParameter`] for a path that is not here.
    pub fn load(source: &ModelSource, cancel: &Cancel) -> Result<Arc<Pipeline>> {
        Self::load_on(Native::detect()?, source, cancel)
    }
}

impl<O: Ops + 'static> Pipeline<O> {
    /// The model at `source` on the backend `ops`: the one already loaded in this process, on a
    /// backend of the same kind, or a new one.
    ///
    /// Errors: [`Code::ModelNotFound`] without model_index.json, [`Code::UnsupportedModel`] for a
    /// class or option that does not run, [`Code::InvalidModel`] for damaged files,
    /// [`Code::Cancelled`].
    pub fn load_on(ops: O, source: &ModelSource, cancel: &Cancel) -> Result<Arc<Pipeline<O>>> {
        Self::load_kept(ops, source, &Packs::off(), cancel)
    }

    /// As [`Pipeline::load_on`], with the weights as they are kept packed in `packs`, or kept there for
    /// the next time.
    pub fn load_kept(
        ops: O,
        source: &ModelSource,
        packs: &Packs,
        cancel: &Cancel,
    ) -> Result<Arc<Pipeline<O>>> {
        let layout = Layout::open(source)?;
        check_family(&layout)?;
        weights::shared(&ops.name(), layout.stamps()?, cancel, || {
            Self::build(ops, &layout, packs, cancel).map(Arc::new)
        })
    }

    fn build(ops: O, layout: &Layout, packs: &Packs, cancel: &Cancel) -> Result<Pipeline<O>> {
        let outline = Outline::of(layout)?;
        let tokenizer = Tokenizer::load(layout.source(), outline.text.length)?;
        let stamps = layout.stamps()?;
        let size = outline.weight_bytes(&ops);
        let hash = packs.hash(layout, size, cancel)?;
        let pack = packs.open(layout, size, &hash, &ops, cancel)?;
        let text = {
            let file = layout.tensors("text_encoder")?;
            let b = Builder::new(&ops, &file, cancel).kept_in(&pack, "text_encoder");
            ClipText::new(&b, outline.text.clone())?
        };
        let vae = {
            let file = layout.tensors("vae")?;
            let b = Builder::new(&ops, &file, cancel).kept_in(&pack, "vae");
            Vae::new(&b, outline.vae.clone())?
        };
        let unet = {
            let file = layout.tensors("unet")?;
            let b = Builder::new(&ops, &file, cancel).kept_in(&pack, "unet");
            UNet::new(&b, outline.unet.clone())?
        };
        let unchanged = layout.stamps()? == stamps;
        Ok(Pipeline {
            outline,
            hash,
            ops,
            tokenizer,
            text,
            unet,
            vae,
            kept: pack.finish(unchanged),
        })
    }

    /// What became of the file of packed weights.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// What its configuration says.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// The model's name for people: its folder's, or `mini`.
    pub fn name(&self) -> &str {
        &self.outline.name
    }

    /// Channels of a latent.
    pub fn latent_channels(&self) -> usize {
        self.outline.latent_channels()
    }

    /// Picture pixels per latent pixel, in each direction.
    pub fn vae_factor(&self) -> usize {
        self.outline.vae_factor()
    }

    /// The model's identity: BLAKE3 over its files, in hexadecimal.
    pub fn model_hash(&self) -> &str {
        &self.hash
    }

    /// What latents are multiplied with after encoding.
    pub fn vae_scaling_factor(&self) -> f64 {
        self.vae.config().scaling_factor
    }

    /// The backend that the weights were made for.
    pub fn ops(&self) -> &O {
        &self.ops
    }

    /// The U-Net, for readings other than plain values: [`crate::nn::tape`], [`crate::nn::dual`].
    pub fn unet_network(&self) -> &UNet<O> {
        &self.unet
    }

    /// The text tower, for readings other than plain values.
    pub fn text_network(&self) -> &ClipText<O> {
        &self.text
    }

    /// The U-Net's configuration.
    pub fn unet_config(&self) -> &UNetConfig {
        self.unet.config()
    }

    /// Encodes a text; a longer one than the model takes is cut, see [`TextEmbedding::dropped`].
    pub fn encode_text(&self, text: &str, cancel: &Cancel) -> Result<TextEmbedding> {
        let tokens = self.tokenizer.ids(text)?;
        let forward = || self.text.forward(&self.ops, &[&tokens.ids], cancel);
        let hidden = self.ops.awake(forward)?;
        Ok(TextEmbedding {
            data: self.ops.numbers(&hidden)?,
            length: tokens.ids.len(),
            width: self.text.config().width,
            dropped: tokens.dropped,
        })
    }

    /// A text's ids, as the text encoder is given them.
    pub fn token_ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.ids(text)?.ids)
    }

    /// A text's place in the space that texts and pictures share, not normalised; `None` when the
    /// model has no projection.
    pub fn project_text(&self, text: &str, cancel: &Cancel) -> Result<Option<Vec<f32>>> {
        let tokens = self.tokenizer.ids(text)?;
        let hidden = self.text.forward(&self.ops, &[&tokens.ids], cancel)?;
        let place = self.text.project(&self.ops, &hidden, tokens.end)?;
        place.map(|x| self.ops.numbers(&x)).transpose()
    }

    /// The words of `text` that the model never learned: what its tokenizer's configuration lists as
    /// `untrained_words`, and what falls into pieces in a vocabulary too small for pieces to mean much.
    pub fn unknown_words(&self, text: &str) -> Result<Vec<String>> {
        self.tokenizer.unknown_words(text)
    }

    /// The keys and values of a text.
    pub fn context(&self, text: &TextEmbedding) -> Result<Context<O>> {
        let want = self.text.config();
        if text.width != want.width || text.length == 0 || text.length > want.length {
            return Err(Error::new(
                Code::InvalidParameter,
                format!(
                    "a text embedding of {} × {}: must be 1..={} × {}",
                    text.length, text.width, want.length, want.width
                ),
            )
            .with_hint("it was made by another model"));
        }
        let shape = Shape::tokens(1, text.length, text.width);
        let value = self.ops.value(text.data.clone(), shape)?;
        let keys = || self.unet.text_keys(&self.ops, &value);
        Ok(Context(self.ops.awake(keys)?))
    }

    /// Σ weightᵢ · contextᵢ, which is the context of the same mix of embeddings (keys and values are
    /// linear in the text). A single term of weight 1 comes back bit for bit; terms of weight 0 are
    /// left out, so that a mix at either end is exactly that end.
    pub fn mix(&self, terms: &[(f32, &Context<O>)]) -> Result<Context<O>> {
        let mut kept: Vec<_> = terms.iter().filter(|(w, _)| *w != 0.0).copied().collect();
        if kept.is_empty() {
            kept.extend(terms.first());
        }
        let terms: Vec<_> = kept.iter().map(|(w, context)| (*w, &context.0)).collect();
        TextKeys::mix(&self.ops, &terms).map(Context)
    }

    /// Bytes of a context's numbers.
    pub fn context_bytes(&self, context: &Context<O>) -> Result<u64> {
        let numbers = context.0.0.iter().flat_map(|kv| [&kv.key, &kv.value]);
        let bytes = |x| -> Result<u64> { Ok(4 * self.ops.shape(x)?.len() as u64) };
        numbers.map(bytes).sum()
    }

    /// Predicts for a batch of (noisy latent, time, text): noise or velocity, as
    /// [`ScheduleConfig::prediction_type`] says. All latents have one size.
    pub fn unet(
        &self,
        batch: &[(&Latent, f32, &Context<O>)],
        cancel: &Cancel,
    ) -> Result<Vec<Latent>> {
        Ok(self.unet_with_middle(batch, cancel)?.0)
    }

    /// As [`Pipeline::unet`], with the middle block's output for the whole batch, `n × c × h × w`.
    pub fn unet_with_middle(
        &self,
        batch: &[(&Latent, f32, &Context<O>)],
        cancel: &Cancel,
    ) -> Result<(Vec<Latent>, Vec<f32>)> {
        let Some((first, ..)) = batch.first() else {
            return Ok((Vec::new(), Vec::new()));
        };
        let shape = self.latent_shape(first, batch.len())?;
        let mut data = Vec::with_capacity(shape.len());
        for (latent, ..) in batch {
            if self.latent_shape(latent, batch.len())? != shape {
                return Err(Error::new(
                    Code::Internal,
                    "latents of different sizes in one batch",
                ));
            }
            data.extend_from_slice(&latent.data);
        }
        let x = self.ops.value_nchw(&data, shape)?;
        let times: Several<f32> = batch.iter().map(|(_, t, _)| *t).collect();
        let contexts: Several<_> = batch.iter().map(|(.., context)| &context.0).collect();
        let stacked;
        let text = match contexts.as_slice() {
            [one] => *one,
            all => {
                stacked = TextKeys::stack(&self.ops, all)?;
                &stacked
            }
        };
        let forward = || self.unet.forward(&self.ops, &x, &times, text, cancel);
        let Prediction { out, middle } = self.ops.awake(forward)?;
        let out = self.ops.numbers_nchw(&out)?;
        let latents = out
            .chunks_exact(shape.len() / shape.n)
            .map(|data| Latent {
                data: data.to_vec(),
                channels: first.channels,
                height: first.height,
                width: first.width,
            })
            .collect();
        Ok((latents, self.ops.numbers_nchw(&middle)?))
    }

    fn latent_shape(&self, latent: &Latent, n: usize) -> Result<Shape> {
        let (h, w, c) = (latent.height, latent.width, latent.channels);
        if c != self.latent_channels() || h == 0 || w == 0 || latent.data.len() != h * w * c {
            return Err(Error::new(
                Code::Internal,
                format!(
                    "a latent of {c} × {h} × {w} with {} numbers",
                    latent.data.len()
                ),
            ));
        }
        Ok(Shape::map(n, h, w, c))
    }

    /// Encodes a picture (`3 × height × width` numbers in −1..=1, sides multiples of
    /// [`Pipeline::vae_factor`]) to the mean of its latent, scaled to about unit variance.
    pub fn vae_encode(
        &self,
        rgb: &[f32],
        height: usize,
        width: usize,
        cancel: &Cancel,
    ) -> Result<Latent> {
        let f = self.vae_factor();
        let sides = [height, width];
        if rgb.len() != 3 * height * width || sides.iter().any(|s| *s == 0 || s % f != 0) {
            return Err(Error::new(
                Code::Internal,
                format!(
                    "a picture of 3 × {height} × {width} with {} numbers: sides must be multiples of {f}",
                    rgb.len()
                ),
            ));
        }
        let x = self.ops.value_nchw(rgb, Shape::map(1, height, width, 3))?;
        let encode = || self.vae.encode(&self.ops, &x, cancel);
        let mut data = self.ops.awake(encode)?.mean;
        let scale = self.vae.config().scaling_factor as f32;
        data.iter_mut().for_each(|x| *x *= scale);
        Ok(Latent {
            data,
            channels: self.latent_channels(),
            height: height / f,
            width: width / f,
        })
    }

    /// Decodes a latent to a picture, `3 × height·f × width·f` numbers in about −1..=1, not clamped.
    pub fn vae_decode(&self, latent: &Latent, cancel: &Cancel) -> Result<Vec<f32>> {
        let shape = self.latent_shape(latent, 1)?;
        let scale = self.vae.config().scaling_factor as f32;
        let data: Vec<f32> = latent.data.iter().map(|x| x / scale).collect();
        let z = self.ops.value_nchw(&data, shape)?;
        let decode = || self.vae.decode(&self.ops, &z, cancel);
        self.ops.numbers_nchw(&self.ops.awake(decode)?)
    }
}

fn check_family(layout: &Layout) -> Result<()> {
    let family = layout.family();
    if family != "StableDiffusionPipeline" {
        return Err(Error::new(
            Code::UnsupportedModel,
            format!(
                "{}: _class_name = {family}: only StableDiffusionPipeline is supported",
                layout.source().describe("model_index.json")
            ),
        )
        .with_hint("Stable Diffusion 1.x and 2.x run; SDXL, SD3 and others do not yet"));
    }
    layout.check_part("unet", &["UNet2DConditionModel"])?;
    layout.check_part("vae", &["AutoencoderKL"])?;
    layout.check_part(
        "text_encoder",
        &["CLIPTextModel", "CLIPTextModelWithProjection"],
    )?;
    layout.check_part("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"])
}

fn numbers(layout: &Layout) -> Result<Count> {
    let parts = ["text_encoder", "unet", "vae"];
    (parts.iter()).try_fold(Count::default(), |sum, part| {
        Ok(sum + layout.tensors(part)?.count())
    })
}
