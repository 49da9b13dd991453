//! Billions of multiplications and additions a second of ONE core, by kernel and path:
//! `cargo bench -p semblance-kernels [-- FILTER]`, or 3 × 3 convolutions by tiles: `-- --tiles [FILTER]`.
//!
//! On every path that the CPU has, or on the one that `SEMBLANCE_CPU` names.
//!
//! At sizes of the embedded model and of Stable Diffusion 1.5. Counts the time that the thread was
//! running where the system tells it (Linux), so that other work on the machine disturbs little, and
//! what the operation needs, not what a cleverer algorithm leaves out.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use semblance_kernels::*;

fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 12.9898).sin()).collect()
}

/// Seconds that this thread was running; of the clock where the system does not say.
fn busy(since: Instant) -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    nanoseconds.map_or(since.elapsed().as_secs_f64(), |n| n / 1e9)
}

/// `work` a second of `f`, in billions.
fn rate(work: f64, mut f: impl FnMut()) -> f64 {
    f();
    let since = Instant::now();
    let start = busy(since);
    let mut runs = 0;
    // Long enough for a clock that moves every few milliseconds.
    while busy(since) - start < 0.1 || runs < 2 {
        f();
        runs += 1;
    }
    work * f64::from(runs) / (busy(since) - start) / 1e9
}

fn conv(cpu: Cpu, n: usize, side: usize, inputs: usize, outputs: usize, size: usize) -> f64 {
    tiled(cpu, (n, side, size), (inputs, outputs), Tiling::Direct)
}

fn tiled(
    cpu: Cpu,
    (n, side, size): (usize, usize, usize),
    (inputs, outputs): (usize, usize),
    tiling: Tiling,
) -> f64 {
    let window = Window {
        size,
        stride: 1,
        padding: (size / 2, size / 2),
    };
    let area = size * size;
    let kernel = noise(inputs * outputs * area);
    let (io, bias) = ((inputs, outputs), noise(outputs));
    let w = Conv::tiled(cpu, &kernel, &bias, io, window, tiling).unwrap();
    let (h, c) = (side, inputs);
    let x = noise(n * h * h * c);
    let mut out = vec![0.0; n * h * h * outputs];
    let from = Size { n, h, w: h, c };
    rate((2 * n * h * h * area * inputs * outputs) as f64, || {
        w.run(&x, from, Finish::default(), &mut out).unwrap()
    })
}

fn dense(cpu: Cpu, rows: usize, inputs: usize, outputs: usize) -> f64 {
    let w = Weights::linear(cpu, &noise(inputs * outputs), None, inputs, outputs).unwrap();
    let x = noise(rows * inputs);
    let mut out = vec![0.0; rows * outputs];
    rate((2 * rows * inputs * outputs) as f64, || {
        linear(&x, 1, &w, Finish::default(), &mut out).unwrap()
    })
}

fn one_sample(queries: usize, keys: usize, heads: usize, size: usize) -> Heads {
    Heads {
        samples: 1,
        queries,
        keys,
        heads,
        size,
    }
}

fn attend(cpu: Cpu, queries: usize, keys: usize, heads: usize, size: usize) -> f64 {
    let row = heads * size;
    let (q, k) = (noise(queries * row), noise(keys * row));
    let mut out = q.clone();
    let h = one_sample(queries, keys, heads, size);
    rate((4 * queries * keys * row) as f64, || {
        attention(cpu, &q, &k, &k, h, Mask::None, &mut out).unwrap()
    })
}

/// The cotangents of queries, keys and values.
fn attend_back(cpu: Cpu, queries: usize, keys: usize, heads: usize, size: usize) -> f64 {
    let row = heads * size;
    let (q, k) = (noise(queries * row), noise(keys * row));
    let at = Qkv {
        q: &q,
        k: &k,
        v: &k,
    };
    let (mut gq, mut gk, mut gv) = (q.clone(), k.clone(), k.clone());
    let h = one_sample(queries, keys, heads, size);
    let (mut y, mut lse) = (q.clone(), vec![0.0; queries * heads]);
    let leaves = attention_leaves(cpu, keys);
    if leaves {
        let qkv = [at.q, at.k, at.v].map(Input::from);
        let to = Output::Plain(&mut y);
        attention_and_lse(cpu, qkv, h, Mask::None, to, &mut lse).unwrap();
    }
    let left = leaves.then_some(Left { y: &y, lse: &lse });
    rate((10 * queries * keys * row) as f64, || {
        let out = [&mut gq[..], &mut gk[..], &mut gv[..]];
        attention_cotangent(cpu, at, left, &q, h, Mask::None, out).unwrap()
    })
}

/// Billions of numbers a second.
fn norm(cpu: Cpu, rows: usize, c: usize, groups: usize) -> f64 {
    let x = noise(rows * c);
    let mut out = x.clone();
    let affine = Affine {
        scale: &noise(c),
        shift: &noise(c),
        eps: 1e-5,
    };
    rate((rows * c) as f64, || {
        group_norm(cpu, &x, 1, groups, affine, Act::Silu, &mut out).unwrap()
    })
}

