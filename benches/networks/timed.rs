//! Where a network's time goes: the native backend, each operation timed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use semblance::Result;
use semblance::nn::native::Native;
use semblance::nn::{Act, ConvSpec, LinearSpec, Mask, Ops, Plus, Several, Shape};

/// Calls, seconds, and multiplications and additions.
#[derive(Clone, Copy, Default)]
struct Spent(u32, f64, f64);

/// What the operations of a run took, one after the other, in all runs: they are the same in each. Counting costs
/// next to nothing, or small networks would be another's.
#[derive(Default)]
struct Tally {
    /// Of this run.
    done: usize,
    all: Vec<(String, Spent)>,
}

impl Tally {
    fn add(&mut self, what: impl FnOnce() -> String, seconds: f64, flops: f64) {
        if self.done == self.all.len() {
            self.all.push((what(), Spent::default()));
        }
        let (_, Spent(calls, all, work)) = &mut self.all[self.done];
        (*calls, *all, *work) = (*calls + 1, *all + seconds, *work + flops);
        self.done += 1;
    }

    /// By kind, for one of `runs`.
    fn kinds(self, runs: u32) -> BTreeMap<String, Spent> {
        let (mut kinds, each) = (BTreeMap::new(), f64::from(runs));
        for (what, Spent(calls, seconds, flops)) in self.all {
            let kind: &mut Spent = kinds.entry(what).or_default();
            *kind = Spent(
                kind.0 + calls / runs,
                kind.1 + seconds / each,
                kind.2 + flops / each,
            );
        }
        kinds
    }
}

/// A convolution, what it is called and the places of its kernel.
type Of<T> = (T, Arc<str>, usize);

/// The backend, what every kind of operation took, and whether each is done again and again, until all that it
/// reads lies in the caches.
#[derive(Clone)]
pub struct Timed(Native, Arc<Mutex<Tally>>, Arc<AtomicBool>);

/// How often.
const AGAIN: usize = 9;

fn same<'a, T>(plus: &Plus<'a, T>) -> Plus<'a, T> {
    match plus {
        Plus::Nothing => Plus::Nothing,
        Plus::PerSample(x) => Plus::PerSample(x),
        Plus::Residual(x) => Plus::Residual(x),
    }
}

impl Timed {
    pub fn new(native: Native) -> Self {
        Timed(native, Arc::default(), Arc::default())
    }

    /// What was counted, which it forgets; from now on operations are done once, or again and `again`.
    fn take(&self, again: bool) -> Tally {
        self.2.store(again, Ordering::Relaxed);
        std::mem::take(&mut *self.1.lock().unwrap())
    }

    /// Prints what `f` is made of: each kind's calls, its time among the others, its share, the time of the same
    /// operations each by itself again and again, and its rate in the network, of what the operation needs, not what
    /// a cleverer algorithm leaves out; and what is between them.
    pub fn print(&self, name: &str, f: &mut dyn FnMut()) {
        let mut once = || {
            self.1.lock().unwrap().done = 0;
            f();
        };
        once();
        self.take(false);
        let (start, mut runs) = (Instant::now(), 0);
        while runs < 3 || start.elapsed().as_secs_f64() < 1.0 {
            once();
            runs += 1;
        }
        let whole = start.elapsed().as_secs_f64() / f64::from(runs);
        let kinds = self.take(true).kinds(runs);
        once();
        let alone = self.take(false).kinds(1);
        println!("{name}: calls, milliseconds, share, by itself, GFLOP/s");
        let line = |what: &str, calls: u32, seconds: f64, alone: Option<f64>, flops: f64| {
            let (ms, share) = (1e3 * seconds, 100.0 * seconds / whole);
            let alone = alone.map_or(String::new(), |alone| format!("{:.2}", 1e3 * alone));
            let rate = match flops > 0.0 {
                true => format!("{:.0}", flops / seconds / 1e9),
                false => String::new(),
            };
            println!("{what:<36}{calls:>8}{ms:>12.2}{share:>8.1} %{alone:>12}{rate:>10}");
        };
        let mut rows: Vec<_> = kinds.into_iter().collect();
        rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
        let mut all = [(0.0, 0.0, 0.0); 2];
        for (what, Spent(calls, seconds, flops)) in rows {
            let Spent(_, by_itself, _) = alone.get(&what).copied().unwrap_or_default();
            line(&what, calls, seconds, Some(by_itself), flops);
            let sum = &mut all[usize::from(flops > 0.0)];
            *sum = (sum.0 + seconds, sum.1 + by_itself, sum.2 + flops);
        }
        let [others, products] = all;
        let between = whole - others.0 - products.0;
        line("between", 0, between, None, 0.0);
        line(
            "all that multiplies",
            0,
            products.0,
            Some(products.1),
            products.2,
        );
        let by_themselves = Some(products.1 + others.1);
        line("all", 0, whole, by_themselves, products.2);
    }

