//! Messages composed from a small grammar of phrases, `phrases.txt`.
//!
//! A section in brackets lists alternatives, one a line. `{name}` stands for a random line of that section, `{number}`
//! for a whole number, `\n` for a line break. A message is a random line of the section `message`, written out.

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PHRASES: &str = include_str!("phrases.txt");

/// Where a message begins.
const START: &str = "message";
/// What stands for a number, and which numbers.
const NUMBER: &str = "number";
const NUMBERS: std::ops::Range<u32> = 2..1000;

/// Writes one message after another.
pub(super) struct Composer {
    sections: HashMap<&'static str, Vec<&'static str>>,
    generator: ChaCha8Rng,
}

impl Composer {
    pub(super) fn new(seed: u64) -> Self {
        let mut sections: HashMap<&str, Vec<&str>> = HashMap::new();
        let mut name = "";
        for line in PHRASES.lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                Some(section) => name = section,
                None => sections.entry(name).or_default().push(line),
            }
        }
        Self { sections, generator: ChaCha8Rng::seed_from_u64(seed) }
    }

    pub(super) fn message(&mut self) -> String {
        let mut message = String::new();
        self.write(START, &mut message);
        message.replace("\\n", "\n")
    }

    fn write(&mut self, name: &str, out: &mut String) {
        if name == NUMBER {
            out.push_str(&self.generator.random_range(NUMBERS).to_string());
            return;
        }
        let Some(lines) = self.sections.get(name) else { return };
        let mut rest = lines[self.generator.random_range(0..lines.len())];
        while let Some((before, slot)) = rest.split_once('{') {
            let (slot, after) = slot.split_once('}').unwrap_or((slot, ""));
            out.push_str(before);
            self.write(slot, out);
            rest = after;
        }
        out.push_str(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every slot names a section that has lines, and writing out ends.
    #[test]
    fn the_grammar_is_whole() {
        let composer = Composer::new(0);
        fn depth(sections: &HashMap<&str, Vec<&str>>, name: &str, above: usize) -> usize {
            assert!(above < 8, "{name} is part of itself");
            if name == NUMBER {
                return 0;
            }
            let lines = sections.get(name).unwrap_or_else(|| panic!("no section {name}"));
            let slots = lines.iter().flat_map(|line| {
                assert_eq!(line.matches('{').count(), line.matches('}').count(), "{line}");
                line.split('{').skip(1).map(|part| part.split('}').next().unwrap_or_default())
            });
            1 + slots.map(|slot| depth(sections, slot, above + 1)).max().unwrap_or(0)
        }
        assert!(depth(&composer.sections, START, 0) > 1);
        let mut used: Vec<&str> = vec![START];
        for line in composer.sections.values().flatten() {
            used.extend(line.split('{').skip(1).filter_map(|part| part.split('}').next()));
        }
        for name in composer.sections.keys() {
            assert!(used.contains(name), "nothing uses the section {name}");
        }
    }

    #[test]
    fn messages_depend_on_the_seed_alone_and_rarely_repeat() {
        let messages = |seed| {
            let mut composer = Composer::new(seed);
            (0..5000).map(|_| composer.message()).collect::<Vec<_>>()
        };
        let first = messages(1);
        assert_eq!(first, messages(1));
        assert_ne!(first, messages(2));
        assert!(first.iter().all(|message| !message.trim().is_empty() && !message.contains(['{', '}', '\\'])));
        let different: std::collections::HashSet<_> = first.iter().collect();
        assert!(different.len() > 3000, "{}", different.len());
    }
}