type Measure = (&'static str, fn(Cpu) -> f64);

const MEASURES: &[Measure] = &[
    ("conv 3×3 16² 64→64", |c| conv(c, 1, 16, 64, 64, 3)),
    ("conv 3×3 8² 128→128", |c| conv(c, 1, 8, 128, 128, 3)),
    ("conv 3×3 4² 192→192", |c| conv(c, 1, 4, 192, 192, 3)),
    ("conv 3×3 128² 16→16", |c| conv(c, 1, 128, 16, 16, 3)),
    ("conv 3×3 64² 32→32", |c| conv(c, 1, 64, 32, 32, 3)),
    ("conv 3×3 16² 4→64", |c| conv(c, 1, 16, 4, 64, 3)),
    ("conv 3×3 128² 16→3", |c| conv(c, 1, 128, 16, 3, 3)),
    ("linear 64 rows 128→128", |c| dense(c, 64, 128, 128)),
    ("linear 16 rows 192→1536", |c| dense(c, 16, 192, 1536)),
    ("linear 1 row 256→256", |c| dense(c, 1, 256, 256)),
    ("attention 64 over 64, 4×32", |c| attend(c, 64, 64, 4, 32)),
    ("group norm, G/s, 256×64", |c| norm(c, 256, 64, 16)),
    ("conv 3×3 64² 320→320", |c| conv(c, 1, 64, 320, 320, 3)),
    ("conv 3×3 32² 640→640", |c| conv(c, 1, 32, 640, 640, 3)),
    ("conv 3×3 16² 1280→1280", |c| {
        conv(c, 1, 16, 1280, 1280, 3)
    }),
    ("conv 3×3 8² 1280→1280", |c| {
        conv(c, 1, 8, 1280, 1280, 3)
    }),
    ("conv 3×3 512² 128→128", |c| {
        conv(c, 1, 512, 128, 128, 3)
    }),
    ("conv 3×3 256² 256→256", |c| {
        conv(c, 1, 256, 256, 256, 3)
    }),
    ("conv 3×3 128² 512→512", |c| {
        conv(c, 1, 128, 512, 512, 3)
    }),
    ("conv 1×1 512² 256→128", |c| {
        conv(c, 1, 512, 256, 128, 1)
    }),
    ("linear 4096 rows 320→320", |c| dense(c, 4096, 320, 320)),
    ("linear 1024 rows 640→5120", |c| dense(c, 1024, 640, 5120)),
    ("linear 256 rows 1280→1280", |c| dense(c, 256, 1280, 1280)),
    ("linear 256 rows 5120→1280", |c| dense(c, 256, 5120, 1280)),
    ("attention 4096², 8×40", |c| attend(c, 4096, 4096, 8, 40)),
    ("attention 1024², 8×80", |c| attend(c, 1024, 1024, 8, 80)),
    ("attention 4096×77, 8×40", |c| attend(c, 4096, 77, 8, 40)),
    ("attention back 4096², 8×40", |c| {
        attend_back(c, 4096, 4096, 8, 40)
    }),
    ("attention back 1024², 8×80", |c| {
        attend_back(c, 1024, 1024, 8, 80)
    }),
    ("attention back 4096×77, 8×40", |c| {
        attend_back(c, 4096, 77, 8, 40)
    }),
    ("group norm, G/s, 4096×320", |c| norm(c, 4096, 320, 32)),
    ("group norm, G/s, 512²×128", |c| {
        norm(c, 512 * 512, 128, 32)
    }),
];

/// Sides and channels of the 3 × 3 convolutions that `--tiles` times in every way.
const TILES: &[(usize, usize, usize)] = &[
    (128, 3, 16),
    (128, 16, 16),
    (128, 16, 3),
    (128, 32, 16),
    (64, 32, 32),
    (32, 64, 64),
    (16, 4, 64),
    (16, 64, 64),
    (16, 128, 128),
    (8, 128, 128),
    (8, 320, 128),
    (4, 192, 192),
    (64, 320, 320),
    (64, 960, 320),
    (32, 640, 640),
    (16, 640, 640),
    (16, 1280, 1280),
    (8, 1280, 1280),
];

/// What [`Tiling::choose`] decides by.
fn tiles(cpus: &[Cpu], filter: Option<&String>) {
    print!("{:<28}", "GFLOP/s of nine products");
    (Tiling::ALL.iter()).for_each(|tiling| print!("{:>14}", format!("{tiling:?}")));
    println!();
    for cpu in cpus {
        for &(side, inputs, outputs) in TILES {
            let name = format!("{} {side}² {inputs}→{outputs}", cpu.path());
            if filter.is_some_and(|f| !name.contains(f)) {
                continue;
            }
            print!("{name:<28}");
            for tiling in Tiling::ALL {
                print!(
                    "{:>14.1}",
                    tiled(*cpu, (1, side, 3), (inputs, outputs), tiling)
                );
            }
            println!();
        }
    }
}

fn main() {
    // cargo passes --bench.
    let filter = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let cpus: Vec<Cpu> = match std::env::var_os(cpu::VARIABLE) {
        Some(_) => vec![Cpu::detect().unwrap()],
        None => (CpuPath::ALL.into_iter())
            .filter_map(|p| Cpu::new(p).ok())
            .collect(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.unwrap();
    if std::env::args().any(|a| a == "--tiles") {
        return pool.install(|| tiles(&cpus, filter.as_ref()));
    }
    print!("{:<28}", "GFLOP/s");
    cpus.iter().for_each(|c| print!("{:>12}", c.path().name()));
    println!();
    for (name, f) in MEASURES {
        if filter.as_ref().is_some_and(|f| !name.contains(f)) {
            continue;
        }
        print!("{name:<28}");
        for cpu in &cpus {
            print!("{:>12.1}", pool.install(|| f(*cpu)));
        }
        println!();
    }
}
