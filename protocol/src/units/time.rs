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
    fn milliseconds_round_down_to_seconds() {
        assert_eq!(UnixMilliseconds::new(1_999).second_down(), UnixSeconds::new(1));
        assert_eq!(UnixMilliseconds::new(2_000).second_down(), UnixSeconds::new(2));
        assert_eq!(serde_json::to_string(&UnixMilliseconds::new(u64::MAX)).unwrap(), u64::MAX.to_string());
    }
}
