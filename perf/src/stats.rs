//! Medians and spreads.

/// The median of `values`; the mean of the two in the middle where their number is even. NaN for none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// What the good samples say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// Samples that count.
    pub used: usize,
    /// Samples that were left out because they were not good.
    pub left_out: usize,
    /// True if no sample was good, so that all of them count.
    pub all_bad: bool,
}

impl Spread {
    /// The spread of samples, each with whether it is good.
    pub fn of(samples: &[(f64, bool)]) -> Spread {
        let good: Vec<f64> = samples.iter().filter(|sample| sample.1).map(|sample| sample.0).collect();
        let all_bad = good.is_empty();
        let used = if all_bad { samples.iter().map(|sample| sample.0).collect() } else { good };
        Spread {
            median: median(used.iter().copied()),
            min: used.iter().copied().fold(f64::INFINITY, f64::min),
            max: used.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            used: used.len(),
            left_out: samples.len() - used.len(),
            all_bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn bad_samples_count_only_if_there_are_no_others() {
        let spread = Spread::of(&[(1.0, true), (9.0, false), (2.0, true), (3.0, true)]);
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!((spread.used, spread.left_out, spread.all_bad), (3, 1, false));
        let spread = Spread::of(&[(1.0, false), (2.0, false)]);
        assert_eq!((spread.median, spread.used, spread.left_out, spread.all_bad), (1.5, 2, 0, true));
    }
}
