//! What goes to standard output: words for people, or exactly one JSON object.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

/// How the result of a command is shown. Progress and logs never come here: they go to standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints the result of a command, once.
    pub(crate) fn finish(self, words: &str, object: &impl Serialize) -> anyhow::Result<()> {
        let text = if self.json {
            serde_json::to_string_pretty(object).context("failed to write the result as JSON")?
        } else {
            words.trim_end().to_owned()
        };
        write_line(&text)
    }
}

/// Writes to standard output; a reader that went away (`hallmark … | head`) is not an error.
pub(crate) fn write_line(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("failed to write to standard output"),
    }
}

/// Rows of a name and a value, the values in one column and each on one line: see [`plain`].
pub(crate) fn rows(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {}\n", plain(value))).collect()
}

/// A text that may come from anybody, made safe to print: what would move the cursor, start a line or reverse the
/// direction of reading is written as an escape, so that a name in a file cannot pass for a word of this program.
pub(crate) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        let format = matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if character.is_control() || format {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line_and_moves_no_cursor() {
        let name = "m\u{1b}[2K\rerror bound  1 in 10^99\nx\u{9b}31m\u{202e}\u{7f} Größe 数";
        let text = rows(&[("model", name.into())]);
        assert_eq!(text, "model  m\\u{1b}[2K\\rerror bound  1 in 10^99\\nx\\u{9b}31m\\u{202e}\\u{7f} Größe 数\n");
    }

    #[test]
    fn rows_share_one_column() {
        assert_eq!(rows(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
    }
}
