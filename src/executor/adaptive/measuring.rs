//! Which operations are measured, because two batches say nothing about two ways.

/// From the first of these times per operation on, operations are measured, and no longer below the second one: what batches of
/// both kinds take could not be compared.
const MEASURED_NS: [f64; 2] = [LONG_NS, 1_000.0];
/// The same where batches differ by more than `DIFFERENT`: of two short ones, too, the first says little about the second, and
/// measuring short ones costs less than a percent.
const MEASURED_IF_DIFFERENT_NS: [f64; 2] = [700.0, 350.0];
/// From this time on an operation does more than wait for a key or two.
pub const LONG_NS: f64 = 1_400.0;
/// How far the time per operation of a batch is from the average, on average, as a share of that. One that was disturbed does
/// not come near this.
const DIFFERENT: f64 = 0.25;
/// The weight of the newest batch.
const DIFFERENCE_WEIGHT: f64 = 0.0625;
/// One measurement for so much work; more where batches are not alike, because there a few long operations may decide, and
/// those measured stand for all.
const MEASURING_NS: f64 = 8_000.0;
const MEASURING_IF_UNLIKE_NS: f64 = 3_000.0;
const UNLIKE: f64 = 0.05;

/// How far the time per operation of a batch is from the average, on average, as a share of that.
#[derive(Clone, Copy, Debug)]
pub struct Difference(f64);

impl Default for Difference {
    fn default() -> Self {
        // Until it is known.
        Difference(2.0 * UNLIKE)
    }
}

impl Difference {
    /// Takes in a batch whose operations took `ns` each, where they take `average`.
    pub fn add(&mut self, ns: f64, average: f64) {
        self.0 += DIFFERENCE_WEIGHT * ((ns / average - 1.0).abs() - self.0);
    }

    /// Operations are to be measured whose position is a multiple of this; none if it is 0. They take `ns` each, and are `measured`
    /// so far or not.
    pub fn measured(self, ns: f64, measured: bool) -> usize {
        let bounds = if self.0 > DIFFERENT { MEASURED_IF_DIFFERENT_NS } else { MEASURED_NS };
        let bound = bounds[usize::from(measured)];
        let every_ns = if self.0 > UNLIKE { MEASURING_IF_UNLIKE_NS } else { MEASURING_NS };
        if ns >= bound { (every_ns / ns).ceil() as usize } else { 0 }
    }
}
