//! Points in time and durations. They are arguments everywhere in this package: it reads no clock.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! time {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps the number.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

time! {
    /// A point in time, in seconds since 1970 (UTC), as block timestamps have it.
    UnixSeconds;
    /// A point in time, in milliseconds since 1970 (UTC).
    UnixMilliseconds;
    /// A duration in seconds.
    Seconds;
}

impl UnixSeconds {
    /// The later time, or `None` when it does not fit.
    pub const fn checked_add(self, duration: Seconds) -> Option<Self> {
        match self.0.checked_add(duration.0) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The duration since an earlier time, or `None` when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Option<Seconds> {
        match self.0.checked_sub(earlier.0) {
            Some(value) => Some(Seconds(value)),
            None => None,
        }
    }
}

impl UnixSeconds {
    /// As people read it: `2026-11-24 17:31:10`, UTC, in the Gregorian calendar.
    pub fn date_and_time(self) -> String {
        let (year, month, day) = civil(self.0 / 86_400);
        let (hour, minute, second) = (self.0 / 3_600 % 24, self.0 / 60 % 60, self.0 % 60);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

/// Gregorian date of a day since 1970-01-01: counts in 400-year cycles from a March, where the leap day comes last.
const fn civil(days_since_epoch: u64) -> (u64, u64, u64) {
    // A point in time has at most 2^64 / 86400 days, so nothing saturates.
    let days = days_since_epoch.saturating_add(719_468);
    let day_of_cycle = days % 146_097;
    let leap_days = (day_of_cycle / 1_460).saturating_add(day_of_cycle / 146_096).saturating_sub(day_of_cycle / 36_524);
    let year_of_cycle = day_of_cycle.saturating_sub(leap_days) / 365;
    let days_before =
        year_of_cycle.saturating_mul(365).saturating_add(year_of_cycle / 4).saturating_sub(year_of_cycle / 100);
    let day_of_year = day_of_cycle.saturating_sub(days_before);
    let month_from_march = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    let day = day_of_year.saturating_sub(month_from_march.saturating_mul(153).saturating_add(2) / 5).saturating_add(1);
    let (month, next_year) = match month_from_march {
        0..=9 => (month_from_march.saturating_add(3), 0),
        _ => (month_from_march.saturating_sub(9), 1),
    };
    let year = (days / 146_097).saturating_mul(400).saturating_add(year_of_cycle).saturating_add(next_year);
    (year, month, day)
}

impl UnixMilliseconds {
    /// The second within which it lies.
    pub const fn second_down(self) -> UnixSeconds {
        UnixSeconds(self.0 / 1_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn adding_a_duration_and_taking_it_away_again(start: u64, duration: u64) {
            let (start, duration) = (UnixSeconds::new(start), Seconds::new(duration));
            match start.checked_add(duration) {
                Some(end) => {
                    prop_assert_eq!(end.since(start), Some(duration));
                    prop_assert_eq!(start.since(end).is_some(), duration == Seconds::new(0));
                }
                None => prop_assert!(start.get() > u64::MAX - duration.get()),
            }
        }
    }

    #[test]
    fn dates_are_gregorian() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (1_795_541_470, "2026-11-24 17:31:10"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (u64::MAX, "584554051223-11-09 07:00:15"),
        ] {
            assert_eq!(UnixSeconds::new(seconds).date_and_time(), text);
        }
    }

    #[test]
    fn milliseconds_round_down_to_seconds() {
        assert_eq!(UnixMilliseconds::new(1_999).second_down(), UnixSeconds::new(1));
        assert_eq!(UnixMilliseconds::new(2_000).second_down(), UnixSeconds::new(2));
        assert_eq!(serde_json::to_string(&UnixMilliseconds::new(u64::MAX)).unwrap(), u64::MAX.to_string());
    }
}
