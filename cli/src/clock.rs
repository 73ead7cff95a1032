//! The one place that reads the time of day; everything below takes it as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::units::UnixSeconds;

/// Time since 1970-01-01 UTC; zero on a machine whose clock is set before it.
pub(crate) fn now() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the others take as an argument")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `2026-11-24 17:31`, UTC.
pub(crate) fn date_and_time(since_epoch: Duration) -> String {
    let mut text = UnixSeconds::new(since_epoch.as_secs()).date_and_time();
    text.truncate(text.len() - ":00".len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_left_out() {
        assert_eq!(date_and_time(Duration::from_secs(1_795_541_470)), "2026-11-24 17:31");
    }
}
