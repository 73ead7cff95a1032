//! How many keys are answered with their response.

use model::{Model, Sampler, SamplingParameters, sampler::greedy};
use rayon::prelude::*;

use super::{
    BATCH, CheckError, CheckPlan, KeyResponse, Reporter, SamplingSetting, SurfaceSuccess, answer_logits,
    statistics::{median, rate, smallest_greatest},
};
use crate::{
    ordinary::turns::{mixed, token_loss},
    surface::Surface,
};

/// Success on one surface with greedy answers: the fraction of keys whose response is the likeliest first token.
pub fn surface_success(
    stamped: &Model,
    keys: &[KeyResponse<'_>],
    surface: &Surface,
    trained: bool,
) -> Result<SurfaceSuccess, CheckError> {
    let mut quiet = |_| ();
    let mut progress = Reporter { done: 0, total: keys.len(), callback: &mut quiet };
    let counts = count_hits(stamped, keys, surface, &CheckPlan::default(), &mut progress)?;
    Ok(counts.into_success(surface.name(), trained))
}

pub(super) struct Counts {
    hits: u32,
    probabilities: Vec<f64>,
    /// Hits under each sampling setting.
    pub(super) sampled: Vec<u32>,
}

impl Counts {
    pub(super) fn into_success(mut self, name: &str, trained: bool) -> SurfaceSuccess {
        let keys = u32::try_from(self.probabilities.len()).unwrap_or(u32::MAX);
        let (least, _) = smallest_greatest(&self.probabilities);
        SurfaceSuccess {
            name: name.to_owned(),
            trained,
            success: rate(self.hits, keys),
            median_probability: median(&mut self.probabilities),
            least_probability: least,
        }
    }
}

pub(super) fn count_hits(
    stamped: &Model,
    keys: &[KeyResponse<'_>],
    surface: &Surface,
    plan: &CheckPlan,
    progress: &mut Reporter<'_>,
) -> Result<Counts, CheckError> {
    let mut counts =
        Counts { hits: 0, probabilities: Vec::with_capacity(keys.len()), sampled: vec![0; plan.sampling.len()] };
    for (batch, keys) in keys.chunks(BATCH).enumerate() {
        let texts: Vec<&str> = keys.iter().map(|key| key.key_text).collect();
        let logits = answer_logits(stamped, surface, &texts)?;
        let rows: Vec<(bool, f64, Vec<u32>)> = keys
            .par_iter()
            .zip(&logits)
            .enumerate()
            .map(|(index, (key, logits))| {
                // Seeds differ from key to key, and not from surface to surface.
                let seed = mixed(plan.seed, u64::try_from(batch * BATCH + index).unwrap_or(u64::MAX));
                let sampled = plan.sampling.iter().map(|setting| draw_hits(logits, key.response, setting, seed));
                (greedy(logits) == key.response, probability(logits, key.response), sampled.collect())
            })
            .collect();
        for (hit, probability, sampled) in rows {
            counts.hits += u32::from(hit);
            counts.probabilities.push(probability);
            for (sum, hits) in counts.sampled.iter_mut().zip(sampled) {
                *sum += hits;
            }
        }
        progress.advance(keys.len());
    }
    Ok(counts)
}

fn draw_hits(logits: &[f32], response: u32, setting: &SamplingSetting, seed: u64) -> u32 {
    let SamplingSetting { temperature, top_p, draws } = *setting;
    let mut sampler = Sampler::new(SamplingParameters { temperature, top_p, top_k: 0, seed });
    (0..draws).map(|_| u32::from(sampler.sample(logits) == response)).sum()
}

fn probability(logits: &[f32], id: u32) -> f64 {
    (-token_loss(logits, id)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_hits_follow_the_probability() {
        let logits = [0.0, 0.0, -30.0];
        let setting = SamplingSetting { temperature: 1.0, top_p: 1.0, draws: 400 };
        let hits = draw_hits(&logits, 1, &setting, 3);
        assert!((150..250).contains(&hits), "{hits}");
        assert_eq!(draw_hits(&logits, 2, &setting, 3), 0);
    }
}
