//! What a render did to the host's pixels, in numbers.

/// How many pixels one render changed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Pixels whose bytes changed.
    pub changed: u64,
    /// Pixels written with their old bytes.
    pub kept: u64,
    /// Pixels that the edit was allowed to change: above 0 in the mask (all without one) and inside
    /// the edit's extent. Every changed pixel is one of them.
    pub selected: u64,
    /// Sum over changed pixels of the largest change of a colour sample, in 0..=1 of full scale.
    pub sum_of_change: f64,
    /// Largest change of a colour sample, in 0..=1 of full scale.
    pub largest_change: f32,
}

impl Tally {
    /// Counts one changed pixel whose colour samples moved by at most `size`.
    pub(crate) fn add(&mut self, size: f32) {
        self.changed += 1;
        self.sum_of_change += f64::from(size);
        self.largest_change = self.largest_change.max(size);
    }

    /// Both renders together, as for the tiles of one layer.
    #[must_use]
    pub fn plus(self, other: Tally) -> Tally {
        Tally {
            changed: self.changed + other.changed,
            kept: self.kept + other.kept,
            selected: self.selected + other.selected,
            sum_of_change: self.sum_of_change + other.sum_of_change,
            largest_change: self.largest_change.max(other.largest_change),
        }
    }
}
