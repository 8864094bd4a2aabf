//! A long run: all four executors live side by side on one log whose operations change from segment to segment, and after
//! each segment are held against the sequential loop.
//!
//! In each segment every executor does something else, and in the next the next:
//!
//! | what | compared |
//! |---|---|
//! | executes it, and takes a checkpoint | replies, and the checkpoint |
//! | executes it, is stopped, and starts again from the last segment's checkpoint and the log since, with other settings | replies, and the state after the restart |
//! | misses it, and installs this segment's checkpoint of another executor | the state |
//! | catches up with it, twice | the state |

mod log;
mod mixture;
mod replica;
mod report;
mod tally;

use std::time::Duration;

use atlas_smr_execution::batch::SeqNo;
use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use atlas_smr_execution::state::ShardedState;
use workloads::digest::mix;
use workloads::{ReplyDigest, WorkloadError};

use crate::args::{ExecutorKind, SoakArgs};
use crate::error::CliError;
use log::{Log, Segment};
use mixture::Mixture;
use replica::{Beginning, Replica};
pub use report::Report;
use report::{Deeds, Watch};

/// How long a run takes that no one bounds.
const SECONDS: u64 = 60;
/// The most threads of an executor if nothing else is asked for.
const THREADS: usize = 4;
/// Parts of the states. They are small, and looked at after each segment.
const SHARDS: usize = 256;
/// Requests that may wait in a queue: batches on their way are memory.
const QUEUE: usize = 64;

/// A state as of a batch.
struct Checkpoint {
    seq: SeqNo,
    state: ShardedState,
}

/// Something that is not what the sequential loop gave.
struct Difference(String);

/// The four executors, and what was found.
struct Soak<'a> {
    args: &'a SoakArgs,
    empty: ShardedState,
    replicas: Vec<Replica>,
    /// Of the last segment.
    checkpoint: Option<Checkpoint>,
    deeds: Deeds,
}

/// Runs what `args` ask for; `show` takes a line now and then.
pub fn run(args: &SoakArgs, show: fn(&str)) -> Result<Report, CliError> {
    validate(args)?;
    let empty = ShardedState::builder().shards(SHARDS).build()?;
    let mut state = empty.snapshot();
    Mixture::populate(&mut state);
    let mut soak = Soak { args, empty, replicas: Vec::new(), checkpoint: None, deeds: Deeds::default() };
    for kind in ExecutorKind::ALL {
        let from = Beginning { state: state.snapshot(), requests: Vec::new(), seq: None };
        soak.replicas.push(Replica::start(kind, soak.config(0), from, &soak.empty)?);
    }
    let mut log = Log::new(state, args.seed, args.segment);
    let mut watch = Watch::new(Duration::from_secs(args.report_every), show);
    let seconds = args.seconds.or(args.operations.is_none().then_some(SECONDS)).map(Duration::from_secs);
    let mut difference = None;
    while difference.is_none()
        && args.operations.is_none_or(|operations| log.operations() < operations)
        && seconds.is_none_or(|seconds| watch.elapsed() < seconds)
    {
        difference = soak.segment(&log.next())?.err();
        watch.look(log.operations(), soak.deeds.segments);
    }
    soak.replicas.into_iter().try_for_each(Replica::stop)?;
    Ok(watch.report(args.seed, log.operations(), soak.deeds, difference.map(|Difference(text)| text)))
}

fn validate(args: &SoakArgs) -> Result<(), CliError> {
    ExecutorConfig::with_threads(args.threads.unwrap_or(THREADS)).validate()?;
    let given = [
        ("seconds", args.seconds.unwrap_or(1)),
        ("operations", args.operations.unwrap_or(1)),
        ("segment", args.segment),
        ("report-every", args.report_every),
    ];
    match given.into_iter().find(|&(_, value)| value == 0) {
        Some((name, value)) => Err(WorkloadError::OutOfRange { name, value, min: 1, max: u64::MAX }.into()),
        None => Ok(()),
    }
}

