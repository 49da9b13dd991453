//! One edit, phase by phase.
//!
//! For: the order of the work, the cache, and what is told on the way. Not for: what each phase
//! computes (`model`, `diffusion`, `method`, `layer`).

use std::collections::HashMap;
use std::sync::Arc;

use super::cache::{Encoding, Key, Text, Value};
use super::net::Net;
use super::plan::Plan;
use super::report::{Course, ModelReport, Report, psnr};
use super::seat::On;
use super::{Edit, Request, Shared};
use crate::diffusion::{Condition, Guidance, Inversion, Stochastic};
use crate::error::{Code, Error, Result};
use crate::job::{Control, Phase};
use crate::layer::{Change, Patch};
use crate::method::published::PublishedInversion;
use crate::method::{Blend, Start, mix};
use crate::model::Pipeline;
use crate::nn::Ops;
use crate::recipe::{Compositor, Form, IdentityShortcut, Stamp};

/// Edit-friendly inversion is DDPM's: η = 1 (Huberman-Spiegelglas et al., arXiv 2304.06140).
const ETA: f64 = 1.0;
/// Below this the model's own reconstruction is far from the picture: it does not know such pictures.
/// Above it nothing is promised: an autoencoder reproduces much that the network was never shown.
const KNOWN_DB: f32 = 20.0;
/// Layer pixels per model pixel above which what an edit adds looks soft. On a photo of 24
/// megapixels the embedded model is just below: a warning that is always there warns of nothing.
const COARSE: f32 = 48.0;

/// What the phases cost, in predictions of one latent; only the progress bar depends on them.
mod cost {
    pub const TEXT: f32 = 0.3;
    pub const ENCODE: f32 = 4.0;
    pub const DECODE: f32 = 5.0;
    pub const FIT: f32 = 0.5;
    /// Share of the whole job.
    pub const LOAD: f32 = 0.15;
}

/// What one run found out for its report.
#[derive(Default)]
struct Notes {
    predictions: usize,
    known_db: Option<f32>,
    cached: Vec<&'static str>,
    warnings: Vec<String>,
}

pub(super) fn run<O: Ops + Clone + 'static>(
    shared: &Shared,
    seat: &On<O>,
    request: &Request,
    control: &Control,
) -> Result<Edit> {
    let (plan, patch) = (&request.plan, &request.patch);
    control.check()?;
    let mut course = Course::new(control);
    let mut notes = Notes {
        warnings: plan.warnings.clone(),
        ..Notes::default()
    };
    let skipped = plan.skips();
    let change = if skipped {
        let same = patch.pixels();
        course.phase(Phase::Fit, 1.0, |_| {
            Change::difference(same, same, patch.width(), patch.height())
        })?
    } else {
        let pipeline = match seat.model() {
            Some(pipeline) => Arc::clone(pipeline),
            None => course.phase(Phase::Load, cost::LOAD, |_| {
                seat.loaded_model(shared, control)
            })?,
        };
        work(seat, &pipeline, request, &mut course, &mut notes)?
    };
    let scale = patch.placement().scale();
    if scale > COARSE {
        notes.warnings.push(format!(
            "the model sees {scale:.0} layer pixels as one: what the edit adds will be soft; select a smaller part"
        ));
    }
    let (phases, ms) = course.end()?;
    let model = shared.model_id();
    let mut recipe = plan.recipe.clone();
    if let Some(made) = &request.made_by
        && !skipped
    {
        if ![&model.hash, ""].contains(&made.model_hash.as_str()) {
            (notes.warnings).push(
                "the recipe was made with other weights than this model's: the edit will differ"
                    .to_owned(),
            );
        }
        if ![&shared.cpu_path, ""].contains(&made.cpu_path.as_str()) {
            let (made, now) = (crate::fields::shorten(&made.cpu_path), &shared.cpu_path);
            notes.warnings.push(format!(
                "the recipe was made on the CPU path {made}, this is {now}: the bytes may differ"
            ));
        }
    }
    recipe.stamp = Some(Stamp {
        version: crate::VERSION.to_owned(),
        model: model.name.clone(),
        model_hash: model.hash.clone(),
        cpu_path: shared.cpu_path.clone(),
        attributes: plan.attributes.clone(),
    });
    let region = patch.placement().region();
    let report = Report {
        version: crate::VERSION,
        model: ModelReport {
            name: model.name,
            family: model.family,
            hash: model.hash,
        },
        cpu_path: shared.cpu_path.clone(),
        threads: shared.threads.get(),
        seed: recipe.seed,
        steps: plan.steps,
        guidance: plan.guidance,
        predictions: notes.predictions,
        skipped,
        grid: [patch.width(), patch.height()],
        region: [
            region.x,
            region.y,
            i64::from(region.width),
            i64::from(region.height),
        ],
        scale,
        known_db: notes.known_db,
        cached: notes.cached,
        forecast_bytes: request.forecast.total(),
        phases,
        ms,
        warnings: notes.warnings,
    };
    Ok(Edit {
        change,
        placement: patch.placement().clone(),
        recipe,
        report,
        pool: shared.pixels()?,
    })
}

