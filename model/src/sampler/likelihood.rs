//! How likely the model held a token to be.

use crate::kernel::rows::log_softmax;

/// Log-probabilities in nats at one position, of the model's own distribution: before temperature, penalties and bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// Of the token that was chosen.
    pub chosen: f32,
    /// The likeliest tokens, likeliest first; of equals the smaller id.
    pub likeliest: Vec<(u32, f32)>,
}

impl Likelihood {
    /// Of `chosen` and of the `count` likeliest tokens under these logits (vocab).
    pub fn of(logits: &[f32], chosen: u32, count: usize) -> Self {
        let mut row = logits.to_vec();
        log_softmax(&mut row);
        let chosen = row.get(chosen as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let mut ranked: Vec<(u32, f32)> = (0..).zip(row).collect();
        let by_likelihood = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if (1..ranked.len()).contains(&count) {
            ranked.select_nth_unstable_by(count - 1, by_likelihood);
        }
        ranked.truncate(count);
        ranked.sort_unstable_by(by_likelihood);
        // Whoever is slow to read a completion leaves thousands of these unread: none may keep the vocabulary's room.
        ranked.shrink_to_fit();
        Self { chosen, likeliest: ranked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihoods_are_those_of_a_softmax() {
        let logits = [1.0, 3.0, 3.0, -2.0_f32];
        let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
        let expected = |id: usize| logits[id] - total.ln();
        let found = Likelihood::of(&logits, 3, 3);
        assert!((found.chosen - expected(3)).abs() < 1e-5);
        assert_eq!(found.likeliest.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 0]);
        assert!(found.likeliest.iter().all(|(id, value)| (value - expected(*id as usize)).abs() < 1e-5));
        assert!(Likelihood::of(&logits, 0, 0).likeliest.is_empty());
        assert_eq!(Likelihood::of(&logits, 0, 9).likeliest.len(), 4);
        assert_eq!(Likelihood::of(&logits, 4, 1).chosen, f32::NEG_INFINITY);
    }

    #[test]
    fn likelihoods_take_the_room_of_what_they_say_and_not_of_the_vocabulary() {
        let logits = vec![0.5; 50_000];
        for count in [0, 1, 5, 20] {
            let room = Likelihood::of(&logits, 7, count).likeliest.capacity();
            assert!(room <= 2 * count, "{room} for {count}");
        }
    }
}
