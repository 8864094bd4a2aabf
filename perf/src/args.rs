//! The command line.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};

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
    /// Print the names of the rows and measure nothing.
    #[arg(long)]
    pub list: bool,
    /// Pairs of samples of each row [default: 7, with --quick 3].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub pairs: Option<usize>,
    /// Threads of the engine.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Folder of the recorded blocks (*.jsonl).
    #[arg(long, env = "ATLAS_TRACES", default_value = "../shared/traces")]
    pub trace_dir: PathBuf,
}
