//! CLIP's image tower (Radford et al. 2021, arXiv 2103.00020; `CLIPVisionModelWithProjection` of
//! transformers): a picture's place in the space that texts and pictures share.
//!
//! For: vision transformers of any size, in every reading of the operations: its gradient to the
//! picture is what a text can guide by. Not for: towers of convolutions (RN50), pictures of other sizes
//! than the model's own, and their preparation.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::error::{Code, Error, Result};
use crate::job::Cancel;
use crate::model::block::next_block;
use crate::model::build::Builder;
use crate::model::tower::{Tower, TowerConfig, in_range};
use crate::nn::{Mask, Ops, Plus, Reads, Shape};
use crate::weights::{self, Config, Layout, ModelSource};

/// The part of a model in diffusers layout that it is.
const PART: &str = "image_encoder";

#[derive(Debug, Deserialize)]
#[serde(default)]
struct File {
    image_size: usize,
    patch_size: usize,
    projection_dim: usize,
}

impl Default for File {
    fn default() -> Self {
        File {
            image_size: 224,
            patch_size: 32,
            projection_dim: 512,
        }
    }
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipVisionConfig {
    /// Height and width of a picture.
    pub image: usize,
    /// Height and width of the part of a picture that becomes one token.
    pub patch: usize,
    /// Width of the space that texts and pictures share.
    pub projection: usize,
    tower: TowerConfig,
}

impl ClipVisionConfig {
    /// Reads and checks a `config.json`.
    pub(crate) fn read(config: &Config) -> Result<Self> {
        config.require(&[("num_channels", json!(3))])?;
        let file: File = config.parse()?;
        let tower = TowerConfig::read(config, [768, 3072, 12, 12])?;
        let image = in_range(config, "image_size", file.image_size, 4096)?;
        let patch = file.patch_size;
        if patch == 0 || !image.is_multiple_of(patch) {
            let range = format!("a divisor of image_size, {image}");
            return Err(config.outside("patch_size", patch, &range));
        }
        Ok(ClipVisionConfig {
            image,
            patch,
            projection: in_range(config, "projection_dim", file.projection_dim, 16384)?,
            tower,
        })
    }
}

/// The network.
pub struct ClipVision<O: Ops> {
    config: ClipVisionConfig,
    /// The token that stands for the whole picture, its place added.
    class: Vec<f32>,
    /// The places of the patches.
    places: Vec<f32>,
    patches: O::Linear,
    norm_in: O::Norm,
    tower: Tower<O>,
    norm_out: O::Norm,
    projection: O::Linear,
}

impl<O: Ops + 'static> ClipVision<O> {
    /// The image tower of the model at `source`, its `image_encoder`, on the backend `ops`: the one
    /// already loaded in this process, on a backend of the same kind, or a new one.
    ///
    /// Errors: [`Code::ModelNotFound`] without model_index.json, [`Code::InvalidModel`] when it names no
    /// image encoder and for damaged files, [`Code::UnsupportedModel`] for another class or an option
    /// that does not run, [`Code::Cancelled`].
    pub fn load_on(ops: &O, source: &ModelSource, cancel: &Cancel) -> Result<Arc<ClipVision<O>>> {
        let layout = Layout::open(source)?;
        layout.check_part(PART, &["CLIPVisionModelWithProjection"])?;
        let files = [format!("{PART}/config.json"), layout.weights_path(PART)?];
        let stamps = (files.iter().map(|path| source.stamp(path))).collect::<Result<_>>()?;
        weights::shared(&ops.name(), stamps, cancel, || {
            let config = ClipVisionConfig::read(&layout.config(PART)?)?;
            let file = layout.tensors(PART)?;
            Self::new(&Builder::new(ops, &file, cancel), config).map(Arc::new)
        })
    }
}

impl<O: Ops> ClipVision<O> {
    /// Builds the network from the weights at `b`.
    pub fn new(b: &Builder<'_, O>, config: ClipVisionConfig) -> Result<Self> {
        let (c, eps) = (config.tower.width, config.tower.eps);
        let projection = b.linear_no_bias("visual_projection", c, config.projection)?;
        let inner = b.at("vision_model");
        let b = match inner.has("embeddings.class_embedding") {
            true => &inner,
            false => b,
        };
        let at = b.at("embeddings");
        let side = config.image / config.patch;
        let mut class = at.numbers("class_embedding", &[c])?;
        let mut places = at.numbers("position_embedding.weight", &[1 + side * side, c])?;
        let own = places.drain(..c.min(places.len()));
        class.iter_mut().zip(own).for_each(|(x, p)| *x += p);
        Ok(ClipVision {
            class,
            places,
            patches: at.linear_over_patches("patch_embedding", (3, config.patch), c)?,
            // The name is misspelt in every file there is.
            norm_in: b.norm("pre_layrnorm", c, eps)?,
            tower: Tower::new(b, &config.tower)?,
            norm_out: b.norm("post_layernorm", c, eps)?,
            projection,
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// The places of pictures in the space that they share with texts, not normalised:
    /// `n × 1 × 1 × projection`. `x` is `n × image × image × 3`, red, green and blue, as the model's
    /// `preprocessor_config.json` says: 0..=1 less `image_mean`, divided by `image_std`. Any reading over
    /// the network's backend may be given. `cancel` is polled before every layer.
    ///
    /// Errors with [`Code::InvalidParameter`] for pictures of another size.
    pub fn forward<R: Reads<O>>(
        &self,
        ops: &R,
        x: &R::Tensor,
        cancel: &Cancel,
    ) -> Result<R::Tensor> {
        let (s, side) = (ops.shape(x)?, self.config.image);
        if (s.h, s.w, s.c) != (side, side, 3) {
            return Err(Error::new(
                Code::InvalidParameter,
                format!(
                    "a picture of {} × {} with {} channels: must be {side} × {side} with 3",
                    s.h, s.w, s.c
                ),
            )
            .with_hint("scale it to what the image tower takes"));
        }
        let c = self.config.tower.width;
        let class = ops.value(self.class.repeat(s.n), Shape::tokens(s.n, 1, c))?;
        let places = Shape::tokens(s.n, self.places.len() / c, c);
        let places = ops.value(self.places.repeat(s.n), places)?;
        let x = ops.patches(x, self.config.patch)?;
        let x = ops.linear(&x, &self.patches, Plus::Residual(&places))?;
        let x = ops.layer_norm(&ops.join(&class, &x)?, &self.norm_in)?;
        let x = self.tower.forward(ops, x, Mask::None, cancel)?;
        next_block(ops, cancel)?;
        let class = ops.layer_norm(&ops.tokens(&x, 0, 1)?, &self.norm_out)?;
        ops.linear(&class, &self.projection, Plus::Nothing)
    }
}
