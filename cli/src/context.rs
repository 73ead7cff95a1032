//! What every command is given: the output, the seed, and the way to be interrupted.

use std::{future::Future, io, process::ExitCode, sync::Mutex, time::Duration};

use anyhow::Context as _;
use rand::{SeedableRng as _, TryRngCore as _, rngs::OsRng};
use rand_chacha::ChaCha8Rng;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    arguments::Common,
    failure::Interrupted,
    output::Output,
    progress::{self, Progress},
};

/// How long a computation may take to notice an interrupt before the process ends without it.
const GRACE: Duration = Duration::from_secs(10);

/// What randomness of the command itself is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The salts that hide the leaves of a commitment.
    Salts,
    /// The beacon that draws the responses.
    Draw,
}

impl Purpose {
    /// Far from the streams with small numbers, which the libraries use.
    fn stream(self) -> u64 {
        match self {
            Self::Salts => 0x68_616c_6c6d_0001,
            Self::Draw => 0x68_616c_6c6d_0002,
        }
    }
}

/// Shared by all commands of one run of the program; there is one command per run.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) output: Output,
    seed: Option<u64>,
    /// Drawn once, so that every part of a command that asks gets the same seed.
    drawn_seed: Mutex<Option<u64>>,
    interrupt: CancellationToken,
    /// Whatever runs beside the command; awaited before it ends.
    pub(crate) tracker: TaskTracker,
}

impl Context {
    pub(crate) fn new(common: &Common) -> Self {
        Self {
            output: Output::new(common.json),
            seed: common.seed,
            drawn_seed: Mutex::new(None),
            interrupt: CancellationToken::new(),
            tracker: TaskTracker::new(),
        }
    }

    /// The seed that was given, or one from the operating system.
    pub(crate) fn seed(&self) -> anyhow::Result<u64> {
        if let Some(seed) = self.seed {
            return Ok(seed);
        }
        let mut drawn = self.drawn_seed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match *drawn {
            Some(seed) => Ok(seed),
            None => {
                let seed = OsRng.try_next_u64().context("failed to read randomness from the operating system")?;
                Ok(*drawn.insert(seed))
            }
        }
    }

    /// The seed as the user gave it.
    pub(crate) fn given_seed(&self) -> Option<u64> {
        self.seed
    }

    /// A generator for one purpose: from the seed if there is one, else from the operating system.
    ///
    /// Different purposes never share a stream, so that a public value (a beacon) is not part of a secret one. It still
    /// tells a seed that is so small that it can be guessed.
    pub(crate) fn generator(&self, purpose: Purpose) -> anyhow::Result<ChaCha8Rng> {
        let mut generator = match self.seed {
            Some(seed) => ChaCha8Rng::seed_from_u64(seed),
            None => ChaCha8Rng::try_from_os_rng().context("failed to read randomness from the operating system")?,
        };
        generator.set_stream(purpose.stream());
        Ok(generator)
    }

    /// A progress display on standard error.
    pub(crate) fn progress(&self) -> Progress {
        progress::Progress::new()
    }

    /// Ends when the user pressed Ctrl-C.
    pub(crate) fn interrupt(&self) -> CancellationToken {
        self.interrupt.clone()
    }

    /// Runs a long computation on a thread of its own. On Ctrl-C it is waited for a little: a computation that reports
    /// progress stops at its next report, and one that is writing a file finishes or removes it.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let task = self.tracker.spawn_blocking(work);
        tokio::pin!(task);
        let joined = tokio::select! {
            // A result that is there is used even if Ctrl-C came at the same moment.
            biased;
            joined = &mut task => joined,
            () = self.interrupt.cancelled() => match tokio::time::timeout(GRACE, &mut task).await {
                Ok(joined) => joined,
                Err(_) => return Err(Interrupted.into()),
            },
        };
        match joined {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(payload) if payload.is::<Interrupted>() => Err(Interrupted.into()),
                Ok(payload) => std::panic::resume_unwind(payload),
                Err(error) => Err(error).context("the computation was cancelled"),
            },
        }
    }

    /// Runs a command and listens for Ctrl-C: the first asks it to stop, the second ends the process at once.
    pub(crate) async fn interruptible(
        &self,
        command: impl Future<Output = anyhow::Result<ExitCode>>,
    ) -> anyhow::Result<ExitCode> {
        // Before the command runs: who reads its first line may send a signal at once.
        let mut signals = StopSignals::listen().context("failed to listen for Ctrl-C")?;
        tokio::pin!(command);
        loop {
            tokio::select! {
                biased;
                result = &mut command => {
                    self.tracker.close();
                    return result;
                }
                signal = signals.next() => {
                    signal.context("failed to listen for Ctrl-C")?;
                    if self.interrupt.is_cancelled() {
                        progress::say("stopped");
                        std::process::exit(i32::from(crate::failure::INTERRUPTED));
                    }
                    progress::say("stopping; press Ctrl-C again to stop at once");
                    self.interrupt.cancel();
                }
            }
        }
    }
}

/// Ctrl-C, or what a service manager sends to end a process.
#[cfg(unix)]
struct StopSignals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl StopSignals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        Ok(())
    }
}

#[cfg(not(unix))]
struct StopSignals;

#[cfg(not(unix))]
impl StopSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::signal::ctrl_c().await
    }
}

/// Leaves a computation from inside its progress callback when the user pressed Ctrl-C.
///
/// Libraries report progress through plain callbacks; unwinding through them drops what they hold, so that a file that
/// was being written is removed. [`Context::compute`] turns the unwinding back into an error.
pub(crate) fn leave_if_interrupted(interrupt: &CancellationToken) {
    if interrupt.is_cancelled() {
        std::panic::resume_unwind(Box::new(Interrupted));
    }
}
