//! `perf`: measures the engine against the sequential loop, and shows where its time goes.
//!
//! Exit code 0: measured. 1: a result was wrong, or an engine failed. 2: the command line or a trace is wrong.
#![deny(unsafe_code)]

mod allocations;
mod args;
mod baseline;
mod bench;
mod compare;
mod error;
mod fixed;
mod flamegraph;
mod heap;
mod latency;
mod load;
mod machine;
#[path = "../../benches/parts/mod.rs"]
mod parts;
mod probe;
mod raw;
mod sample;
mod scaling;
mod station;
mod stats;
mod table;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, CompareArgs};
use error::PerfError;

#[global_allocator]
static ALLOCATOR: raw::counting::Counting = raw::counting::Counting;

fn main() -> ExitCode {
    if !raw::memory::keep() {
        // If that cannot be written, nobody is left to tell.
        let _ = writeln!(io::stderr(), "note: memory that is free goes back to the system");
    }
    let result = match Cli::parse().command {
        Command::Compare(args) => compare(&args),
        Command::Fixed(args) => show(fixed::run(&args)),
        Command::Allocations(args) => show(allocations::run(&args)),
        Command::Latency(args) => show(latency::run(&args)),
        Command::Scaling(args) => show(scaling::run(&args)),
        Command::Machine => show(Ok(machine::heading())),
        Command::Flamegraph { title } => {
            flamegraph::draw(io::stdin().lock(), io::stdout().lock(), &title).map(|()| true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // If that cannot be written, nobody is left to tell.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints what was found out.
fn show(text: Result<String, PerfError>) -> Result<bool, PerfError> {
    print(&text?)?;
    Ok(true)
}

/// True if every result was right.
fn compare(args: &CompareArgs) -> Result<bool, PerfError> {
    if args.list {
        print(&compare::names(args)?.join("\n"))?;
        return Ok(true);
    }
    let report = compare::run(args)?;
    if let Some(path) = &args.json_file {
        std::fs::write(path, report.json()?)?;
    }
    print(&if args.json { report.json()? } else { report.table() })?;
    Ok(report.all_equal())
}

/// Writes `text` and a line end to standard output. That nobody reads it any more is no error.
fn print(text: &str) -> Result<(), PerfError> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(PerfError::Output(error)),
        _ => Ok(()),
    }
}
