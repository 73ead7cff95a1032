//! When to ask again, and how long to wait before.

use std::time::Duration;

use rand::Rng;

use super::clock::UnixMillis;

/// How often and how patiently a request is repeated.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Repetitions after the first attempt.
    pub retries: u32,
    /// Wait before the first repetition; doubled before each further one.
    pub first_delay: Duration,
    /// Longest wait that back-off alone reaches.
    pub max_delay: Duration,
    /// Longest `Retry-After` that is honoured; a server that asks for more is reported, not waited for.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 5,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(30),
            max_retry_after: Duration::from_secs(120),
        }
    }
}

impl RetryPolicy {
    /// The wait after failed attempt number `attempt` (from 0): exponential, then scaled by a random share in [1/2, 1],
    /// so that clients that failed together do not come back together.
    pub(crate) fn back_off(&self, attempt: u32, rng: &mut impl Rng) -> Duration {
        let doubled = 2_u32.checked_pow(attempt).and_then(|factor| self.first_delay.checked_mul(factor));
        let half = doubled.map_or(self.max_delay, |delay| delay.min(self.max_delay)) / 2;
        half + half.mul_f64(rng.random_range(0.0..1.0))
    }
}

/// What a `Retry-After` header asks for: whole seconds, or an HTTP date (RFC 9110 §10.2.3). None when it is neither.
pub(crate) fn retry_after(header: &str, now: UnixMillis) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    http_date(header).map(|date| now.until(date))
}

/// Parses the preferred date form of RFC 9110 §5.6.7, `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<UnixMillis> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let month = u64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()? + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok().filter(|value| *value < 61));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if words.next() != Some("GMT") || words.next().is_some() || clock.next().is_some() {
        return None;
    }
    // Days since the epoch, with years that begin in March so that the leap day comes last.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let days = days.checked_sub(719_469)?;
    Some(UnixMillis::new(1000 * (((days * 24 + hour) * 60 + minute) * 60 + second)))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let now = UnixMillis::new(784_111_777_000);
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(http_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(UnixMillis::new(1_709_164_800_000)));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(UnixMillis::new(0)));
        for nonsense in ["", "soon", "-3", "1.5", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Foo 1994 08:49:37 GMT", "a, b"]
        {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense:?}");
        }
    }

    #[test]
    fn back_off_doubles_up_to_its_bound_with_jitter_below() {
        let policy = RetryPolicy::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for attempt in 0..70 {
            let full = policy.first_delay.mul_f64(f64::from(1_u32 << attempt.min(20))).min(policy.max_delay);
            let delay = policy.back_off(attempt, &mut rng);
            assert!(delay <= full && delay >= full.mul_f64(0.499), "attempt {attempt}: {delay:?} of {full:?}");
        }
    }
}
