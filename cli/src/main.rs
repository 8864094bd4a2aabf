//! `atlas-smr`: runs the executors on a chosen workload, as a replica would, and holds each against the sequential
//! loop.
//!
//! Exit code 0: state and replies of every executor equal the reference's. 1: they differ, an executor failed, or a long
//! run's memory grew. 2: the command line, the workload or a trace is wrong.
#![forbid(unsafe_code)]

mod args;
mod drive;
mod error;
mod recorder;
mod report;
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
    if std::env::var_os(EnvFilter::DEFAULT_ENV).is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .init();
    }
    let outcome = match task {
        Task::Run(args) => run(&args),
        Task::Soak(args) => soak(&args),
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
