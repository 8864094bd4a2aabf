//! How much longer operations take ahead of turn than one after the other.
//!
//! What they are measured to take ahead of turn contains what that costs themselves: they look at what another core has just
//! written, which may be far away, and two cores may share execution units, a clock, or time. By just as much a way would look better
//! than it is. So now and then some batches run one operation after the other, and are compared with those of about their size before them.
//! Batches differ, so only as much is believed as is sure; if it may be so much more that ahead of turn is a loss, they are compared
//! again soon.

use super::Way;

/// By how many times as long operations are measured to take at least, by way: that is the engine's part.
const ENGINE: [f64; Way::ALL.len()] = [1.0, 1.06, 1.03, 1.0, 1.0, 1.0];
/// Fewer batches say nothing; older ones count less than one.
const FEWEST: f64 = 3.5;
/// Batches are never more alike than that, as the standard deviation of the logarithm.
const ALIKE: f64 = 0.02;
/// How many standard errors off a mean may be.
const SURE: f64 = 2.0;

/// How long operations are, by batch: the logarithm of the mean nanoseconds, because lengths differ by factors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lengths {
    batches: f64,
    sum: f64,
    squares: f64,
}

impl Lengths {
    /// Takes in a batch whose operations took `ns` each, after only `kept` of what was known before is left.
    pub fn add(&mut self, ns: f64, kept: f64) {
        let length = ns.max(1.0).ln();
        self.batches = self.batches * kept + 1.0;
        self.sum = self.sum * kept + length;
        self.squares = self.squares * kept + length * length;
    }

    /// True if they can be compared.
    pub fn are_known(&self) -> bool {
        self.batches >= FEWEST
    }

    fn mean(&self) -> f64 {
        self.sum / self.batches.max(1.0)
    }

    /// The variance of the mean; `None` if there are too few batches.
    fn uncertainty(&self) -> Option<f64> {
        let variance = self.squares / self.batches - self.mean() * self.mean();
        self.are_known().then(|| variance.max(ALIKE * ALIKE) / (self.batches - 1.0))
    }

    /// By how much these are longer than `others`, as a logarithm, and how far off that may be; `None` if too little is known.
    fn exceed(&self, others: &Lengths) -> Option<(f64, f64)> {
        let uncertainty = self.uncertainty()? + others.uncertainty()?;
        Some((self.mean() - others.mean(), SURE * uncertainty.sqrt()))
    }
}

/// How many times as long operations take ahead of turn, as the last comparison has shown; nothing if there was none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inflation(Option<Bounds>);

#[derive(Clone, Copy, Debug)]
struct Bounds {
    at_least: f64,
    at_most: f64,
}

impl Inflation {
    /// Compares lengths ahead of turn with lengths one after the other; `None` if too little is known of them.
    pub fn compare(ahead: &Lengths, in_turn: &Lengths) -> Option<Inflation> {
        let (longer, off) = ahead.exceed(in_turn)?;
        let [at_least, at_most] = [longer - off, longer + off].map(|longer| longer.max(0.0).exp());
        Some(Inflation(Some(Bounds { at_least, at_most })))
    }

    /// How many times as long operations are surely measured to take in a way as in the loop; `common` is what is known of others.
    pub fn of(self, way: Way, common: Inflation) -> f64 {
        let found = self.0.or(common.0).filter(|_| way != Way::Sequential);
        found.map_or(1.0, |bounds| bounds.at_least).max(ENGINE[way as usize])
    }

    /// How many times as long they may take.
    pub fn at_most(self) -> f64 {
        self.0.map_or(f64::INFINITY, |bounds| bounds.at_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(ns: impl IntoIterator<Item = f64>) -> Lengths {
        let mut lengths = Lengths::default();
        ns.into_iter().for_each(|ns| lengths.add(ns, 1.0));
        lengths
    }

    fn factor(ahead: Lengths, in_turn: Lengths) -> Option<f64> {
        Inflation::compare(&ahead, &in_turn)?.0.map(|bounds| bounds.at_least)
    }

    #[test]
    fn alike_batches_tell_it_and_others_only_what_is_sure() {
        let alike = factor(lengths([1300.0; 6]), lengths([1000.0; 6])).unwrap();
        assert!((1.25..1.3).contains(&alike), "{alike}");
        assert_eq!(factor(lengths([1000.0; 6]), lengths([1300.0; 6])), Some(1.0));
        let differing =
            |more: f64| lengths([1000.0, 9000.0, 2000.0, 5000.0, 800.0, 4000.0].map(|ns| ns * more));
        assert_eq!(factor(differing(1.5), differing(1.0)), Some(1.0));
        assert!(factor(differing(10.0), differing(1.0)).unwrap() > 2.0);
    }

    #[test]
    fn few_batches_tell_nothing() {
        assert_eq!(factor(lengths([1300.0; 3]), lengths([1000.0; 60])), None);
        assert_eq!(factor(lengths([1300.0; 60]), lengths([1000.0; 3])), None);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut lengths = Lengths::default();
        (0..100).for_each(|_| lengths.add(1000.0, 0.95));
        (0..100).for_each(|_| lengths.add(2000.0, 0.95));
        assert!((lengths.mean().exp() - 2000.0).abs() < 20.0);
    }
}
