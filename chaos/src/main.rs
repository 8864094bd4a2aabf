//! Runs fault schedules against the replicated program, and judges what clients saw.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chaos::cluster::Settings;
use chaos::error::ChaosError;
use chaos::history::History;
use chaos::judge::judge;
use chaos::mixed;
use chaos::process::find_program;
use chaos::scenario::{Outcome, Scenario};
use chaos::schedule::{Plan, Report, run};
use chaos::workload::Pace;
use clap::Parser;

/// Kills, cuts off, starves and restarts the nodes of a cluster while clients work, and judges what they saw.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Arguments {
    /// Draws the schedule and what clients do; by default another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// How many faults.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Only this one; may be given several times.
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// The program to test; by default `atlas-smr` beside this one.
    #[arg(long, env = "ATLAS_SMR")]
    program: Option<PathBuf>,
    /// Where the history goes if something is wrong, and what the nodes wrote stays.
    #[arg(long, default_value = "target/chaos")]
    keep: PathBuf,
    /// Keeps the history in this file, and what the nodes wrote, also if nothing is wrong.
    #[arg(long, conflicts_with = "mixed")]
    save: Option<PathBuf>,
    /// No faults: runs so many conflicting operations on nodes of different kinds, and compares their states.
    #[arg(long, value_name = "OPERATIONS", conflicts_with = "scenario")]
    mixed: Option<u64>,
    /// Judges a history that was kept, and runs nothing.
    #[arg(long, conflicts_with_all = ["seed", "scenario", "program", "mixed"])]
    judge: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.judge {
        Some(file) => again(file),
        None => survive(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::from(2)
        }
    }
}

fn failed(what: &str) -> impl FnOnce(std::io::Error) -> ChaosError {
    let what = what.to_owned();
    move |cause| ChaosError::Io { what, cause }
}

fn again(file: &std::path::Path) -> Result<bool, ChaosError> {
    let history = History::load(file).map_err(failed("reading the history"))?;
    let faults = judge(&history, Duration::from_secs(600));
    faults.iter().for_each(|fault| println!("{fault}"));
    println!("{} operations, {} faults", history.records.len(), faults.len());
    Ok(faults.is_empty())
}

fn survive(arguments: &Arguments) -> Result<bool, ChaosError> {
    let program = arguments.program.clone().map_or_else(find_program, Ok)?;
    let seed = arguments.seed.unwrap_or_else(rand_seed);
    eprintln!("seed {seed}");
    let folder = tempfile::Builder::new().prefix("chaos-").tempdir().map_err(failed("a folder"))?;
    let runtime = tokio::runtime::Runtime::new().map_err(failed("threads"))?;
    if let Some(operations) = arguments.mixed {
        let settings = mixed::settings(program, folder.path().to_owned());
        let report = runtime.block_on(mixed::run(&settings, seed, operations))?;
        report.nodes.iter().for_each(|node| eprintln!("{node:?}"));
        if arguments.json {
            print_json(&report)?;
        } else {
            println!("{}", mixed::line(&report));
        }
        return Ok(true);
    }
    let plan = Plan {
        seed,
        rounds: arguments.rounds,
        scenarios: arguments.scenario.clone(),
        pace: Pace::default(),
        settings: Settings::new(program, folder.path().to_owned()),
    };
    let (mut report, history) = runtime.block_on(run(&plan, tell));
    if let Some(file) = &arguments.save {
        history.save(file).map_err(failed("saving the history"))?;
    }
    if !report.is_right() {
        std::fs::create_dir_all(&arguments.keep).map_err(failed("a folder for the history"))?;
        let file = arguments.keep.join(format!("history-{seed}.json"));
        history.save(&file).map_err(failed("keeping the history"))?;
        report.history = Some(file);
    }
    if arguments.save.is_some() || !report.is_right() {
        eprintln!("the nodes' files stay in {}", folder.keep().display());
    }
    print(&report, arguments.json)?;
    Ok(report.is_right())
}

/// A seed that nobody chose: the standard library's hashers are seeded by the operating system.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) % 1_000_000_000
}

fn tell(outcome: &Outcome) {
    let Outcome { scenario, nodes, served_again_ms, served_after_healing_ms, stall_ms } = outcome;
    eprintln!(
        "{scenario:?} {nodes:?}: serves again after {served_again_ms} ms; once undone, after {served_after_healing_ms} ms \
         (this machine stalled for up to {stall_ms} ms)"
    );
}

fn print_json(report: &impl serde::Serialize) -> Result<(), ChaosError> {
    let text = serde_json::to_string_pretty(report).map_err(std::io::Error::from);
    println!("{}", text.map_err(failed("the report"))?);
    Ok(())
}

fn print(report: &Report, json: bool) -> Result<(), ChaosError> {
    if json {
        return print_json(report);
    }
    let Report { seed, operations, unknown, .. } = report;
    println!("{operations} operations of 8 clients, {unknown} with unknown outcome, seed {seed}");
    println!("judged in {} ms; {} connections of strangers", report.judged_ms, report.strangers);
    if let Some(digest) = &report.digest {
        println!("all nodes hold {digest}");
    }
    report.error.iter().for_each(|error| println!("FAILED: {error}"));
    report.faults.iter().for_each(|fault| println!("WRONG: {fault}"));
    match &report.history {
        None => println!("nothing lost, nothing done twice, linearizable, all equal"),
        Some(file) => println!("history: {}", file.display()),
    }
    Ok(())
}
