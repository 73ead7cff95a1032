//! The time that templates print.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1 January 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u64);

/// Where `strftime_now` takes the time from: the system's clock, or one fixed moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    fixed: Option<UnixSeconds>,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const SECONDS_PER_DAY: u64 = 86_400;

impl Clock {
    /// A clock that stands still.
    pub(super) fn fixed(now: UnixSeconds) -> Self {
        Self { fixed: Some(now) }
    }

    /// Whether it stands still.
    pub(super) fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    fn now(&self) -> UnixSeconds {
        self.fixed.unwrap_or_else(|| {
            #[expect(clippy::disallowed_methods, reason = "templates that print today's date mean the reader's today")]
            let now = SystemTime::now();
            UnixSeconds(now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
        })
    }

    /// The time in UTC as C's `strftime` writes it in the C locale; a directive that is not known is the error.
    pub(super) fn format(&self, format: &str) -> Result<String, String> {
        let date = Date::of(self.now());
        let mut out = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            let directive = characters.next().unwrap_or(' ');
            // GNU's `%-d` writes the number without padding.
            let (padded, directive) =
                if directive == '-' { (false, characters.next().unwrap_or(' ')) } else { (true, directive) };
            out.push_str(&date.directive(directive, padded).ok_or_else(|| format!("%{directive}"))?);
        }
        Ok(out)
    }
}

struct Date {
    year: u64,
    /// From zero.
    month: usize,
    /// From one.
    day: u64,
    /// From one.
    day_of_year: u64,
    weekday: usize,
    second_of_day: u64,
}

impl Date {
    fn of(UnixSeconds(seconds): UnixSeconds) -> Self {
        let mut days = seconds / SECONDS_PER_DAY;
        let weekday = usize::try_from(days % 7).unwrap_or(0);
        // 400 years are 146,097 days; the years of one such cycle are counted off one by one.
        let mut year = 1970 + days / 146_097 * 400;
        days %= 146_097;
        while days >= year_length(year) {
            days -= year_length(year);
            year += 1;
        }
        let day_of_year = days + 1;
        let mut month = 0;
        while days >= month_length(year, month) {
            days -= month_length(year, month);
            month += 1;
        }
        Self { year, month, day: days + 1, day_of_year, weekday, second_of_day: seconds % SECONDS_PER_DAY }
    }

    fn directive(&self, directive: char, padded: bool) -> Option<String> {
        let number = |value: u64, width: usize| {
            if padded { format!("{value:0width$}") } else { value.to_string() }
        };
        let (hour, minute) = (self.second_of_day / 3600, self.second_of_day / 60 % 60);
        let twelve = (hour + 11) % 12 + 1;
        let month_name = MONTHS.get(self.month)?;
        let day_name = DAYS.get(self.weekday)?;
        let month = u64::try_from(self.month).ok()? + 1;
        let parts = |format: &str| format.chars().map(|part| self.directive_or_text(part)).collect::<Option<String>>();
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => number(self.year % 100, 2),
            'm' => number(month, 2),
            'd' => number(self.day, 2),
            'e' => format!("{:>2}", self.day),
            'j' => number(self.day_of_year, 3),
            'B' => (*month_name).to_owned(),
            'b' | 'h' => month_name.chars().take(3).collect(),
            'A' => (*day_name).to_owned(),
            'a' => day_name.chars().take(3).collect(),
            'H' => number(hour, 2),
            'I' => number(twelve, 2),
            'M' => number(minute, 2),
            'S' => number(self.second_of_day % 60, 2),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => parts("Y-m-d")?,
            'T' | 'X' => parts("H:M:S")?,
            'R' => parts("H:M")?,
            'D' | 'x' => parts("m/d/y")?,
            'c' => parts("a b e T Y")?,
            'Z' => "UTC".to_owned(),
            'z' => "+0000".to_owned(),
            '%' => "%".to_owned(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            _ => return None,
        })
    }

    fn directive_or_text(&self, part: char) -> Option<String> {
        if part.is_ascii_alphabetic() { self.directive(part, true) } else { Some(part.to_string()) }
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_length(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_length(year: u64, month: usize) -> u64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strftime_agrees_with_python() {
        // Each from datetime.fromtimestamp(t, timezone.utc).strftime(format), Python 3.11, C locale.
        for (time, format, expected) in [
            (0, "%d %b %Y, %A %H:%M:%S", "01 Jan 1970, Thursday 00:00:00"),
            (1_721_952_000, "%d %b %Y", "26 Jul 2024"),
            (1_709_164_799, "%Y-%m-%d %I:%M %p %j %a", "2024-02-28 11:59 PM 059 Wed"),
            (1_709_164_800, "%F %T %B %-d %y", "2024-02-29 00:00:00 February 29 24"),
            (4_107_542_400, "%e/%-m/%Y 100%%", " 1/3/2100 100%"),
            (951_782_400, "%c|%x|%X|%Z", "Tue Feb 29 00:00:00 2000|02/29/00|00:00:00|UTC"),
        ] {
            assert_eq!(Clock::fixed(UnixSeconds(time)).format(format).as_deref(), Ok(expected));
        }
        assert_eq!(Clock::fixed(UnixSeconds(0)).format("%Q"), Err("%Q".to_owned()));
    }
}