    /// Does `f`, each of whose numbers is a sum over so many `inputs`.
    fn time(
        &self,
        what: impl FnOnce() -> String,
        inputs: usize,
        f: impl Fn(&Native) -> Result<<Native as Ops>::Tensor>,
    ) -> Result<<Native as Ops>::Tensor> {
        let all = self.time_all(what, inputs, |ops| {
            f(ops).map(|out| Several::from_iter([out]))
        });
        all.map(|mut all| all.remove(0))
    }

    /// As [`Timed::time`], of several results.
    fn time_all(
        &self,
        what: impl FnOnce() -> String,
        inputs: usize,
        f: impl Fn(&Native) -> Result<Several<<Native as Ops>::Tensor>>,
    ) -> Result<Several<<Native as Ops>::Tensor>> {
        let once = || {
            let start = Instant::now();
            let out = f(&self.0)?;
            Result::Ok((out, start.elapsed().as_secs_f64()))
        };
        let (out, mut seconds) = once()?;
        if self.2.load(Ordering::Relaxed) {
            let again = (0..AGAIN).map(|_| once().map(|(_, seconds)| seconds));
            let mut again = again.collect::<Result<Vec<_>>>()?;
            again.sort_by(f64::total_cmp);
            seconds = again[AGAIN / 2];
        }
        let numbers: usize = out.iter().map(|x| self.0.shape(x).unwrap().len()).sum();
        let flops = (2 * inputs * numbers) as f64;
        self.1.lock().unwrap().add(what, seconds, flops);
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
        let f = |ops: &Native| ops.conv(x, &w.0, same(&plus));
        self.time(|| w.1.to_string(), inputs, f)
    }

    fn linear(
        &self,
        x: &Self::Tensor,
        w: &Self::Linear,
        plus: Plus<'_, Self::Tensor>,
    ) -> Result<Self::Tensor> {
        let what = || format!("linear, {} rows", self.rows(x));
        let f = |ops: &Native| ops.linear(x, w, same(&plus));
        self.time(what, self.channels(x), f)
    }

    fn linears(&self, x: &Self::Tensor, layers: &[&Self::Linear]) -> Result<Several<Self::Tensor>> {
        let what = || format!("linear layers together, {} rows", self.rows(x));
        self.time_all(what, self.channels(x), |ops| ops.linears(x, layers))
    }

    fn linear_act(&self, x: &Self::Tensor, w: &Self::Linear, act: Act) -> Result<Self::Tensor> {
        let what = || format!("linear, {} rows", self.rows(x));
        self.time(what, self.channels(x), |ops| ops.linear_act(x, w, act))
    }

    fn geglu(&self, x: &Self::Tensor, w: &Self::Linear) -> Result<Self::Tensor> {
        let what = || format!("geglu, {} rows", self.rows(x));
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
        self.time(
            || "group norm".into(),
            0,
            |ops| ops.group_norm(x, w, groups, act),
        )
    }

    fn layer_norm(&self, x: &Self::Tensor, w: &Self::Norm) -> Result<Self::Tensor> {
        self.time(|| "layer norm".into(), 0, |ops| ops.layer_norm(x, w))
    }

    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        heads: usize,
        mask: Mask,
    ) -> Result<Self::Tensor> {
        let what = || format!("attention, {} over {}", self.rows(q), self.rows(k));
        // Its scores, and of their weights its sum.
        self.time(what, 2 * self.rows(k), |ops| {
            ops.attention(q, k, v, heads, mask)
        })
    }

    fn act(&self, x: &Self::Tensor, act: Act) -> Result<Self::Tensor> {
        self.time(|| "activation".into(), 0, |ops| ops.act(x, act))
    }

    fn upsample(&self, x: &Self::Tensor, h: usize, w: usize) -> Result<Self::Tensor> {
        self.time(|| "copies".into(), 0, |ops| ops.upsample(x, h, w))
    }

    fn concat(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor> {
        self.time(|| "copies".into(), 0, |ops| ops.concat(a, b))
    }

    fn stack(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor> {
        self.time(|| "copies".into(), 0, |ops| ops.stack(parts))
    }

    fn combine(&self, terms: &[(f32, &Self::Tensor)]) -> Result<Self::Tensor> {
        self.time(|| "combine".into(), 0, |ops| ops.combine(terms))
    }
}
