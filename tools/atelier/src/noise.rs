//! Hash-based gradient noise and its fractal sums, with no tables and no size: a point gives the same value in any
//! picture. `fp`, the footprint of a pixel in the same unit as the point, ends a sum where an octave would alias.

/// A well mixed 32-bit hash of a lattice point.
#[inline]
pub(crate) fn hash(x: i32, y: i32, seed: u32) -> u32 {
    let mut h = (x as u32).wrapping_mul(0x27d4_eb2d)
        ^ (y as u32).wrapping_mul(0x1656_67b1)
        ^ seed.wrapping_mul(0x9e37_79b9);
    h = (h ^ (h >> 15)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// The hash as a number in `0..1`.
#[inline]
pub(crate) fn unit(x: i32, y: i32, seed: u32) -> f32 {
    (hash(x, y, seed) >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[inline]
fn corner(x: i32, y: i32, seed: u32, dx: f32, dy: f32) -> f32 {
    let h = hash(x, y, seed);
    let gx = (h & 0xffff) as f32 * (2.0 / 65535.0) - 1.0;
    let gy = (h >> 16) as f32 * (2.0 / 65535.0) - 1.0;
    gx * dx + gy * dy
}

/// Gradient noise in about `-1..1`, wavelength 1 (Perlin 2002, quintic fade).
#[inline]
pub(crate) fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let (ix, iy) = (fx as i32, fy as i32);
    let (dx, dy) = (x - fx, y - fy);
    let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
    let (ux, uy) = (fade(dx), fade(dy));
    let a = corner(ix, iy, seed, dx, dy);
    let b = corner(ix.wrapping_add(1), iy, seed, dx - 1.0, dy);
    let c = corner(ix, iy.wrapping_add(1), seed, dx, dy - 1.0);
    let d = corner(
        ix.wrapping_add(1),
        iy.wrapping_add(1),
        seed,
        dx - 1.0,
        dy - 1.0,
    );
    let top = a + (b - a) * ux;
    1.6 * (top + (c + (d - c) * ux - top) * uy)
}

/// How much of an octave of wavelength `wave` a pixel of `fp` still resolves, 0..1.
#[inline]
fn resolved(wave: f32, fp: f32) -> f32 {
    (wave / fp.max(1e-9) * 0.8 - 1.2).clamp(0.0, 1.0)
}

/// Fractal sum of `octaves` octaves from wavelength 1 on, each `gain` of the one before; about `-1..1`.
pub(crate) fn fbm(x: f32, y: f32, seed: u32, octaves: u32, gain: f32, fp: f32) -> f32 {
    let (mut sum, mut amp, mut freq) = (0.0, 1.0, 1.0f32);
    for o in 0..octaves {
        let w = resolved(1.0 / freq, fp);
        if w <= 0.0 {
            break;
        }
        let off = o as f32 * 17.37;
        // A turned lattice per octave hides the grid.
        let (px, py) = if o & 1 == 0 {
            (x * freq, y * freq)
        } else {
            ((0.8 * x - 0.6 * y) * freq, (0.6 * x + 0.8 * y) * freq)
        };
        sum += w * amp * noise(px + off, py - off, seed.wrapping_add(o));
        amp *= gain;
        freq *= 2.03;
    }
    sum
}

/// Fractal noise over picture coordinates whose coarsest wavelength is `wave`: a texture of things that stand up, as fine
/// upwards as sideways at any distance. The octaves' frequencies are fixed, `wave` only fades them in.
pub(crate) fn upright(u: f32, v: f32, seed: u32, wave: f32, gain: f32, fp: f32) -> f32 {
    let level = -crate::maths::ln(wave.max(1e-6)) * std::f32::consts::LOG2_E;
    let first = level.floor();
    let mut amp = crate::maths::pow(gain, first + 1.0 - level);
    let mut sum = 0.0;
    for o in 0..7 {
        let octave = first as i32 + 1 + o;
        let freq = crate::maths::exp(octave as f32 * std::f32::consts::LN_2);
        let w = resolved(1.0 / freq, fp);
        if w <= 0.0 {
            break;
        }
        let fade = if o == 0 {
            1.0 - (first + 1.0 - level)
        } else {
            1.0
        };
        let (px, py) = if octave & 1 == 0 {
            (u, v)
        } else {
            (0.8 * u - 0.6 * v, 0.6 * u + 0.8 * v)
        };
        sum += w
            * fade
            * amp
            * noise(
                px * freq + octave as f32 * 17.37,
                py * freq,
                seed.wrapping_add(octave as u32),
            );
        amp *= gain;
    }
    sum
}

/// Ridged multifractal in about `0..1`: sharp crests, smooth valleys (Musgrave).
pub(crate) fn ridged(x: f32, y: f32, seed: u32, octaves: u32, fp: f32) -> f32 {
    let (mut sum, mut amp, mut freq, mut weight) = (0.0, 0.5, 1.0f32, 1.0f32);
    for o in 0..octaves {
        let w = resolved(1.0 / freq, fp);
        if w <= 0.0 {
            break;
        }
        let off = o as f32 * 31.7;
        let (px, py) = if o & 1 == 0 {
            (x * freq, y * freq)
        } else {
            ((0.8 * x - 0.6 * y) * freq, (0.6 * x + 0.8 * y) * freq)
        };
        let n = noise(px + off, py + off, seed.wrapping_add(o));
        let r = 1.0 - n.abs() * 1.4;
        let r = r * r.abs();
        sum += w * amp * weight * r;
        weight = (r * 1.6).clamp(0.0, 1.0);
        amp *= 0.52;
        freq *= 2.05;
    }
    sum
}
