//! The command line.

use std::path::PathBuf;

use atlas_smr_execution::executor::{ExecutionMode, ExecutorConfig};
use clap::{Args, Parser, Subcommand, ValueEnum};
use workloads::trace::Model;
use workloads::{Plan, WorkloadKind};

use crate::replicated::args::{ClientArgs, ClusterArgs, ServeArgs, StatusArgs};

/// Runs replicated-state-machine executors on a workload and holds each against the plain sequential loop.
#[derive(Debug, Parser)]
#[command(name = "atlas-smr", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Execute a workload on the chosen executors and compare them (also what happens without a subcommand).
    Run(RunArgs),
    /// Let all executors live side by side for long, with changing workloads, checkpoints, installations and restarts, and
    /// hold each against the sequential loop throughout.
    Soak(SoakArgs),
    /// Serve one replica of a key-value store with transfers.
    Serve(ServeArgs),
    /// Ask a cluster for something.
    Client(ClientArgs),
    /// Show how the nodes of a cluster fare.
    Status(StatusArgs),
    /// Start three replicas on this machine, put load on them, and compare their states.
    Cluster(ClusterArgs),
}

/// What the program is to do.
pub enum Task {
    Run(RunArgs),
    Soak(SoakArgs),
    Serve(ServeArgs),
    Client(ClientArgs),
    Status(StatusArgs),
    Cluster(ClusterArgs),
}

impl Cli {
    /// What the program is to do.
    pub fn into_task(self) -> Task {
        match self.command {
            Some(Command::Run(run)) => Task::Run(run),
            Some(Command::Soak(soak)) => Task::Soak(soak),
            Some(Command::Serve(serve)) => Task::Serve(serve),
            Some(Command::Client(client)) => Task::Client(client),
            Some(Command::Status(status)) => Task::Status(status),
            Some(Command::Cluster(cluster)) => Task::Cluster(cluster),
            None => Task::Run(self.run),
        }
    }
}

/// Options of `soak`.
#[derive(Debug, Args)]
pub struct SoakArgs {
    /// Ends after so many seconds [default: 60, unless `--operations` is given].
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Ends when the log has so many operations, of which every executor executes nearly all.
    #[arg(long)]
    pub operations: Option<u64>,
    /// Operations between two comparisons.
    #[arg(long, default_value_t = 100_000)]
    pub segment: u64,
    /// Seed of the log and of the executors' settings.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The most threads of a multi-threaded executor [default: 4].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Seconds from one line about progress and memory to the next.
    #[arg(long, default_value_t = 10)]
    pub report_every: u64,
    /// Print one JSON document at the end; progress goes to standard error.
    #[arg(long)]
    pub json: bool,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Executor to run; may be given more than once.
    #[arg(long, value_enum, default_value = "all")]
    pub executor: Vec<ExecutorArg>,
    /// Threads of the multi-threaded executors [default: one per core].
    #[arg(long)]
    pub threads: Option<usize>,
    /// Operations in one batch.
    #[arg(long, default_value_t = 128)]
    pub batch: usize,
    /// Operations altogether.
    #[arg(long, default_value_t = 1_000_000)]
    pub operations: u64,
    /// Seed of the workload's generator: the same seed gives the same operations.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What is executed: transfer, kv-put, kv-update, kv-merge, ycsb-a, ycsb-b, ycsb-c, ycsb-f, branch or trace.
    #[arg(long, default_value_t = WorkloadKind::Transfer)]
    pub workload: WorkloadKind,
    /// Accounts of `transfer`: fewer of them collide more often.
    #[arg(long, default_value_t = 1000)]
    pub accounts: u64,
    /// Keys of `kv-*` and `ycsb-*` [default: 100000] and of `branch` [default: 1000].
    #[arg(long)]
    pub keys: Option<u64>,
    /// Busy work of one operation of `transfer` and `branch`, in nanoseconds.
    #[arg(long, default_value_t = 1000)]
    pub work_ns: u64,
    /// Share of operations of `transfer`, from 0 to 1, that work 100 times as long.
    #[arg(long, default_value_t = 0.0)]
    pub heavy: f64,
    /// Bytes of a value of `kv-*` and `ycsb-*`.
    #[arg(long, default_value_t = 100)]
    pub value_size: usize,
    /// When the multi-threaded executors speculate.
    #[arg(long, value_enum, default_value_t = ModeArg::Adaptive)]
    pub mode: ModeArg,
    /// Folder of the recorded blocks (*.jsonl) of `trace`.
    #[arg(long, env = "ATLAS_TRACES", default_value = "../shared/traces")]
    pub trace_dir: PathBuf,
    /// Conflict model of `trace`: raw, account or merge.
    #[arg(long, default_value_t = Model::Account)]
    pub model: Model,
    /// Busy work of `trace` as a multiple of the recorded time; 0 for none.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// How often `trace` runs through its blocks.
    #[arg(long, default_value_t = 1)]
    pub repeat: usize,
    /// Batches that may be on their way at once; more hide waiting, fewer give shorter latencies.
    #[arg(long, default_value_t = 4)]
    pub in_flight: usize,
    /// Leave the threads to the scheduler instead of pinning them to cores.
    #[arg(long)]
    pub no_pin: bool,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    pub json: bool,
}

