//! Which features go with good answers: the mutual information between a feature's activity on a
//! prompt and whether the prompt's loss is below the median.

use serde::Serialize;

/// A feature, and what it says about answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranked {
    /// The feature.
    pub feature: u32,
    /// Bits about whether an answer is good, less those that chance gives on average (Miller 1955:
    /// degrees of freedom ÷ 2n, in nats); not below 0.
    pub bits: f64,
    /// Prompts on which it is active where their answer is predicted.
    pub prompts: usize,
    /// Mean loss of these, nats per response token; none where there are none.
    pub loss_active: Option<f64>,
    /// Mean loss of the others.
    pub loss_silent: Option<f64>,
}

/// How active a feature is on a prompt: not at all, or below or above its median among those where
/// it is. Of each level, prompts with a bad and with a good answer.
type Counts = [[usize; 2]; 3];

/// Every feature that is active on some prompt, the most telling first.
///
/// `activity` has each prompt's features with their mean activation, `losses` the prompts' losses
/// per response token.
pub fn rank(activity: &[Vec<(u32, f32)>], losses: &[f64], features: usize) -> Vec<Ranked> {
    let median = median(losses.to_vec());
    let good: Vec<bool> = losses.iter().map(|loss| *loss < median).collect();
    let mut by_feature: Vec<Vec<(usize, f32)>> = vec![Vec::new(); features];
    for (prompt, active) in activity.iter().take(losses.len()).enumerate() {
        for (feature, value) in active {
            let list = by_feature.get_mut(*feature as usize);
            list.into_iter().for_each(|list| list.push((prompt, *value)));
        }
    }
    let each = |(feature, active): (usize, &Vec<(usize, f32)>)| {
        (!active.is_empty()).then(|| ranked(feature as u32, active, losses, &good))
    };
    let mut all: Vec<Ranked> = by_feature.iter().enumerate().filter_map(each).collect();
    all.sort_by(|a, b| b.bits.total_cmp(&a.bits).then(a.feature.cmp(&b.feature)));
    all
}

fn ranked(feature: u32, active: &[(usize, f32)], losses: &[f64], good: &[bool]) -> Ranked {
    let strong = median(active.iter().map(|(_, value)| f64::from(*value)).collect());
    let mut levels = vec![0usize; losses.len()];
    for (prompt, value) in active {
        let level = if f64::from(*value) < strong { 1 } else { 2 };
        levels.get_mut(*prompt).into_iter().for_each(|place| *place = level);
    }
    let mut counts = Counts::default();
    for (level, good) in levels.iter().zip(good) {
        let place = counts.get_mut(*level).and_then(|row| row.get_mut(usize::from(*good)));
        place.into_iter().for_each(|count| *count += 1);
    }
    let mean = |wanted: bool| {
        let own = levels.iter().zip(losses).filter(|(level, _)| (**level > 0) == wanted);
        let own: Vec<f64> = own.map(|(_, loss)| *loss).collect();
        (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64)
    };
    Ranked {
        feature,
        bits: information(&counts),
        prompts: active.len(),
        loss_active: mean(true),
        loss_silent: mean(false),
    }
}

/// The mutual information of a table, in bits.
fn information(counts: &Counts) -> f64 {
    let rows = counts.map(|row| row.iter().sum::<usize>());
    let columns = counts.iter().fold([0; 2], |[a, b], [x, y]| [a + x, b + y]);
    let n = rows.iter().sum::<usize>().max(1) as f64;
    let plain = entropy(&rows, n) + entropy(&columns, n) - entropy(counts.as_flattened(), n);
    let free = |counts: &[usize]| counts.iter().filter(|n| **n > 0).count().saturating_sub(1);
    let chance = (free(&rows) * free(&columns)) as f64 / (2.0 * n * std::f64::consts::LN_2);
    (plain - chance).max(0.0)
}

/// The entropy of counts that sum to n, in bits.
fn entropy(counts: &[usize], n: f64) -> f64 {
    let shares = counts.iter().filter(|count| **count > 0).map(|count| *count as f64 / n);
    shares.map(|p| -p * p.log2()).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(below), Some(above)) if values.len().is_multiple_of(2) => (below + above) / 2.0,
        (_, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_all_has_one_bit_and_what_tells_nothing_none() {
        let losses: Vec<f64> = (0..200).map(f64::from).collect();
        // 0 is active on good answers only, 1 on every other prompt, 2 on all, the stronger the
        // worse, 3 nowhere.
        let active = |prompt: usize| {
            let mut all = vec![(2, 1.0 + prompt as f32)];
            if prompt < 100 {
                all.push((0, 1.0));
            }
            if prompt.is_multiple_of(2) {
                all.push((1, 1.0));
            }
            all
        };
        let ranked = rank(&(0..200).map(active).collect::<Vec<_>>(), &losses, 4);
        let order: Vec<u32> = ranked.iter().map(|r| r.feature).collect();
        assert_eq!(order, [0, 2, 1]);
        assert!((ranked[0].bits - 1.0).abs() < 0.01 && (ranked[1].bits - 1.0).abs() < 0.01);
        assert!(ranked[2].bits < 0.01);
        assert_eq!((ranked[0].loss_active, ranked[0].loss_silent), (Some(49.5), Some(149.5)));
        assert_eq!((ranked[1].prompts, ranked[1].loss_silent), (200, None));
    }

    #[test]
    fn the_information_of_a_table_is_that_of_its_definition() {
        let counts: Counts = [[10, 3], [4, 8], [0, 5]];
        let n = 30.0;
        let (rows, columns) = ([13.0, 12.0, 5.0], [14.0, 16.0]);
        let mut plain = 0.0;
        for (row, of_row) in counts.iter().zip(rows) {
            for (count, of_column) in row.iter().zip(columns) {
                let p = *count as f64 / n;
                if p > 0.0 {
                    plain += p * (p / (of_row / n * of_column / n)).log2();
                }
            }
        }
        // Three levels, two answers.
        let corrected = plain - 2.0 / (2.0 * n * 2.0f64.ln());
        assert!((information(&counts) - corrected).abs() < 1e-12);
    }

    #[test]
    fn chance_does_not_pass_for_information() {
        // 1,000 features that are active at random, on 60 prompts.
        let losses: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 61)).collect();
        let mut state = 1u64;
        let mut coin = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 63 == 0
        };
        let activity: Vec<Vec<(u32, f32)>> = losses
            .iter()
            .map(|_| (0..1000).filter(|_| coin()).map(|f| (f, 1.0)).collect())
            .collect();
        let all = rank(&activity, &losses, 1000);
        let mean = all.iter().map(|r| r.bits).sum::<f64>() / 1000.0;
        assert!(mean < 0.01, "{mean}");
    }
}
