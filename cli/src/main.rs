//! `atlas-smr`: runs the executors on a chosen workload, as a replica would, and holds each against the sequential
//! loop; and serves a replicated key-value store on them.
//!
//! Exit code 0: state and replies of every executor equal the reference's, or the replicas' states are equal. 1: they
//! differ, an executor or a node failed, or a long run's memory grew. 2: the command line, the settings, the workload or a
//! trace is wrong.
#![forbid(unsafe_code)]

mod args;
mod drive;
mod error;
mod recorder;
mod replicated;
mod report;
mod served;
mod soak;
mod suite;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, RunArgs, SoakArgs, Task};
use error::CliError;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let task = Cli::parse().into_task();
    log(&task);
    let outcome = match task {
        Task::Run(args) => run(&args),
        Task::Soak(args) => soak(&args),
        Task::Serve(args) => replicated::serve(&args).map(|()| true),
        Task::Client(args) => replicated::client(&args),
        Task::Status(args) => replicated::status(&args),
        Task::Cluster(args) => replicated::cluster(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            complain(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Writes to standard error what the environment asks for; a node's own warnings anyway.
fn log(task: &Task) {
    let filter = match (EnvFilter::try_from_default_env(), task) {
        (Ok(filter), _) => filter,
        (Err(_), Task::Serve(_)) => EnvFilter::new("warn,openraft=off"),
        (Err(_), _) => return,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// True if every executor equals the reference.
fn run(args: &RunArgs) -> Result<bool, CliError> {
    let report = suite::run(args)?;
    let text = if args.json { report.json()? } else { report.table() };
    print(&text)?;
    Ok(report.all_equal())
}

/// True if nothing was wrong in a long run.
fn soak(args: &SoakArgs) -> Result<bool, CliError> {
    // Progress that cannot be shown stops nothing.
    let show: fn(&str) = if args.json { complain } else { |line| drop(print(line)) };
    let report = soak::run(args, show)?;
    print(&if args.json { report.json()? } else { report.text() })?;
    Ok(report.is_good())
}

/// Writes `text` and a line end to standard output. That nobody reads it any more is no error.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Output(error)),
        _ => Ok(()),
    }
}

/// Writes one line to standard error; if that cannot be done there is nobody left to tell.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
