//! Progress on standard error: bars on a terminal, a few plain lines elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::OnceLock,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::format;

/// All bars of the process, so that logs can be written between them.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// Writes bytes to standard error above the bars.
pub(crate) fn write(bytes: &[u8]) {
    // Nobody is left to tell when standard error is closed.
    bars().suspend(|| io::stderr().write_all(bytes).unwrap_or_default());
}

/// Writes a line to standard error above the bars.
pub(crate) fn say(line: &str) {
    write(format!("{line}\n").as_bytes());
}

/// The steps of one command.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal() }
    }

    /// Starts a step that shows as a spinner until it knows how much there is to do.
    pub(crate) fn step(&self, name: &str) -> Step {
        let bar = if self.terminal {
            let bar = bars().add(ProgressBar::new_spinner());
            bar.set_style(style("  {spinner:.yellow} {prefix:<14} {msg}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        } else {
            ProgressBar::hidden()
        };
        bar.set_prefix(name.to_owned());
        Step { name: name.to_owned(), bar, terminal: self.terminal, started: Instant::now(), last_line: None }
    }
}

/// A template that the program itself wrote; a wrong one shows a plain bar rather than ending the command.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// One step in progress. Dropped without [`Step::done`] it disappears.
#[derive(Debug)]
pub(crate) struct Step {
    name: String,
    bar: ProgressBar,
    terminal: bool,
    started: Instant,
    last_line: Option<Instant>,
}

/// Time between two lines of one step where there is no terminal to draw a bar on.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Step {
    /// Shows how far it is: `done` of `total`, and what there is to say.
    pub(crate) fn at(&mut self, done: usize, total: usize, words: &str) {
        let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.at_u64(wide(done), wide(total), words);
    }

    /// As [`Step::at`], for counts in 64 bits.
    pub(crate) fn at_u64(&mut self, done: u64, total: u64, words: &str) {
        if self.terminal {
            if self.bar.length() != Some(total) {
                self.bar.set_length(total);
                let template = "  {spinner:.yellow} {prefix:<14} {bar:24.yellow/white.dim} {pos:>4}/{len:<4} {msg}";
                self.bar.set_style(style(template).progress_chars("━━─"));
            }
            self.bar.set_position(done);
            self.bar.set_message(words.to_owned());
        } else if self.last_line.unwrap_or(self.started).elapsed() >= LINE_EVERY {
            self.last_line = Some(Instant::now());
            say(&format!("  {:<14} {done}/{total}  {words}", self.name));
        }
    }

    /// Ends the step and leaves one line. Returns how long it took.
    pub(crate) fn done(self, outcome: &str) -> Duration {
        let took = self.started.elapsed();
        let (mark, dim, plain) =
            if self.terminal { ("\u{1b}[33m✓\u{1b}[0m", "\u{1b}[2m", "\u{1b}[0m") } else { ("✓", "", "") };
        self.bar.finish_and_clear();
        say(&format!("  {mark} {:<14} {outcome:<52} {dim}{:>9}{plain}", self.name, format::duration(took)));
        took
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
    }
}
