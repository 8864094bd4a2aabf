//! How an executor is set up.

use std::time::Duration;

use super::engine::Limit;
use crate::batch::SeqNo;
use crate::error::ConfigError;

/// Requests that may wait in an executor's queue, by default.
pub const EXECUTING_BUFFER: usize = 16384;
/// Messages that may wait in the state and checkpoint channels, by default.
pub const STATE_BUFFER: usize = 128;
/// Batches of replies that may wait for the reply thread, by default.
pub const REPLY_BUFFER: usize = 1024;

/// At most so much may wait in any of these: queues are allocated as a whole, when an executor starts.
pub const MAX_BUFFER: usize = 1 << 20;

/// At most this many threads execute one batch.
pub const MAX_THREADS: usize = 256;

/// At most this many bytes are one thread's stack: more cannot be rounded up to pages, let alone be had.
pub const MAX_STACK: usize = isize::MAX as usize / 2;

/// When a multi-threaded executor speculates, and answers unordered requests on all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecutionMode {
    /// Whatever was faster lately for batches of this size. The choice never changes a result.
    #[default]
    Adaptive,
    /// Always, in chunks; for tests and measurements. One thread alone runs each unit at its turn, unless
    /// [`chunk`](ExecutorConfig::chunk) is set.
    Speculate,
    /// Always, each operation when the keys of its [hints](crate::app::ScalableApp::hints) are free; for tests and
    /// measurements.
    SpeculateByHints,
    /// Never.
    Sequential,
}

/// The settings of an executor. `Default` is right for a machine that it has to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorConfig {
    /// Threads that execute operations, the executor's own among them; `None`: one per available core.
    pub threads: Option<usize>,
    /// The last batch that the initial state contains, once the requests that come with it are replayed; execution
    /// goes on after it. `None`: nothing executed yet, the first batch may have any number.
    pub initial_seq: Option<SeqNo>,
    /// Capacity of the request queue. Up to 64 batches more may have been taken out of it and wait for each other (`join`).
    pub executing_buffer: usize,
    /// Capacity of the state channel and of the checkpoint channel, in messages.
    pub state_buffer: usize,
    /// Capacity of the queue to the reply thread, in batches; those that are answered together count as one.
    pub reply_buffer: usize,
    /// When to speculate.
    pub mode: ExecutionMode,
    /// Pin the executing threads to cores of their own, inside the process's affinity mask. Threads that an operation starts
    /// inherit its one core (a thread pool that is first used there, too): start them elsewhere.
    pub pin: bool,
    /// Bytes of the stack of each thread that executes operations, for operations that recurse deeply; `None`: what the standard
    /// library gives threads (2 MiB, or `RUST_MIN_STACK`). A stack that overflows ends the process. Ahead of its turn, an
    /// operation may recurse deeper than it ever does in the sequential loop.
    pub stack_size: Option<usize>,
    /// How long an idle worker spins before it parks. Longer saves wake-ups, shorter saves power.
    pub spin: Duration,
    /// How many positions speculation may run ahead of retirement.
    pub window: usize,
    /// Positions, or unordered requests, that a thread takes at once; `None`: from measured costs, and of short
    /// unordered requests up to 16.
    pub chunk: Option<usize>,
    /// How many operations batches may have together that wait in the queue one behind the other, and are then taken and answered
    /// together, at most 64 at once; 0: each batch by itself. Multi-threaded executors also execute and commit them as one, where that
    /// was faster lately. If the state is not run [in place](crate::state::CRUDState::IN_PLACE), they always do, but
    /// only if it allows that ([`GROUP_COMMIT`](crate::state::CRUDState::GROUP_COMMIT)); else they join nothing. Nor do they in the
    /// checking mode. If an operation or the commit of what is executed as one fails, nothing has been done, and the batches are
    /// executed one by one.
    ///
    /// The first batch's replies wait for the last one's. Of batches that are executed one by one, none begins when the first has
    /// waited for half a millisecond; as one, no more are executed than should take that long, by what batches took lately. Both
    /// times are 50 ms for states that are not run in place. Where the mode is forced to speculate, only operations count.
    pub join: usize,
    /// Let operations read the values of finished operations that have not retired yet, if the application
    /// [allows it](crate::app::ScalableApp::FORWARDING).
    pub forwarding: bool,
    /// Use the application's [hints](crate::app::ScalableApp::hints), if it has any, where that was faster lately.
    pub hints: bool,
    /// How many calls of its state an operation may make ahead of its turn. Beyond that it is abandoned, and runs again at
    /// its turn, where nothing bounds it. Calls that destructors make while it unwinds are not bounded either: they must end on
    /// an earlier moment, too.
    pub step_budget: u32,
    /// Run operations ahead of their turn also where a panic ends the program (`panic = "abort"`). Nothing catches the panic
    /// of a run that sees an earlier moment there (or, with [`FORWARDING`](crate::app::ScalableApp::FORWARDING), values that never
    /// stood together), and a run beyond its `step_budget` is not abandoned. So this is for operations, hints and merge
    /// operators that end without a panic on whatever they see. Without it, a multi-threaded executor of such a program is refused
    /// ([`PanicAbort`](ConfigError::PanicAbort)), unless its mode is [`ExecutionMode::Sequential`]. Where panics unwind, this means
    /// nothing.
    pub allow_panic_abort: bool,
    /// The checking mode: the first batch and every n-th after it run twice and are compared before they are committed, to
    /// find applications that are not deterministic. Such a one ends the executor with
    /// [`Failure::NotDeterministic`](crate::error::Failure::NotDeterministic). Costs what running those batches twice, one
    /// operation after the other, costs; all others cost what they did. `None`: no batch.
    ///
    /// Multi-threaded executors only, with whatever number of threads: the single-threaded ones run in place on any state,
    /// where nothing can be tried.
    pub check_every: Option<u32>,
    /// How long a stopping executor waits for the reader of a checkpoint that it is delivering.
    pub shutdown_grace: Duration,
    /// Threads are called `{name}-executor`, `{name}-worker-1`, `{name}-replier`, `{name}-checkpoint`.
    pub name: String,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        ExecutorConfig {
            threads: None,
            initial_seq: None,
            executing_buffer: EXECUTING_BUFFER,
            state_buffer: STATE_BUFFER,
            reply_buffer: REPLY_BUFFER,
            mode: ExecutionMode::Adaptive,
            pin: true,
            stack_size: None,
            spin: Duration::from_micros(200),
            window: 4096,
            chunk: None,
            join: 1024,
            forwarding: true,
            hints: true,
            step_budget: 1 << 16,
            allow_panic_abort: false,
            check_every: None,
            shutdown_grace: Duration::from_secs(1),
            name: "atlas".to_owned(),
        }
    }
}

