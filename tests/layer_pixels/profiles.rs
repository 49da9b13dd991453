//! ICC profiles for these tests: matrix, grey and look-up table. Not for: damaged ones.

use std::sync::LazyLock;

use moxcms::{
    ColorProfile, DataColorSpace, Layout, LutDataType, LutStore, LutType, LutWarehouse, Matrix3d,
    TransformOptions, Xyzd,
};

/// Display P3, a matrix profile wider than sRGB.
pub static P3: LazyLock<Vec<u8>> =
    LazyLock::new(|| ColorProfile::new_display_p3().encode().unwrap());

/// Linear light in the primaries of ACEScg: what renderers and raw developers hand over.
pub static WIDE_LINEAR: LazyLock<Vec<u8>> =
    LazyLock::new(|| ColorProfile::new_aces_cg_linear().encode().unwrap());

/// Grey with a gamma of 1.8.
pub static GRAY: LazyLock<Vec<u8>> =
    LazyLock::new(|| ColorProfile::new_gray_with_gamma(1.8).encode().unwrap());

/// A look-up table both ways and no matrix, as printers and scanners have: the colours of sRGB with
/// every axis bent, through 16-bit tables in Lab.
pub static LUT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut profile = ColorProfile::new_srgb();
    let none = Xyzd::default();
    (
        profile.red_colorant,
        profile.green_colorant,
        profile.blue_colorant,
    ) = (none, none, none);
    (profile.red_trc, profile.green_trc, profile.blue_trc) = (None, None, None);
    profile.cicp = None;
    profile.pcs = DataColorSpace::Lab;
    profile.lut_a_to_b_perceptual = Some(LutWarehouse::Lut(table(33, |rgb| {
        let [l, a, b] = lab(rgb.map(|v| v.powf(1.3)));
        // Lab as 16-bit tables have it: L 0..100 in 0..0xFF00, a and b from -128.
        [
            l / 100.0 * 65280.0,
            (a + 128.0) * 256.0,
            (b + 128.0) * 256.0,
        ]
    })));
    profile.lut_b_to_a_perceptual = Some(LutWarehouse::Lut(table(33, |v| {
        let place = v.map(|v| v * 65535.0);
        let lab = [
            place[0] / 65280.0 * 100.0,
            place[1] / 256.0 - 128.0,
            place[2] / 256.0 - 128.0,
        ];
        rgb(lab).map(|v| v.clamp(0.0, 1.0).powf(1.0 / 1.3) * 65535.0)
    })));
    profile.encode().unwrap()
});

/// A table of `side` points a channel; the first channel changes slowest.
fn table(side: u8, f: impl Fn([f64; 3]) -> [f64; 3]) -> LutDataType {
    let n = usize::from(side);
    let at = |i: usize| i as f64 / (n - 1) as f64;
    let clut = (0..n * n * n)
        .flat_map(|i| f([at(i / n / n), at(i / n % n), at(i % n)]))
        .map(|v| v.round().clamp(0.0, 65535.0) as u16);
    let line = || LutStore::Store16([0, 65535].repeat(3));
    LutDataType {
        num_input_channels: 3,
        num_output_channels: 3,
        num_clut_grid_points: side,
        matrix: Matrix3d::IDENTITY,
        num_input_table_entries: 2,
        num_output_table_entries: 2,
        input_table: line(),
        clut_table: LutStore::Store16(clut.collect()),
        output_table: line(),
        lut_type: LutType::Lut16,
    }
}

/// sRGB's primaries adapted to D50 (IEC 61966-2-1, Bradford), rows X, Y, Z.
const TO_XYZ: [[f64; 3]; 3] = [
    [0.436_065, 0.385_147, 0.143_066],
    [0.222_488, 0.716_873, 0.060_608],
    [0.013_916, 0.097_076, 0.714_096],
];
const WHITE: [f64; 3] = [0.9642, 1.0, 0.8249];

/// CIE Lab of sRGB-encoded colours.
fn lab(rgb: [f64; 3]) -> [f64; 3] {
    let light = rgb.map(|v| match v <= 0.040_45 {
        true => v / 12.92,
        false => ((v + 0.055) / 1.055).powf(2.4),
    });
    let f: [f64; 3] = std::array::from_fn(|i| {
        let v: f64 = (0..3).map(|c| TO_XYZ[i][c] * light[c]).sum::<f64>() / WHITE[i];
        match v > 216.0 / 24389.0 {
            true => v.cbrt(),
            false => (24389.0 / 27.0 * v + 16.0) / 116.0,
        }
    });
    [
        116.0 * f[1] - 16.0,
        500.0 * (f[0] - f[1]),
        200.0 * (f[1] - f[2]),
    ]
}

/// The inverse of [`lab`], beyond 0..=1 where the colour lies outside sRGB.
fn rgb([l, a, b]: [f64; 3]) -> [f64; 3] {
    let y = (l + 16.0) / 116.0;
    let xyz: [f64; 3] = std::array::from_fn(|i| {
        let f = [y + a / 500.0, y, y - b / 200.0][i];
        let v = match f.powi(3) > 216.0 / 24389.0 {
            true => f.powi(3),
            false => (116.0 * f - 16.0) * 27.0 / 24389.0,
        };
        v * WHITE[i]
    });
    let inverse = inverse(TO_XYZ);
    std::array::from_fn(|i| {
        let v: f64 = (0..3).map(|c| inverse[i][c] * xyz[c]).sum();
        match v <= 0.003_130_8 {
            true => 12.92 * v,
            false => 1.055 * v.powf(1.0 / 2.4) - 0.055,
        }
    })
}

fn inverse(m: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let minor = |r: usize, c: usize| {
        let (a, b) = ((r + 1) % 3, (r + 2) % 3);
        let (d, e) = ((c + 1) % 3, (c + 2) % 3);
        m[a][d] * m[b][e] - m[a][e] * m[b][d]
    };
    let det: f64 = (0..3).map(|c| m[0][c] * minor(0, c)).sum();
    std::array::from_fn(|i| std::array::from_fn(|j| minor(j, i) / det))
}

/// T or T⁻¹ of `profile`, by moxcms itself and not through ours.
pub fn converted(profile: &[u8], to_srgb: bool, colours: &[f32]) -> Vec<f32> {
    let profile = ColorProfile::new_from_slice(profile).unwrap();
    let srgb = ColorProfile::new_srgb();
    let options = TransformOptions {
        prefer_fixed_point: false,
        allow_use_cicp_transfer: false,
        allow_extended_range_rgb_xyz: true,
        ..TransformOptions::default()
    };
    let (from, to) = match to_srgb {
        true => (&profile, &srgb),
        false => (&srgb, &profile),
    };
    let transform = from
        .create_transform_f32(Layout::Rgb, to, Layout::Rgb, options)
        .unwrap();
    let mut out = vec![0.0; colours.len()];
    transform.transform(colours, &mut out).unwrap();
    out
}