impl RunArgs {
    /// The chosen executors, each once, in the order of the table.
    pub fn executors(&self) -> Vec<ExecutorKind> {
        let chosen = |kind: &ExecutorKind| {
            self.executor.iter().any(|arg| matches!(arg, ExecutorArg::All) || arg.kind() == Some(*kind))
        };
        ExecutorKind::ALL.into_iter().filter(chosen).collect()
    }

    /// Settings of the executors.
    pub fn config(&self) -> ExecutorConfig {
        let mut config = ExecutorConfig::default();
        config.threads = self.threads;
        config.pin = !self.no_pin;
        config.mode = match self.mode {
            ModeArg::Adaptive => ExecutionMode::Adaptive,
            ModeArg::Speculate => ExecutionMode::Speculate,
            ModeArg::Sequential => ExecutionMode::Sequential,
        };
        config
    }

    /// How much is executed.
    pub fn plan(&self) -> Plan {
        Plan { seed: self.seed, batch: self.batch, operations: self.operations }
    }
}

/// An executor's name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExecutorArg {
    /// All four.
    All,
    /// One thread, the state travels as a whole.
    SingleMon,
    /// All threads, the state travels as a whole.
    MultiMon,
    /// One thread, the state travels in parts.
    SingleDiv,
    /// All threads, the state travels in parts.
    MultiDiv,
}

impl ExecutorArg {
    fn kind(self) -> Option<ExecutorKind> {
        match self {
            ExecutorArg::All => None,
            ExecutorArg::SingleMon => Some(ExecutorKind::SingleMon),
            ExecutorArg::MultiMon => Some(ExecutorKind::MultiMon),
            ExecutorArg::SingleDiv => Some(ExecutorKind::SingleDiv),
            ExecutorArg::MultiDiv => Some(ExecutorKind::MultiDiv),
        }
    }
}

/// One of the four executors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutorKind {
    SingleMon,
    MultiMon,
    SingleDiv,
    MultiDiv,
}

impl ExecutorKind {
    pub const ALL: [ExecutorKind; 4] =
        [ExecutorKind::SingleMon, ExecutorKind::MultiMon, ExecutorKind::SingleDiv, ExecutorKind::MultiDiv];

    /// The name in arguments and reports.
    pub fn name(self) -> &'static str {
        match self {
            ExecutorKind::SingleMon => "single-mon",
            ExecutorKind::MultiMon => "multi-mon",
            ExecutorKind::SingleDiv => "single-div",
            ExecutorKind::MultiDiv => "multi-div",
        }
    }
}

/// When to speculate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Where it was faster lately.
    Adaptive,
    /// Always.
    Speculate,
    /// Never.
    Sequential,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default() {
        let parse = |line: &str| match Cli::try_parse_from(line.split(' ')).expect("valid").into_task() {
            Task::Run(run) => run,
            _ => panic!("not asked for"),
        };
        assert_eq!(parse("atlas-smr --batch 7").batch, 7);
        assert_eq!(parse("atlas-smr run --batch 7").batch, 7);
        assert_eq!(parse("atlas-smr").executors(), ExecutorKind::ALL);
        let two = parse("atlas-smr --executor multi-div --executor single-mon --executor multi-div");
        assert_eq!(two.executors(), [ExecutorKind::SingleMon, ExecutorKind::MultiDiv]);
    }
}
