//! Medians, and how far to trust them.

use serde::Serialize;

/// Samples drawn for an interval.
const RESAMPLES: usize = 4000;
/// Fixed, so that the same measurements give the same interval.
const SEED: u64 = 20_250_101;

/// The middle of the values; the mean of the two middle ones where there is none. Of nothing: NaN.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle), middle.checked_sub(1).and_then(|below| sorted.get(below))) {
        (1, Some(value), _) => *value,
        (0, Some(above), Some(below)) => f64::midpoint(*above, *below),
        _ => f64::NAN,
    }
}

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// The median of the values, with a percentile bootstrap interval (Efron 1979).
pub fn estimate(values: &[f64]) -> Estimate {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut draw = || -> Vec<f64> { (0..values.len()).filter_map(|_| random.choice(values).copied()).collect() };
    let mut medians: Vec<f64> = (0..RESAMPLES).map(|_| median(&draw())).collect();
    medians.sort_by(f64::total_cmp);
    let percentile = |share: f64| medians.get((share * RESAMPLES as f64) as usize).copied().unwrap_or(f64::NAN);
    Estimate { median: median(values), low: percentile(0.025), high: percentile(0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, expected) in
            [(&[3.0][..], 3.0), (&[4.0, 1.0], 2.5), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 3.0, 2.0], 2.5)]
        {
            assert_eq!(median(values), expected, "{values:?}");
        }
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn an_interval_holds_its_median_and_narrows_with_the_number_of_values() {
        let values = |count: usize| -> Vec<f64> { (0..count).map(|number| ((number * 7) % 10) as f64).collect() };
        let (few, many) = (estimate(&values(10)), estimate(&values(1000)));
        for interval in [few, many] {
            assert!(interval.low <= interval.median && interval.median <= interval.high, "{interval:?}");
        }
        assert!(many.high - many.low < few.high - few.low, "{few:?} {many:?}");
        assert_eq!(estimate(&values(10)), few, "the same each time");
    }

    #[test]
    fn equal_values_leave_no_doubt() {
        assert_eq!(estimate(&[2.0; 9]), Estimate { median: 2.0, low: 2.0, high: 2.0 });
    }
}
