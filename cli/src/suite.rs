//! A whole run: the reference first, then each chosen executor on the same batches.

use std::time::{Duration, Instant};

use atlas_smr_execution::batch::UpdateBatch;
use atlas_smr_execution::state::ShardedState;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use workloads::trace::Trace;
use workloads::{Branch, Kv, Transfer, Workload, WorkloadError, WorkloadKind, reference};

use crate::args::RunArgs;
use crate::complain;
use crate::drive::{self, Job};
use crate::error::CliError;
use crate::report::{Reference, Report, Row};

/// Keys of the key-value workloads if nothing else is asked for: enough that few collide, loaded in no time.
const KV_KEYS: u64 = 100_000;
/// Keys of the branching workload.
const BRANCH_KEYS: u64 = 1000;
/// Runs shorter than this show no progress bar.
const LONG: Duration = Duration::from_secs(1);

/// Runs what `args` ask for.
pub fn run(args: &RunArgs) -> Result<Report, CliError> {
    match args.workload {
        WorkloadKind::Transfer => {
            let RunArgs { accounts, work_ns, heavy, .. } = *args;
            compare(args, &Transfer { accounts, work_ns, heavy, counts: 0 })
        }
        WorkloadKind::Kv(mix) => {
            let keys = args.keys.unwrap_or(KV_KEYS);
            compare(args, &Kv { mix, keys, value_size: args.value_size })
        }
        WorkloadKind::Branch => {
            let keys = args.keys.unwrap_or(BRANCH_KEYS);
            compare(args, &Branch { keys, work_ns: args.work_ns })
        }
        WorkloadKind::Trace => {
            let mut trace = Trace::load(&args.trace_dir, args.model).map_err(WorkloadError::from)?;
            trace.scale = args.scale;
            trace.repeat = args.repeat;
            compare(args, &trace)
        }
    }
}

fn compare<W: Workload>(args: &RunArgs, workload: &W) -> Result<Report, CliError> {
    let config = args.config();
    let settled = config.validate()?;
    workload.validate()?;
    args.plan().validate()?;
    if args.in_flight == 0 {
        let (name, value, min, max) = ("in-flight", 0, 1, u64::MAX);
        return Err(WorkloadError::OutOfRange { name, value, min, max }.into());
    }
    settled.notes.iter().for_each(|note| complain(&format!("note: {note}")));

    let batches: Vec<_> = workload.batches(args.plan()).collect();
    let operations: u64 = batches.iter().map(|batch| batch.len() as u64).sum();
    let reference = loop_over(workload, &batches)?;
    let mut report = Report {
        workload: args.workload,
        threads: settled.threads,
        batch: typical_size(&batches),
        operations,
        reference,
        rows: Vec::new(),
    };
    for kind in args.executors() {
        let job = Job {
            config: config.clone(),
            logic: workload.logic(),
            state: populated(workload)?,
            empty: empty(workload)?,
            batches: batches.clone(),
            in_flight: args.in_flight,
        };
        let bar = Bar::new(kind.name(), operations);
        let outcome = drive::run(kind, job, &mut |queued| bar.at(queued))?;
        bar.finish();
        report.rows.push(Row::new(kind.name(), &report.reference, outcome));
    }
    Ok(report)
}

/// What the sequential loop gives.
fn loop_over<W: Workload>(
    workload: &W,
    batches: &[UpdateBatch<workloads::Request<W>>],
) -> Result<Reference, CliError> {
    let mut state = populated(workload)?;
    // Copied beforehand, as for the executors: only the loop is timed.
    let outcome = reference::run_workload(workload, &mut state, batches.to_vec());
    Ok(Reference { outcome, state_digest: state.digest() })
}

/// An empty state with the workload's merge operators.
fn empty<W: Workload>(workload: &W) -> Result<ShardedState, CliError> {
    let mut builder = ShardedState::builder();
    for &(column, operator) in workload.columns() {
        builder = builder.merge_operator(column, operator);
    }
    Ok(builder.build()?)
}

/// The state to begin with. Each run gets one of its own, not a snapshot: writes to a snapshot go beside what
/// it shares, and that would be measured.
fn populated<W: Workload>(workload: &W) -> Result<ShardedState, CliError> {
    let mut state = empty(workload)?;
    workload.populate(&mut state);
    Ok(state)
}

/// The size of the batches; where they differ, their mean. The last one may be cut short and counts only if alone.
fn typical_size<O>(batches: &[UpdateBatch<O>]) -> usize {
    match batches {
        [first, .., _] if batches[..batches.len() - 1].iter().all(|batch| batch.len() == first.len()) => {
            first.len()
        }
        _ => batches.iter().map(UpdateBatch::len).sum::<usize>() / batches.len().max(1),
    }
}

/// A progress bar on standard error, for long runs and only if somebody looks.
struct Bar {
    bar: ProgressBar,
    start: Instant,
}

impl Bar {
    fn new(name: &'static str, operations: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(operations), ProgressDrawTarget::hidden());
        // A template that does not parse leaves the default one.
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>10} {wide_bar} {human_pos}/{human_len} {eta}")
        {
            bar.set_style(style);
        }
        bar.set_prefix(name);
        Bar { bar, start: Instant::now() }
    }

    fn at(&self, queued: u64) {
        if self.start.elapsed() < LONG {
            return;
        }
        if self.bar.position() == 0 {
            // Draws nothing where standard error is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(queued);
    }

    fn finish(self) {
        self.bar.finish_and_clear();
    }
}
