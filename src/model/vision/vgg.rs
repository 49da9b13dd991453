//! The convolutions of VGG-16 (Simonyan and Zisserman 2014, arXiv 1409.1556; `vgg16().features` of
//! torchvision), whose maps at several depths are what perceptual losses compare.
//!
//! For: the taps relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3, in every reading of the operations.
//! Not for: classes. Weights are not shipped; a safetensors file with torchvision's names is read.

use crate::error::{Code, Error, Result};
use crate::job::Cancel;
use crate::model::block::next_block;
use crate::model::build::{Builder, Kind};
use crate::nn::{Act, LinearSpec, Ops, Plus, Reads};

/// Channels of VGG-16's five stages. Perceptual losses mostly take four of them.
pub const WIDTHS: [usize; 5] = [64, 128, 256, 512, 512];
/// Convolutions of each stage.
const CONVOLUTIONS: [usize; 5] = [2, 2, 3, 3, 3];
/// What ImageNet's red, green and blue have as mean, and as deviation.
const NORMAL: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];

/// The network.
pub struct Vgg16<O: Ops> {
    /// From 0..=1 to mean 0 and deviation 1.
    normal: O::Linear,
    stages: Vec<Vec<O::Conv>>,
}

impl<O: Ops> Vgg16<O> {
    /// Builds the first stages from the weights at `b`, `features.0.weight` and so on: as many as there
    /// are `widths`, their channels, 1 to 5: [`WIDTHS`] or its beginning.
    ///
    /// Errors with [`Code::InvalidParameter`] for another number of stages, [`Code::InvalidModel`] for
    /// weights of other sizes.
    pub fn new(b: &Builder<'_, O>, widths: &[usize]) -> Result<Self> {
        if !(1..=CONVOLUTIONS.len()).contains(&widths.len()) {
            let most = CONVOLUTIONS.len();
            return Err(Error::new(
                Code::InvalidParameter,
                format!("{} stages: must be 1..={most}", widths.len()),
            )
            .with_hint("try 4"));
        }
        let [mean, deviation] = NORMAL;
        let mut weight = [0.0; 9];
        for (place, deviation) in weight.iter_mut().step_by(4).zip(deviation) {
            *place = 1.0 / deviation;
        }
        let mut bias = [0.0; 3];
        for (bias, (mean, deviation)) in bias.iter_mut().zip(mean.into_iter().zip(deviation)) {
            *bias = -mean / deviation;
        }
        let spec = LinearSpec {
            weight: &weight,
            bias: Some(&bias),
            inputs: 3,
            outputs: 3,
        };
        // torchvision counts activations and pools too.
        let (mut index, mut inputs) = (0, 3);
        let mut stages = Vec::new();
        for (&width, count) in widths.iter().zip(CONVOLUTIONS) {
            let mut stage = Vec::new();
            for _ in 0..count {
                let name = format!("features.{index}");
                stage.push(b.conv(&name, inputs, width, Kind::Same3)?);
                (index, inputs) = (index + 2, width);
            }
            index += 1;
            stages.push(stage);
        }
        Ok(Vgg16 {
            normal: b.ops().make_linear(spec)?,
            stages,
        })
    }

    /// The last activation of each stage, `n × h × w × channels`, whose sides are halved from stage to
    /// stage. `x` is `n × h × w × 3`, red, green and blue in 0..=1, at least 16 pixels a side for five
    /// stages (8 for four). Any reading over the network's backend may be given. `cancel` is polled
    /// before every convolution.
    pub fn forward<R: Reads<O>>(
        &self,
        ops: &R,
        x: &R::Tensor,
        cancel: &Cancel,
    ) -> Result<Vec<R::Tensor>> {
        let mut x = ops.linear(x, &self.normal, Plus::Nothing)?;
        let mut taps = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            if !taps.is_empty() {
                x = ops.max_pool(&x, 2)?;
            }
            for conv in stage {
                next_block(ops, cancel)?;
                x = ops.act(&ops.conv(&x, conv, Plus::Nothing)?, Act::Relu)?;
            }
            taps.push(x.clone());
        }
        Ok(taps)
    }
}