/// What [`ExecutorConfig::validate`] settled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigReport {
    /// Threads that will execute operations.
    pub threads: usize,
    /// Cores that the process may use.
    pub cores: usize,
    /// What was chosen and may surprise, as sentences.
    pub notes: Vec<String>,
}

impl ExecutorConfig {
    /// The defaults with this many threads.
    pub fn with_threads(threads: usize) -> Self {
        ExecutorConfig { threads: Some(threads), ..Self::default() }
    }

    /// Checks the settings, and says what follows from them on this machine.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<ConfigReport, ConfigError> {
        let positive = [
            ("threads", self.threads.unwrap_or(1)),
            ("executing_buffer", self.executing_buffer),
            ("state_buffer", self.state_buffer),
            ("reply_buffer", self.reply_buffer),
            ("stack_size", self.stack_size.unwrap_or(1)),
            ("window", self.window),
            ("chunk", self.chunk.unwrap_or(1)),
            ("step_budget", self.step_budget as usize),
            ("check_every", self.check_every.unwrap_or(1) as usize),
        ];
        if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            return Err(ConfigError::Zero { name });
        }
        if self.name.contains('\0') {
            return Err(ConfigError::Name);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or(cores.min(MAX_THREADS));
        let bounded = [
            ("threads", threads, MAX_THREADS),
            ("executing_buffer", self.executing_buffer, MAX_BUFFER),
            ("state_buffer", self.state_buffer, MAX_BUFFER),
            ("reply_buffer", self.reply_buffer, MAX_BUFFER),
            ("stack_size", self.stack_size.unwrap_or(1), MAX_STACK),
        ];
        if let Some((name, value, max)) = bounded.into_iter().find(|&(_, value, max)| value > max) {
            return Err(ConfigError::TooLarge { name, value, max });
        }
        let mut notes = Vec::new();
        if self.threads.is_none() {
            notes.push(format!("{threads} threads, one per available core"));
        }
        if threads > cores {
            notes.push(format!(
                "{threads} threads share {cores} cores: only {cores} are pinned, and idle ones give way"
            ));
        }
        if threads == 1 && self.mode != ExecutionMode::Sequential {
            notes.push("one thread has nobody to share batches with: speculation gains nothing".to_owned());
        }
        Ok(ConfigReport { threads, cores, notes })
    }

    /// How much a multi-threaded executor joins, on a state that is run in place or is not, and that bears one commit for several
    /// batches or does not. Where a mode is forced, so is joining. What is checked is looked at one by one.
    pub(super) fn limit(&self, in_place: bool, group_commit: bool) -> Limit {
        let forced = matches!(self.mode, ExecutionMode::Speculate | ExecutionMode::SpeculateByHints);
        match self.check_every {
            None if group_commit && forced => Limit { operations: self.join, time: None },
            None if group_commit && in_place => Limit::in_memory(self.join),
            None if group_commit => Limit::durable(self.join),
            _ => Limit::default(),
        }
    }

    /// Refuses to run operations ahead of their turn in a program that `aborts` at a panic, unless that is allowed.
    pub(super) fn check_panics(&self, aborts: bool) -> Result<(), ConfigError> {
        if aborts && !self.allow_panic_abort && self.mode != ExecutionMode::Sequential {
            return Err(ConfigError::PanicAbort);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        let report = ExecutorConfig::default().validate().expect("valid");
        assert_eq!(report.threads, report.cores.min(MAX_THREADS));
    }

    #[test]
    fn zeros_are_named() {
        let zero = |change: fn(&mut ExecutorConfig)| {
            let mut config = ExecutorConfig::default();
            change(&mut config);
            config.validate().expect_err("a zero").to_string()
        };
        assert_eq!(zero(|c| c.threads = Some(0)), "`threads` must be at least 1");
        assert_eq!(zero(|c| c.executing_buffer = 0), "`executing_buffer` must be at least 1");
        assert_eq!(zero(|c| c.state_buffer = 0), "`state_buffer` must be at least 1");
        assert_eq!(zero(|c| c.reply_buffer = 0), "`reply_buffer` must be at least 1");
        assert_eq!(zero(|c| c.stack_size = Some(0)), "`stack_size` must be at least 1");
        assert_eq!(zero(|c| c.window = 0), "`window` must be at least 1");
        assert_eq!(zero(|c| c.chunk = Some(0)), "`chunk` must be at least 1");
        assert_eq!(zero(|c| c.step_budget = 0), "`step_budget` must be at least 1");
        assert_eq!(zero(|c| c.check_every = Some(0)), "`check_every` must be at least 1");
    }

    #[test]
    fn a_name_that_no_thread_can_have_is_refused() {
        let config = ExecutorConfig { name: "a\0b".to_owned(), ..ExecutorConfig::default() };
        assert_eq!(config.validate(), Err(ConfigError::Name));
    }

    #[test]
    fn where_a_panic_ends_the_program_nothing_runs_ahead_unless_that_is_allowed() {
        let mut config = ExecutorConfig::default();
        assert_eq!(config.check_panics(false), Ok(()));
        assert_eq!(config.check_panics(true), Err(ConfigError::PanicAbort));
        config.allow_panic_abort = true;
        assert_eq!(config.check_panics(true), Ok(()));
        config = ExecutorConfig { mode: ExecutionMode::Sequential, ..ExecutorConfig::default() };
        assert_eq!(config.check_panics(true), Ok(()));
    }

    #[test]
    fn what_one_commit_for_several_batches_would_change_is_not_joined() {
        let limit = |mode, in_place, group_commit| {
            let config = ExecutorConfig { mode, join: 100, ..ExecutorConfig::default() };
            let limit = config.limit(in_place, group_commit);
            (limit.operations, limit.time.is_some())
        };
        for mode in [ExecutionMode::Adaptive, ExecutionMode::Sequential, ExecutionMode::Speculate] {
            let timed = mode != ExecutionMode::Speculate;
            assert_eq!(limit(mode, true, true), (100, timed));
            assert_eq!(limit(mode, false, true), (100, timed));
            assert_eq!(limit(mode, false, false), (0, false));
        }
        let checked = ExecutorConfig { check_every: Some(7), ..ExecutorConfig::default() };
        assert_eq!(checked.limit(true, true).operations, 0);
    }

    #[test]
    fn sizes_beyond_what_is_possible_are_refused() {
        let refused = |change: fn(&mut ExecutorConfig)| {
            let mut config = ExecutorConfig::default();
            change(&mut config);
            match config.validate() {
                Err(ConfigError::TooLarge { name, .. }) => name,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refused(|config| config.stack_size = Some(usize::MAX)), "stack_size");
        assert_eq!(refused(|config| config.executing_buffer = MAX_BUFFER + 1), "executing_buffer");
        assert_eq!(refused(|config| config.state_buffer = usize::MAX), "state_buffer");
        assert_eq!(refused(|config| config.reply_buffer = usize::MAX), "reply_buffer");
    }

    #[test]
    fn too_many_threads_are_refused_and_more_than_cores_are_noted() {
        let mut config = ExecutorConfig::with_threads(MAX_THREADS + 1);
        assert!(matches!(config.validate(), Err(ConfigError::TooLarge { name: "threads", .. })));
        config.threads = Some(MAX_THREADS);
        let report = config.validate().expect("valid");
        assert_eq!(report.threads, MAX_THREADS);
        if report.cores < MAX_THREADS {
            assert!(report.notes.iter().any(|note| note.contains("share")));
        }
    }
}