impl Plan {
    /// Whether the model need not be asked, because nothing can change.
    pub fn skips(&self) -> bool {
        self.recipe.is_identity() && self.recipe.identity_shortcut == IdentityShortcut::On
    }
}

/// All that needs the model.
fn work<O: Ops + Clone + 'static>(
    seat: &On<O>,
    pipeline: &Pipeline<O>,
    request: &Request,
    course: &mut Course<'_>,
    notes: &mut Notes,
) -> Result<Change> {
    let (plan, patch) = (&request.plan, &request.patch);
    let hash = pipeline.model_hash().as_bytes();
    let text_key = |text: &str| Key::of("text", &[hash, text.as_bytes()]);
    let encoding_key = Key::of("encoding", &[hash, patch.hash()]);
    let inversion_key = Key::of(
        "inversion",
        &[
            hash,
            patch.hash(),
            plan.base.as_bytes(),
            &plan.steps.to_le_bytes(),
            &plan.guidance.to_bits().to_le_bytes(),
            &plan.recipe.seed.to_le_bytes(),
            &plan.noise.to_bits().to_le_bytes(),
        ],
    );
    let texts = plan.texts();
    let missing: Vec<&str> = texts
        .iter()
        .copied()
        .filter(|t| seat.cache.get(&text_key(t)).is_none())
        .collect();
    let encoding = match seat.cache.get(&encoding_key) {
        Some(Value::Encoding(encoding)) => Some(encoding),
        _ => None,
    };
    let inversion = match seat.cache.get(&inversion_key) {
        Some(Value::Inversion(inversion)) => Some(inversion),
        _ => None,
    };

    let calls = plan.steps as f32 * if plan.guidance == 1.0 { 1.0 } else { 2.0 };
    let costs = [
        cost::TEXT * missing.len() as f32,
        if encoding.is_some() {
            0.0
        } else {
            cost::ENCODE + cost::DECODE
        },
        if inversion.is_some() { 0.0 } else { calls },
        calls,
        cost::DECODE,
        cost::FIT,
    ];
    let unit = course.left() / costs.iter().sum::<f32>();
    let [
        for_text,
        for_encode,
        for_invert,
        for_edit,
        for_decode,
        for_fit,
    ] = costs.map(|c| c * unit);

    if missing.is_empty() {
        notes.cached.push("text");
    }
    let mut known: HashMap<&str, Arc<Text<O>>> = HashMap::new();
    course.phase(Phase::Text, for_text, |span| {
        for (done, text) in texts.iter().enumerate() {
            let read = match seat.cache.get(&text_key(text)) {
                Some(Value::Text(read)) => read,
                _ => {
                    let read = Arc::new(encode_text(pipeline, text, span.control())?);
                    seat.cache
                        .put(text_key(text), Value::Text(Arc::clone(&read)));
                    read
                }
            };
            known.insert(text, read);
            span.tell(done + 1, texts.len())?;
        }
        Ok(())
    })?;
    warn_of_texts(&texts, &known, &mut notes.warnings);
    let condition = |text: &str| -> Result<&Condition> {
        let read = known
            .get(text)
            .ok_or_else(|| Error::new(Code::Internal, "a text was not encoded"))?;
        Ok(&read.condition)
    };

    let encoding = match encoding {
        Some(encoding) => {
            notes.cached.push("encode");
            encoding
        }
        None => {
            let encoding = course.phase(Phase::Encode, for_encode, |span| {
                let latent = encode(pipeline, patch, span.control())?;
                span.tell(4, 9)?;
                let decoded = decode(pipeline, &latent, span.control())?;
                Ok(Arc::new(Encoding { latent, decoded }))
            })?;
            seat.cache
                .put(encoding_key, Value::Encoding(Arc::clone(&encoding)));
            encoding
        }
    };
    let known_db = psnr(&encoding.decoded, patch.pixels());
    notes.known_db = Some((known_db * 10.0).round() / 10.0);
    if known_db < KNOWN_DB {
        notes.warnings.push(format!(
            "the model reproduces this picture only to {known_db:.1} dB (warned of below {KNOWN_DB}): it knows few like it"
        ));
    }

    let all = plan.recipe.identity_shortcut == IdentityShortcut::Off;
    let mut blends = Vec::new();
    for part in plan.parts.iter().filter(|p| all || p.strength != 0.0) {
        let (neutral, styled) = (condition(&part.neutral)?, condition(&part.styled)?);
        blends.push(
            Blend::new(neutral, styled, part.lambda.clone(), part.strength)?
                .with_damping(part.damping)?,
        );
    }
    let base = condition(&plan.base)?;
    let guidance = match plan.guidance {
        1.0 => Guidance::OFF,
        scale => Guidance::new(scale, condition("")?.clone())?,
    };
    let net = Net::new(pipeline, known.values().map(|text| text.as_ref()));
    let grid = request.schedule.grid(plan.steps as usize)?;

    let edited = match plan.recipe.form {
        Form::Corrected => {
            let (start, from) = match all {
                true => (Start::Beginning, 0),
                false => (Start::FirstChange, mix::first_change(&grid, &blends)),
            };
            let inversion = match inversion {
                Some(inversion) if inversion.is_complete_from(from) => {
                    notes.cached.push("invert");
                    inversion
                }
                kept => course.phase(Phase::Invert, for_invert, |span| {
                    let mut inversion = match kept {
                        Some(kept) => (*kept).clone(),
                        None => {
                            let noise =
                                Stochastic::new(ETA, plan.recipe.seed)?.with_share(plan.noise)?;
                            Inversion::new(
                                grid,
                                encoding.latent.clone(),
                                base.clone(),
                                guidance,
                                noise,
                            )?
                        }
                    };
                    let result = inversion.complete(&net, from, span);
                    // Also after a cancel: what was computed holds.
                    let inversion = Arc::new(inversion);
                    seat.cache
                        .put(inversion_key, Value::Inversion(Arc::clone(&inversion)));
                    result.map(|()| inversion)
                })?,
            };
            course.phase(Phase::Edit, for_edit, |span| {
                mix::edit(&net, &inversion, &blends, start, span)
            })?
        }
        Form::Published => {
            let inversion = course.phase(Phase::Invert, for_invert, |span| {
                let seed = plan.recipe.seed;
                PublishedInversion::new(
                    &net,
                    grid,
                    &encoding.latent,
                    base.clone(),
                    guidance,
                    seed,
                    span,
                )
            })?;
            course.phase(Phase::Edit, for_edit, |span| {
                inversion.edit(&net, &blends, span)
            })?
        }
    };
    notes.predictions = net.predictions();
    let decoded = course.phase(Phase::Decode, for_decode, |span| {
        decode(pipeline, &edited, span.control())
    })?;
    course.phase(Phase::Fit, for_fit, |_| {
        let (w, h) = (patch.width(), patch.height());
        let (radius, epsilon) = (plan.radius as usize, f64::from(plan.epsilon));
        match plan.recipe.compositor {
            Compositor::Change => Change::fit(&encoding.decoded, &decoded, w, h, radius, epsilon)
                .map(|change| change.with_rest(plan.rest)),
            Compositor::Direct => {
                Change::direct(&encoding.decoded, &decoded, w, h, radius, epsilon)
            }
            Compositor::Difference => Change::difference(&encoding.decoded, &decoded, w, h),
        }
    })
}

