//! The command line.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};
use workloads::trace::{Model, Trace};
use workloads::{Branch, Kv, Transfer, WorkloadError, WorkloadKind};

use crate::fixed::Way;
use crate::load::Load;

/// Measures the engine against the sequential loop, and shows where its time goes.
#[derive(Debug, Parser)]
#[command(name = "perf", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hold every row against the sequential loop.
    Compare(CompareArgs),
    /// Execute a fixed number of batches in one way, for profilers.
    Fixed(FixedArgs),
    /// Count what each way of execution asks of the heap.
    Allocations(CommonArgs),
    /// Latencies of small batches through the executors' channels.
    Latency(LatencyArgs),
    /// Predict what more cores would do, from what the engine's parts take on one.
    Scaling(ScalingArgs),
    /// Say on which machine and of which commit measurements are taken now.
    Machine,
    /// Turn what `perf script` prints, on standard input, into a flame graph on standard output.
    Flamegraph {
        /// Title of the graph.
        #[arg(long, default_value = "")]
        title: String,
    },
}

/// Options of `compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Fewer and shorter samples: all rows in less than two minutes.
    #[arg(long)]
    pub quick: bool,
    /// Only rows whose names contain this.
    #[arg(long)]
    pub filter: Option<String>,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Write the JSON document to this file, too.
    #[arg(long)]
    pub json_file: Option<PathBuf>,
    /// Print the names of the rows and measure nothing.
    #[arg(long)]
    pub list: bool,
    /// Pairs of samples of each row [default: 7, with --quick 3].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub pairs: Option<usize>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of everything that measures.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Threads of the engine.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Folder of the recorded blocks (*.jsonl).
    #[arg(long, env = "ATLAS_TRACES", default_value = "../shared/traces")]
    pub trace_dir: PathBuf,
}

/// Options of `fixed`.
#[derive(Debug, Args)]
pub struct FixedArgs {
    #[command(flatten)]
    pub load: LoadArgs,
    /// Who executes.
    #[arg(long, value_enum, default_value_t = Way::Forced)]
    pub way: Way,
    /// Number of batches.
    #[arg(long, default_value_t = 10_000)]
    pub batches: u64,
    /// Positions that a thread takes at once [default: from measured costs].
    #[arg(long)]
    pub chunk: Option<usize>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `latency`.
#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// Batches of each kind.
    #[arg(long, default_value_t = 20_000)]
    pub batches: usize,
    /// Where to draw a plot (SVG).
    #[arg(long)]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `scaling`.
#[derive(Debug, Args)]
pub struct ScalingArgs {
    #[command(flatten)]
    pub load: LoadArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What is executed.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// transfer, kv-put, kv-update, kv-merge, ycsb-a, ycsb-b, ycsb-c, ycsb-f, branch or trace.
    #[arg(long, default_value_t = WorkloadKind::Transfer)]
    pub workload: WorkloadKind,
    /// Operations in one batch.
    #[arg(long, default_value_t = 128)]
    pub batch: usize,
    /// Busy work of one operation of `transfer` and `branch`, in nanoseconds.
    #[arg(long, default_value_t = 0)]
    pub work_ns: u64,
    /// Accounts of `transfer`.
    #[arg(long, default_value_t = 1000)]
    pub accounts: u64,
    /// Share of the operations of `transfer` that are 100 times as heavy.
    #[arg(long, default_value_t = 0.0)]
    pub heavy: f64,
    /// How often an operation of `transfer` counts on a counter that all share.
    #[arg(long, default_value_t = 0)]
    pub counts: u32,
    /// Keys of `kv-*` and `ycsb-*` [default: 1000000] and of `branch` [default: 1000].
    #[arg(long)]
    pub keys: Option<u64>,
    /// Conflict model of `trace`: raw, account or merge.
    #[arg(long, default_value_t = Model::Account)]
    pub model: Model,
    /// Busy work of `trace` as a multiple of the recorded time.
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
}

impl LoadArgs {
    /// The workload. Recorded blocks are repeated for as many batches as are asked for.
    ///
    /// # Errors
    ///
    /// Traces that cannot be read.
    pub fn load(&self, common: &CommonArgs) -> Result<Load, WorkloadError> {
        Ok(match self.workload {
            WorkloadKind::Transfer => {
                let LoadArgs { accounts, work_ns, heavy, counts, .. } = *self;
                Load::Transfer(Transfer { accounts, work_ns, heavy, counts })
            }
            WorkloadKind::Kv(mix) => Load::Kv(Kv { keys: self.keys.unwrap_or(1_000_000), ..Kv::new(mix) }),
            WorkloadKind::Branch => {
                Load::Branch(Branch { keys: self.keys.unwrap_or(1000), work_ns: self.work_ns })
            }
            WorkloadKind::Trace => {
                let trace = Trace::load(&common.trace_dir, self.model)?;
                Load::Trace(Trace { scale: self.scale, repeat: 1_000_000, ..trace })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
