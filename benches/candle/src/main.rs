//! Seconds of a U-Net of Stable Diffusion 1.5's shape in candle as it comes: `stock-candle SIDE`.
//!
//! For: benches/peers. Says its name, then answers each line of standard input, a measure's name ("… batch 2 …" takes two
//! latents, any other one), with the seconds of three calls on latents of SIDE × SIDE, as JSON. Weights are random.

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::stable_diffusion::unet_2d::{
    UNet2DConditionModel, UNet2DConditionModelConfig,
};

fn main() -> Result<(), Box<dyn Error>> {
    let side = std::env::args().nth(1).ok_or("stock-candle SIDE")?;
    let side: usize = side.parse()?;
    let (weights, cpu) = (VarMap::new(), Device::Cpu);
    let config = UNet2DConditionModelConfig {
        cross_attention_dim: 768,
        ..UNet2DConditionModelConfig::default()
    };
    let from = VarBuilder::from_varmap(&weights, DType::F32, &cpu);
    let net = UNet2DConditionModel::new(from, 4, 4, false, config)?;
    say("candle-transformers".into())?;
    for line in std::io::stdin().lines() {
        let batch = if line?.contains("batch 2") { 2 } else { 1 };
        let latents = Tensor::randn(0f32, 1., (batch, 4, side, side), &cpu)?;
        let text = Tensor::randn(0f32, 1., (batch, 77, 768), &cpu)?;
        let mut seconds = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            net.forward(&latents, 500., &text)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        say(seconds.into())?;
    }
    Ok(())
}

fn say(what: serde_json::Value) -> std::io::Result<()> {
    println!("{what}");
    std::io::stdout().flush()
}
