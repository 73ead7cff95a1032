//! Finds stop strings in text that arrives in pieces, without letting any part of one through.

/// Looks for the stop strings of one request.
///
/// What comes out does not depend on how the text was cut into pieces: the stop string whose last character comes first
/// wins, and of several that end there the longest. No `Debug`: it holds text.
pub(super) struct StopMatcher {
    stops: Vec<String>,
    /// The end of the text so far, as long as it may be the beginning of a stop string.
    held: String,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Matched {
    /// Text that is certainly before any stop string; may be empty.
    Text(String),
    /// A stop string was found; this is the last text before it.
    Stopped(String),
}

impl StopMatcher {
    /// `stops` must not hold empty strings.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &str) -> Matched {
        if self.stops.is_empty() {
            return Matched::Text(piece.to_owned());
        }
        self.held.push_str(piece);
        let occurrence = |stop: &String| {
            let start = self.held.find(stop.as_str())?;
            Some((start.saturating_add(stop.len()), start))
        };
        if let Some((_, start)) = self.stops.iter().filter_map(occurrence).min() {
            self.held.truncate(start);
            return Matched::Stopped(std::mem::take(&mut self.held));
        }
        let certain = self.held.len().saturating_sub(self.longest_beginning());
        let rest = self.held.split_off(certain);
        Matched::Text(std::mem::replace(&mut self.held, rest))
    }

    /// The text ends: what was held back was no stop string.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest end of `held` that is a beginning of a stop string.
    fn longest_beginning(&self) -> usize {
        let beginning = |stop: &String| {
            let ends = stop.char_indices().map(|(index, _)| index).skip(1);
            ends.filter(|end| stop.get(..*end).is_some_and(|beginning| self.held.ends_with(beginning))).max()
        };
        self.stops.iter().filter_map(beginning).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|stop| (*stop).to_owned()).collect())
    }

    /// Everything that comes out, and whether a stop string ended it.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut matcher = matcher(stops);
        let mut text = String::new();
        for piece in pieces {
            match matcher.push(piece) {
                Matched::Text(more) => text += &more,
                Matched::Stopped(more) => return (text + &more, true),
            }
        }
        (text + &matcher.finish(), false)
    }

    #[test]
    fn stop_that_spans_pieces_does_not_leak() {
        let mut matcher = matcher(&["\nUser:"]);
        assert_eq!(matcher.push("Hello\nUs"), Matched::Text("Hello".to_owned()));
        assert_eq!(matcher.push("er: and more"), Matched::Stopped(String::new()));
    }

    #[test]
    fn beginning_that_does_not_go_on_is_text_after_all() {
        assert_eq!(run(&["abcd"], &["xab", "cx"]), ("xabcx".to_owned(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b!"]), ("a".to_owned(), true));
        assert_eq!(run(&["stop"], &["a sto"]), ("a sto".to_owned(), false));
    }

    #[test]
    fn first_completed_stop_wins() {
        assert_eq!(run(&["abc", "b"], &["xabc"]), ("xa".to_owned(), true));
        assert_eq!(run(&["bc", "abc"], &["xabc"]), ("x".to_owned(), true));
    }

    #[test]
    fn characters_are_never_cut() {
        assert_eq!(run(&["é!"], &["caf", "é", "?"]), ("café?".to_owned(), false));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            pieces in prop::collection::vec("[abé]{0,3}", 0..12),
            stops in prop::collection::vec("[abé]{1,4}", 0..=4),
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            let (text, stopped) = run(&stops, &pieces);
            prop_assert_eq!((text.clone(), stopped), run(&stops, &[&whole]));
            prop_assert!(whole.starts_with(&text));
            prop_assert_eq!(stopped, stops.iter().any(|stop| whole.contains(stop)));
            prop_assert!(stops.iter().all(|stop| !text.contains(stop)));
        }
    }
}
