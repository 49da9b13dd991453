//! The binary stream that a training reads from a pipe.
//!
//! One record a scene: a line of JSON ended by `\n`,
//! `{"seed":..,"place":"..","n":K,"w":..,"h":..,"attrs":[[7 numbers] x K],"captions":[K texts]}` (attributes in the order
//! of [`Attribute::ALL`]), then `K × h × w × 3` bytes, 8-bit sRGB. Seeds count up from the first; the bytes depend on
//! seed, size and plan alone.
//!
//! Plan `group` (K = 16): picture 0 is the base: neutral in 60 % of the scenes, else one or two attributes at 0.2..1
//! (never both night and sunset above 0.4). Pictures 1 + 2i and 2 + 2i are the base with attribute i at 1 and at a
//! random value in 0.1..0.9. Picture 15 is neutral where the base was not, else a random combination.
//! Plan `single` (K = 1): neutral (25 %), one (45 %) or two (30 %) random attributes.

use std::io::{self, Write};

use rayon::prelude::*;

use crate::{Attribute, Attributes, Draw, Frame, Scene};

/// Which pictures of a scene a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Sixteen pictures of one scene.
    Group,
    /// One picture.
    Single,
}

/// What to stream.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Seed of the first scene.
    pub first_seed: u64,
    /// Number of scenes.
    pub count: u64,
    /// Picture width in pixels.
    pub width: usize,
    /// Picture height in pixels.
    pub height: usize,
    /// Pictures a scene.
    pub plan: Plan,
}

fn combination(d: &mut Draw, n: usize) -> Attributes {
    let mut a = Attributes::default();
    for _ in 0..n {
        let which = Attribute::ALL[d.below(7)];
        a[which] = if d.chance(0.35) {
            1.0
        } else {
            d.range(0.2, 1.0)
        };
    }
    if a.sunset > 0.4 && a.night > 0.4 {
        if d.chance(0.5) {
            a.sunset = 0.0;
        } else {
            a.night = 0.0;
        }
    }
    a
}

/// The attributes of the pictures that `plan` makes of the scene of `seed`.
pub fn plan(seed: u64, plan: Plan) -> Vec<Attributes> {
    let mut d = Draw::new(seed, 0x57e4);
    if plan == Plan::Single {
        let n = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2][d.below(20)];
        return vec![combination(&mut d, n)];
    }
    let neutral = d.chance(0.6);
    let n = 1 + d.below(2);
    let base = if neutral {
        Attributes::default()
    } else {
        combination(&mut d, n)
    };
    let mut all = vec![base];
    for a in Attribute::ALL {
        all.push(base.with(a, 1.0));
        all.push(base.with(a, d.range(0.1, 0.9)));
    }
    let other = combination(&mut d, 2);
    all.push(if neutral {
        other
    } else {
        Attributes::default()
    });
    all
}

/// One record: header line and pixels.
pub fn record(seed: u64, request: &Request) -> Vec<u8> {
    let scene = Scene::from_seed(seed);
    let frame = Frame::new(&scene, request.width, request.height);
    let all = plan(seed, request.plan);
    let captions: Vec<String> = all
        .iter()
        .enumerate()
        .map(|(i, a)| scene.caption(a, seed.wrapping_mul(64).wrapping_add(i as u64)))
        .collect();
    let header = serde_json::json!({
        "seed": seed, "place": scene.place().name(), "n": all.len(), "w": frame.width, "h": frame.height,
        "attrs": all.iter().map(Attributes::values).collect::<Vec<_>>(), "captions": captions,
    });
    let mut bytes = header.to_string().into_bytes();
    bytes.push(b'\n');
    for a in &all {
        bytes.extend(frame.render(a).to_u8());
    }
    bytes
}

/// Writes the records of `request` in the order of their seeds; ends quietly when the reader closes the pipe.
///
/// # Errors
/// Any other failure to write.
pub fn write(request: &Request, out: &mut dyn Write) -> io::Result<()> {
    let batch = 4 * rayon::current_num_threads().max(1) as u64;
    let mut done = 0;
    while done < request.count {
        let n = batch.min(request.count - done);
        let first = request.first_seed.wrapping_add(done);
        let records: Vec<Vec<u8>> = (0..n)
            .into_par_iter()
            .map(|i| record(first.wrapping_add(i), request))
            .collect();
        for r in records {
            match out.write_all(&r) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                other => other?,
            }
        }
        done += n;
    }
    match out.flush() {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
