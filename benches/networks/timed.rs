//! Where a network's time goes: the native backend, each operation timed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use semblance::Result;
use semblance::nn::native::Native;
use semblance::nn::{Act, ConvSpec, LinearSpec, Mask, Ops, Plus, Several, Shape};

/// Calls, seconds, and multiplications and additions.
#[derive(Clone, Copy, Default)]
struct Spent(u32, f64, f64);

type Tally = BTreeMap<String, Spent>;

/// A convolution, what it is called and the places of its kernel.
type Of<T> = (T, Arc<str>, usize);

/// The backend, and what every kind of operation took.
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

    /// Prints each kind's share of `whole` seconds of `runs` runs, and what is between them; in GFLOP/s what the
    /// operation needs, not what a cleverer algorithm leaves out.
    pub fn print(&self, whole: f64, runs: u32) {
        let tally = self.1.lock().unwrap();
        let mut rows: Vec<_> = tally.iter().collect();
        rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
        let line = |what: &str, Spent(calls, seconds, flops): Spent| {
            let ms = 1e3 * seconds / f64::from(runs);
            let share = 100.0 * seconds / whole;
            let rate = match flops > 0.0 {
                true => format!("{:.0}", flops / seconds / 1e9),
                false => String::new(),
            };
            let calls = calls / runs;
            println!("{what:<36}{calls:>8}{ms:>12.2}{share:>8.1} %{rate:>10}");
        };
        let mut all = Spent::default();
        for (what, spent) in rows {
            line(what, *spent);
            all = Spent(0, all.1 + spent.1, all.2 + spent.2);
        }
        line("between", Spent(0, whole - all.1, 0.0));
        line("all", Spent(0, whole, all.2));
    }

    /// Does `f`, each of whose numbers is a sum over so many `inputs`.
    fn time(
        &self,
        what: String,
        inputs: usize,
        f: impl FnOnce(&Native) -> Result<<Native as Ops>::Tensor>,
    ) -> Result<<Native as Ops>::Tensor> {
        let all = self.time_all(what, inputs, |ops| {
            f(ops).map(|out| Several::from_iter([out]))
        });
        all.map(|mut all| all.remove(0))
    }

    /// As [`Timed::time`], of several results.
    fn time_all(
        &self,
        what: String,
        inputs: usize,
        f: impl FnOnce(&Native) -> Result<Several<<Native as Ops>::Tensor>>,
    ) -> Result<Several<<Native as Ops>::Tensor>> {
        let start = Instant::now();
        let out = f(&self.0)?;
        let seconds = start.elapsed().as_secs_f64();
        let numbers: usize = out.iter().map(|x| self.0.shape(x).unwrap().len()).sum();
        let flops = (2 * inputs * numbers) as f64;
        let mut tally = self.1.lock().unwrap();
        let Spent(calls, all, work) = tally.get(&what).copied().unwrap_or_default();
        tally.insert(what, Spent(calls + 1, all + seconds, work + flops));
        Ok(out)
    }

    fn channels(&self, x: &<Native as Ops>::Tensor) -> usize {
        self.0.shape(x).map_or(0, |s| s.c)
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
        Ok((self.0.make_conv(spec)?, what.into(), size * size))
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

    fn value(
        &self,
        data: impl AsRef<[f32]> + Into<Vec<f32>>,
        shape: Shape,
    ) -> Result<Self::Tensor> {
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
        let inputs = w.2 * self.channels(x);
        self.time(w.1.to_string(), inputs, |ops| ops.conv(x, &w.0, plus))
    }

    fn linear(
        &self,
        x: &Self::Tensor,
        w: &Self::Linear,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor> {
        let what = format!("linear, {} rows", self.rows(x));
        self.time(what, self.channels(x), |ops| ops.linear(x, w, plus))
    }

    fn linears(&self, x: &Self::Tensor, layers: &[&Self::Linear]) -> Result<Several<Self::Tensor>> {
        let what = format!("linear layers together, {} rows", self.rows(x));
        self.time_all(what, self.channels(x), |ops| ops.linears(x, layers))
    }

    fn linear_act(&self, x: &Self::Tensor, w: &Self::Linear, act: Act) -> Result<Self::Tensor> {
        let what = format!("linear, {} rows", self.rows(x));
        self.time(what, self.channels(x), |ops| ops.linear_act(x, w, act))
    }

    fn geglu(&self, x: &Self::Tensor, w: &Self::Linear) -> Result<Self::Tensor> {
        let what = format!("geglu, {} rows", self.rows(x));
        // A value and its gate.
        self.time(what, 2 * self.channels(x), |ops| ops.geglu(x, w))
    }

    fn group_norm(
        &self,
        x: &Self::Tensor,
        w: &Self::Norm,
        groups: usize,
        act: Act,
    ) -> Result<Self::Tensor> {
        self.time("group norm".into(), 0, |ops| {
            ops.group_norm(x, w, groups, act)
        })
    }

    fn layer_norm(&self, x: &Self::Tensor, w: &Self::Norm) -> Result<Self::Tensor> {
        self.time("layer norm".into(), 0, |ops| ops.layer_norm(x, w))
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
        // Its scores, and of their weights its sum.
        self.time(what, 2 * self.rows(k), |ops| {
            ops.attention(q, k, v, heads, mask)
        })
    }

    fn act(&self, x: &Self::Tensor, act: Act) -> Result<Self::Tensor> {
        self.time("activation".into(), 0, |ops| ops.act(x, act))
    }

    fn upsample(&self, x: &Self::Tensor, h: usize, w: usize) -> Result<Self::Tensor> {
        self.time("copies".into(), 0, |ops| ops.upsample(x, h, w))
    }

    fn concat(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor> {
        self.time("copies".into(), 0, |ops| ops.concat(a, b))
    }

    fn stack(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor> {
        self.time("copies".into(), 0, |ops| ops.stack(parts))
    }

    fn combine(&self, terms: &[(f32, &Self::Tensor)]) -> Result<Self::Tensor> {
        self.time("combine".into(), 0, |ops| ops.combine(terms))
    }
}
