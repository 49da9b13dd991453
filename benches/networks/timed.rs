//! Where a network's time goes: the native backend, each operation timed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use semblance::Result;
use semblance::nn::native::Native;
use semblance::nn::{Act, ConvSpec, LinearSpec, Mask, Ops, Plus, Shape};

type Tally = BTreeMap<String, (u32, f64)>;
type Of<T> = (T, Arc<str>);

/// The backend, and calls and seconds of every kind of operation.
#[derive(Clone)]
pub struct Timed(Native, Arc<Mutex<Tally>>);

impl Timed {
    pub fn new(native: Native) -> Self {
        Timed(native, Arc::default())
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        self.1.lock().unwrap().clear();
    }

    /// Prints each kind's share of `whole` seconds of `runs` runs, and what is between them.
    pub fn print(&self, whole: f64, runs: u32) {
        let tally = self.1.lock().unwrap();
        let mut rows: Vec<_> = tally.iter().collect();
        rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
        let line = |what: &str, calls: u32, seconds: f64| {
            let ms = 1e3 * seconds / f64::from(runs);
            println!(
                "{what:<32}{calls:>8}{ms:>12.2}{:>8.1} %",
                100.0 * seconds / whole
            );
        };
        for (what, (calls, seconds)) in rows {
            line(what, calls / runs, *seconds);
        }
        let inside: f64 = tally.values().map(|(_, s)| s).sum();
        line("between", 0, whole - inside);
        line("all", 0, whole);
    }

    fn time<T>(&self, what: String, f: impl FnOnce(&Native) -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let out = f(&self.0);
        let seconds = start.elapsed().as_secs_f64();
        let mut tally = self.1.lock().unwrap();
        let entry = tally.entry(what).or_default();
        *entry = (entry.0 + 1, entry.1 + seconds);
        out
    }

    fn rows(&self, x: &<Native as Ops>::Tensor) -> usize {
        self.0.shape(x).map_or(0, |s| s.rows_per_sample())
    }
}

impl Ops for Timed {
    type Tensor = <Native as Ops>::Tensor;
    type Conv = Of<<Native as Ops>::Conv>;
    type Linear = <Native as Ops>::Linear;
    type Norm = <Native as Ops>::Norm;

    fn name(&self) -> String {
        self.0.name()
    }

    fn awake<R>(&self, f: impl FnOnce() -> R) -> R {
        self.0.awake(f)
    }

    fn make_conv(&self, spec: ConvSpec<'_>) -> Result<Self::Conv> {
        let (size, stride) = (spec.size, spec.stride);
        let map = spec
            .map
            .map_or(String::new(), |(h, w)| format!(" to {h}×{w}"));
        let what = format!("conv {size}×{size}/{stride}{map}");
        Ok((self.0.make_conv(spec)?, what.into()))
    }

    fn make_linear(&self, spec: LinearSpec<'_>) -> Result<Self::Linear> {
        self.0.make_linear(spec)
    }

    fn make_gate(&self, spec: LinearSpec<'_>) -> Result<Self::Linear> {
        self.0.make_gate(spec)
    }

    fn make_norm(&self, scale: &[f32], shift: &[f32], eps: f32) -> Result<Self::Norm> {
        self.0.make_norm(scale, shift, eps)
    }

    fn value(&self, data: Vec<f32>, shape: Shape) -> Result<Self::Tensor> {
        self.0.value(data, shape)
    }

    fn numbers(&self, x: &Self::Tensor) -> Result<Vec<f32>> {
        self.0.numbers(x)
    }

    fn shape(&self, x: &Self::Tensor) -> Result<Shape> {
        self.0.shape(x)
    }

    fn conv(
        &self,
        x: &Self::Tensor,
        w: &Self::Conv,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor> {
        self.time(w.1.to_string(), |ops| ops.conv(x, &w.0, plus))
    }

    fn linear(
        &self,
        x: &Self::Tensor,
        w: &Self::Linear,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor> {
        let what = format!("linear, {} rows", self.rows(x));
        self.time(what, |ops| ops.linear(x, w, plus))
    }

    fn linear_act(&self, x: &Self::Tensor, w: &Self::Linear, act: Act) -> Result<Self::Tensor> {
        let what = format!("linear, {} rows", self.rows(x));
        self.time(what, |ops| ops.linear_act(x, w, act))
    }

    fn geglu(&self, x: &Self::Tensor, w: &Self::Linear) -> Result<Self::Tensor> {
        let what = format!("geglu, {} rows", self.rows(x));
        self.time(what, |ops| ops.geglu(x, w))
    }

    fn group_norm(
        &self,
        x: &Self::Tensor,
        w: &Self::Norm,
        groups: usize,
        act: Act,
    ) -> Result<Self::Tensor> {
        self.time("group norm".into(), |ops| ops.group_norm(x, w, groups, act))
    }

    fn layer_norm(&self, x: &Self::Tensor, w: &Self::Norm) -> Result<Self::Tensor> {
        self.time("layer norm".into(), |ops| ops.layer_norm(x, w))
    }

    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<Self::Tensor> {
        let what = format!("attention, {} over {}", self.rows(q), self.rows(k));
        self.time(what, |ops| ops.attention(q, k, v, heads, mask))
    }

    fn act(&self, x: &Self::Tensor, act: Act) -> Result<Self::Tensor> {
        self.time("activation".into(), |ops| ops.act(x, act))
    }

    fn upsample(&self, x: &Self::Tensor, h: usize, w: usize) -> Result<Self::Tensor> {
        self.time("copies".into(), |ops| ops.upsample(x, h, w))
    }

    fn concat(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor> {
        self.time("copies".into(), |ops| ops.concat(a, b))
    }

    fn stack(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor> {
        self.time("copies".into(), |ops| ops.stack(parts))
    }

    fn combine(&self, terms: &[(f32, &Self::Tensor)]) -> Result<Self::Tensor> {
        self.time("combine".into(), |ops| ops.combine(terms))
    }
}
