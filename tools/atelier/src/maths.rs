//! Small vectors and the few transcendental functions, through `libm` so that every machine gives the same bits.
//! Not a general vector library: colours and directions are plain `[f32; 3]`.

/// A linear RGB colour or a direction.
pub(crate) type V3 = [f32; 3];

pub(crate) fn add(a: V3, b: V3) -> V3 {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}
pub(crate) fn mul(a: V3, b: V3) -> V3 {
    [a[0] * b[0], a[1] * b[1], a[2] * b[2]]
}
pub(crate) fn scale(a: V3, s: f32) -> V3 {
    [a[0] * s, a[1] * s, a[2] * s]
}
pub(crate) fn dot(a: V3, b: V3) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}
pub(crate) fn mix(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}
pub(crate) fn mix3(a: V3, b: V3, t: f32) -> V3 {
    [mix(a[0], b[0], t), mix(a[1], b[1], t), mix(a[2], b[2], t)]
}
/// Geometric interpolation, the even one for light levels.
pub(crate) fn gmix(a: f32, b: f32, t: f32) -> f32 {
    exp(mix(ln(a.max(1e-5)), ln(b.max(1e-5)), t))
}
pub(crate) fn gmix3(a: V3, b: V3, t: f32) -> V3 {
    [
        gmix(a[0], b[0], t),
        gmix(a[1], b[1], t),
        gmix(a[2], b[2], t),
    ]
}
pub(crate) fn norm(a: V3) -> V3 {
    scale(a, 1.0 / dot(a, a).sqrt().max(1e-9))
}
pub(crate) fn luma(c: V3) -> f32 {
    0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]
}
/// Hermite step; works for `a > b` too (falling).
pub(crate) fn step(a: f32, b: f32, x: f32) -> f32 {
    let t = ((x - a) / (b - a)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
/// 2 to the power x within 3e-7 of its value; a polynomial on -0.5..0.5, so that it vectorises and is the same anywhere.
#[inline]
fn exp2(x: f32) -> f32 {
    let x = x.clamp(-126.0, 126.0);
    let i = (x + 0.5).floor();
    let f = x - i;
    let p = 1.0
        + f * (std::f32::consts::LN_2
            + f * (0.240_226_5
                + f * (0.055_504_11 + f * (0.009_618_13 + f * (0.001_333_36 + f * 0.000_154_03)))));
    p * f32::from_bits(((i as i32 + 127) as u32) << 23)
}
/// Base-2 logarithm of a positive number within 1e-6.
#[inline]
fn log2(x: f32) -> f32 {
    let bits = x.max(1e-30).to_bits();
    // Mantissa brought into 0.7..1.4, where the series is short.
    let e = (bits as i32 - 0x3f35_04f3) >> 23;
    let m = f32::from_bits((bits as i32 - (e << 23)) as u32);
    let t = (m - 1.0) / (m + 1.0);
    let q = t * t;
    e as f32 + t * (2.885_39 + q * (0.961_797 + q * (0.577_078 + q * (0.412_199 + q * 0.32))))
}
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    exp2(x * std::f32::consts::LOG2_E)
}
#[inline]
pub(crate) fn ln(x: f32) -> f32 {
    log2(x) * std::f32::consts::LN_2
}
/// `x` to the power `y`; 0 for x ≤ 0.
#[inline]
pub(crate) fn pow(x: f32, y: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { exp2(y * log2(x)) }
}
pub(crate) fn sin(x: f32) -> f32 {
    libm::sinf(x)
}
pub(crate) fn cos(x: f32) -> f32 {
    libm::cosf(x)
}