impl Soak<'_> {
    /// Settings of the `life`th executor that is started; each has others.
    fn config(&self, life: u64) -> ExecutorConfig {
        const MODES: [ExecutionMode; 4] = [
            ExecutionMode::Adaptive,
            ExecutionMode::Speculate,
            ExecutionMode::SpeculateByHints,
            ExecutionMode::Sequential,
        ];
        let draw = |what: u64| mix(mix(self.args.seed, life), what);
        let most = self.args.threads.unwrap_or(THREADS) as u64;
        let mut config = ExecutorConfig::with_threads((1 + draw(0) % most) as usize);
        config.mode = MODES[(draw(1) % 4) as usize];
        config.chunk = (draw(2) % 3 == 0).then_some((1 + draw(3) % 12) as usize);
        config.forwarding = draw(4) % 2 == 0;
        config.spin = Duration::from_micros([0, 50, 200][(draw(5) % 3) as usize]);
        config.check_every = (draw(6) % 4 == 0).then_some(7);
        config.window = [8, 128, 4096][(draw(7) % 3) as usize];
        config.join = [0, 50, 1024][(draw(8) % 3) as usize];
        (config.pin, config.executing_buffer) = (false, QUEUE);
        config
    }

    /// Has every executor do its part of a segment.
    fn segment(&mut self, segment: &Segment) -> Result<Result<(), Difference>, CliError> {
        let kinds = self.replicas.len();
        let before = self.checkpoint.take();
        // Whoever takes the checkpoint comes first: another one waits for it.
        let first = (segment.number as usize * (kinds - 1)) % kinds;
        let mut outcome = Ok(());
        for part in 0..kinds {
            let replica = (first + part) % kinds;
            let done = match (part, &before) {
                (0, _) => self.take_checkpoint(replica, segment)?,
                (1, Some(before)) => self.restart(replica, segment, before)?,
                (2, _) => self.install(replica, segment)?,
                _ => self.catch_up(replica, segment)?,
            };
            outcome = outcome.and(done);
        }
        self.deeds.segments += 1;
        Ok(outcome)
    }

    /// Live, with a checkpoint after the last batch.
    fn take_checkpoint(
        &mut self,
        replica: usize,
        segment: &Segment,
    ) -> Result<Result<(), Difference>, CliError> {
        let fed = self.feed(replica, segment, true)?;
        let state = self.replicas[replica].checkpoint()?;
        self.deeds.checkpoints += 1;
        let same = self.compare(replica, segment, "the checkpoint", state.digest() == segment.state);
        self.checkpoint = Some(Checkpoint { seq: segment.last, state });
        Ok(fed.and(same))
    }

    /// Live, and then from the last checkpoint and the log since.
    fn restart(
        &mut self,
        replica: usize,
        segment: &Segment,
        before: &Checkpoint,
    ) -> Result<Result<(), Difference>, CliError> {
        let fed = self.feed(replica, segment, false)?;
        let state = self.same_state(replica, segment, "the state")?;
        self.deeds.restarts += 1;
        debug_assert!(before.seq < segment.last);
        let requests = segment.requests();
        let from = Beginning { state: before.state.snapshot(), requests, seq: Some(segment.last) };
        let kind = self.replicas[replica].kind();
        let new = Replica::start(kind, self.config(self.deeds.restarts), from, &self.empty)?;
        std::mem::replace(&mut self.replicas[replica], new).stop()?;
        self.deeds.executed += segment.operations;
        let again = self.same_state(replica, segment, "the state after a restart")?;
        Ok(fed.and(state).and(again))
    }

    /// Not at all: the checkpoint of another executor stands for it.
    fn install(&mut self, replica: usize, segment: &Segment) -> Result<Result<(), Difference>, CliError> {
        let Some(checkpoint) = &self.checkpoint else {
            return self.catch_up(replica, segment);
        };
        self.replicas[replica].install(checkpoint.seq, &checkpoint.state)?;
        self.deeds.installs += 1;
        self.same_state(replica, segment, "the state after an installation")
    }

    /// As what was missed.
    fn catch_up(&mut self, replica: usize, segment: &Segment) -> Result<Result<(), Difference>, CliError> {
        self.replicas[replica].catch_up(segment)?;
        self.deeds.executed += segment.operations;
        self.same_state(replica, segment, "the state after catching up")
    }

    fn feed(
        &mut self,
        replica: usize,
        segment: &Segment,
        checkpoint: bool,
    ) -> Result<Result<(), Difference>, CliError> {
        let (count, asked) = self.replicas[replica].feed(segment, checkpoint)?;
        self.deeds.executed += segment.operations;
        self.deeds.unordered += asked;
        let next = segment.first + segment.operations;
        let expected = (next, true, segment.replies, asked);
        let got: (u64, bool, ReplyDigest, u64) = (count.next, count.orderly, count.replies, count.unordered);
        Ok(self.compare(replica, segment, "a reply, or their order,", got == expected))
    }

    /// Asks an executor for its state.
    fn same_state(
        &mut self,
        replica: usize,
        segment: &Segment,
        what: &str,
    ) -> Result<Result<(), Difference>, CliError> {
        let same = self.replicas[replica].state()?.digest() == segment.state;
        Ok(self.compare(replica, segment, what, same))
    }

    fn compare(
        &mut self,
        replica: usize,
        segment: &Segment,
        what: &str,
        same: bool,
    ) -> Result<(), Difference> {
        self.deeds.comparisons += 1;
        if same {
            return Ok(());
        }
        let name = self.replicas[replica].name();
        let from = segment.batches.first().map_or(segment.last, |batch| batch.sequence_number());
        Err(Difference(format!(
            "{what} of {name} in segment {} (batches {from} to {}) is not the sequential loop's",
            segment.number, segment.last
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// Runs two segments that `tamper` has been at; returns what is said to differ.
    fn differs(tamper: fn(&mut Segment)) -> Option<String> {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            args: SoakArgs,
        }
        let args = Line::parse_from(["soak", "--threads", "2", "--segment", "60"]).args;
        let empty = ShardedState::builder().shards(SHARDS).build().expect("valid");
        let mut state = empty.snapshot();
        Mixture::populate(&mut state);
        let mut soak =
            Soak { args: &args, empty, replicas: Vec::new(), checkpoint: None, deeds: Deeds::default() };
        for kind in ExecutorKind::ALL {
            let from = Beginning { state: state.snapshot(), requests: Vec::new(), seq: None };
            soak.replicas.push(Replica::start(kind, soak.config(0), from, &soak.empty).expect("started"));
        }
        let mut log = Log::new(state, 3, 60);
        assert!(soak.segment(&log.next()).expect("alive").is_ok());
        let mut segment = log.next();
        tamper(&mut segment);
        let outcome = soak.segment(&segment).expect("alive");
        soak.replicas.into_iter().try_for_each(Replica::stop).expect("a good end");
        outcome.err().map(|Difference(text)| text)
    }

    #[test]
    fn a_difference_is_found() {
        assert_eq!(differs(|_| {}), None);
        let state = differs(|segment| segment.state[0] ^= 1).expect("another state");
        assert!(state.starts_with("the checkpoint of multi-div in segment 1 (batches "), "{state}");
        let reply = differs(|segment| segment.replies.push(0)).expect("other replies");
        assert!(reply.starts_with("a reply, or their order, of multi-div in segment 1"), "{reply}");
    }
}
