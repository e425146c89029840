//! From samples to figures.

/// What is reported of one figure over all repetitions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// A quarter lies below.
    pub q1: f64,
    /// A quarter lies above.
    pub q3: f64,
    /// How many samples.
    pub reps: usize,
}

impl Spread {
    /// The spread of `samples`; `None` if there are none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&sorted, 0.5),
            min: *sorted.first()?,
            max: *sorted.last()?,
            q1: quantile(&sorted, 0.25),
            q3: quantile(&sorted, 0.75),
            reps: sorted.len(),
        })
    }

    /// The spread of `ours[i] / theirs[i]`: both were measured in repetition `i`, under the same load.
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(our, their)| our / their).collect();
        Self::of(&ratios)
    }

    /// The spread of `ours[i] - theirs[i]`, for counts that may be zero.
    pub fn of_differences(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let differences: Vec<f64> = ours.iter().zip(theirs).map(|(our, their)| our - their).collect();
        Self::of(&differences)
    }
}

/// The quantile by linear interpolation between neighbours.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = at * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles() {
        let spread = Spread::of(&[5.0, 1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (3.0, 1.0, 5.0));
        assert_eq!((spread.q1, spread.q3, spread.reps), (2.0, 4.0, 5));
        assert_eq!(Spread::of(&[1.0, 2.0]).unwrap().median, 1.5);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn ratios_are_paired() {
        // Both twice as slow in the second repetition: the ratio does not notice.
        let spread = Spread::of_ratios(&[1.0, 2.0], &[4.0, 8.0]).unwrap();
        assert_eq!((spread.min, spread.max), (0.25, 0.25));
    }
}