fn encode_text<O: Ops + 'static>(
    pipeline: &Pipeline<O>,
    text: &str,
    control: &Control,
) -> Result<Text<O>> {
    let embedding = pipeline.encode_text(text, control.cancel())?;
    let context = pipeline.context(&embedding)?;
    Ok(Text {
        context_bytes: pipeline.context_bytes(&context)?,
        context,
        dropped: embedding.dropped,
        unknown: pipeline.unknown_words(text)?,
        condition: Condition::new(embedding.data, embedding.length, embedding.width)?,
    })
}

/// The patch's latent; the model takes −1..=1.
fn encode<O: Ops + 'static>(
    pipeline: &Pipeline<O>,
    patch: &Patch,
    control: &Control,
) -> Result<crate::diffusion::Latent> {
    let rgb: Vec<f32> = patch.pixels().iter().map(|v| 2.0 * v - 1.0).collect();
    let latent = pipeline.vae_encode(&rgb, patch.height(), patch.width(), control.cancel())?;
    finite(&latent.data, "encoder")?;
    Ok(latent)
}

/// A latent's picture, 0..=1 nominal.
fn decode<O: Ops + 'static>(
    pipeline: &Pipeline<O>,
    latent: &crate::diffusion::Latent,
    control: &Control,
) -> Result<Vec<f32>> {
    let mut rgb = pipeline.vae_decode(latent, control.cancel())?;
    finite(&rgb, "decoder")?;
    rgb.iter_mut().for_each(|v| *v = 0.5 * *v + 0.5);
    Ok(rgb)
}

fn finite(numbers: &[f32], part: &str) -> Result<()> {
    match numbers.iter().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(bad) => Err(Error::new(
            Code::InvalidModel,
            format!("the model's {part} gave {bad}: must be finite"),
        )
        .with_hint("the weights are damaged, or too large for 16 bits: fetch the model again")),
    }
}

fn warn_of_texts<O: Ops>(
    texts: &[&str],
    known: &HashMap<&str, Arc<Text<O>>>,
    warnings: &mut Vec<String>,
) {
    let mut unknown: Vec<String> = Vec::new();
    for text in texts {
        let Some(read) = known.get(text) else {
            continue;
        };
        for word in &read.unknown {
            let word = crate::fields::shorten(word);
            if !unknown.contains(&word) {
                unknown.push(word);
            }
        }
        if read.dropped > 0 {
            let text = crate::fields::shorten(text);
            warnings.push(format!(
                "\"{text}\" is too long for the model: its last {} pieces were cut off",
                read.dropped
            ));
        }
    }
    if !unknown.is_empty() {
        warnings.push(format!("the model never learned: {}", unknown.join(", ")));
    }
}
