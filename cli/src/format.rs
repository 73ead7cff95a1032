//! Numbers as people read them.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as a percentage with one decimal, without it when it is whole: `98.4 %`, `100 %`.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// `0.4 s`, `12 s`, `1 min 05 s`, `2 h 03 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round();
    if whole < 60.0 {
        return format!("{whole} s");
    }
    let minutes = (whole / 60.0).floor();
    if minutes < 60.0 {
        return format!("{minutes} min {:02} s", whole - minutes * 60.0);
    }
    let hours = (minutes / 60.0).floor();
    format!("{hours} h {:02} min", minutes - hours * 60.0)
}

/// The chance that corresponds to a log10 e-value: `1 in 1,000,000`. Rounded down, so that it never promises more.
pub(crate) fn one_in(log10_e: f64) -> String {
    if !log10_e.is_finite() || log10_e > 15.0 {
        return format!("1 in 10^{:.0}", log10_e.floor());
    }
    let value = 10.0_f64.powf(log10_e).max(1.0);
    // Three digits are all that such a figure carries. The tiny factor keeps an exact power of ten in its place.
    let scale = 10.0_f64.powf((value.log10().floor() - 2.0).max(0.0));
    let rounded = (value * (1.0 + 1e-12) / scale).floor() * scale;
    // Below 10^15 the conversion is exact, and a float has no other conversion.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10^15")]
    let whole = rounded as u64;
    format!("1 in {}", thousands(whole))
}

/// `1.6 M`, `135 M`, `8.0 B`, `260 K`.
pub(crate) fn count_short(value: u64) -> String {
    let value = value as f64;
    let (scaled, suffix) = match value {
        v if v >= 1e9 => (v / 1e9, " B"),
        v if v >= 1e6 => (v / 1e6, " M"),
        v if v >= 1e3 => (v / 1e3, " K"),
        v => (v, ""),
    };
    if scaled >= 100.0 || suffix.is_empty() { format!("{scaled:.0}{suffix}") } else { format!("{scaled:.1}{suffix}") }
}

/// `3.9 MB`, in powers of ten.
pub(crate) fn bytes(value: u64) -> String {
    let value = value as f64;
    match value {
        v if v >= 1e9 => format!("{:.2} GB", v / 1e9),
        v if v >= 1e6 => format!("{:.1} MB", v / 1e6),
        v if v >= 1e3 => format!("{:.1} kB", v / 1e3),
        v => format!("{v} bytes"),
    }
}

/// The first and last characters of a long hexadecimal word: `0x12ab34…cd56`.
pub(crate) fn short_hex(word: &str) -> String {
    match (word.get(..10), word.len().checked_sub(4).and_then(|from| word.get(from..))) {
        (Some(head), Some(tail)) if word.len() > 18 => format!("{head}…{tail}"),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.984_375), "98.4 %");
        assert_eq!(duration(Duration::from_millis(420)), "0.4 s");
        assert_eq!(duration(Duration::from_secs(65)), "1 min 05 s");
        assert_eq!(duration(Duration::from_secs(7_380)), "2 h 03 min");
        assert_eq!(count_short(1_640_000), "1.6 M");
        assert_eq!(count_short(134_515_008), "135 M");
    }

    #[test]
    fn an_error_bound_never_promises_more_than_it_holds() {
        assert_eq!(one_in(6.0), "1 in 1,000,000");
        assert_eq!(one_in(6.4999), "1 in 3,160,000");
        assert_eq!(one_in(-2.0), "1 in 1");
        assert_eq!(one_in(2.0), "1 in 100");
        assert_eq!(one_in(15.6), "1 in 10^15");
    }

    #[test]
    fn long_words_are_shortened_and_short_ones_kept() {
        assert_eq!(short_hex("0x1234567890abcdef1234567890abcdef"), "0x12345678…cdef");
        assert_eq!(short_hex("0x1234"), "0x1234");
    }
}
