//! The program survives a few faults: a short run of what the command runs for as long as one likes.

mod common;

use std::time::Duration;

use chaos::cluster::Settings;
use chaos::judge::{Fault, judge};
use chaos::mixed;
use chaos::scenario::Scenario;
use chaos::schedule::{Plan, draw, run, stale};
use chaos::workload::Pace;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use tokio::sync::Mutex;

/// Three nodes and their clients are enough for one machine at a time.
static TURN: Mutex<()> = Mutex::const_new(());

fn plan(folder: &tempfile::TempDir, scenarios: Vec<Scenario>) -> Plan {
    Plan {
        seed: 20_260,
        rounds: u32::try_from(scenarios.len()).expect("few"),
        scenarios,
        pace: Pace::default(),
        settings: Settings::new(common::program(), folder.path().to_owned()),
    }
}

async fn survive(scenarios: Vec<Scenario>) {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let plan = plan(&folder, scenarios);
    let (report, history) = run(&plan, |outcome| println!("{outcome:?}")).await;
    println!("{} operations, judged in {} ms", report.operations, report.judged_ms);
    if !report.is_right() {
        let file = std::env::temp_dir().join(format!("history-{}.json", report.seed));
        history.save(&file).expect("written");
        panic!("{report:#?}\nhistory: {}, files of the nodes: {}", file.display(), folder.keep().display());
    }
    assert_eq!(report.rounds.len(), plan.rounds as usize);
    assert!(report.operations > report.unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_cuts_and_a_full_disk() {
    survive(vec![
        Scenario::FollowerBehind,
        Scenario::LeaderKilled,
        Scenario::LeaderCutOff,
        Scenario::FullDisk,
        Scenario::AllKilled,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_different_kinds_end_equal() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let settings = mixed::settings(common::program(), folder.path().to_owned());
    let report = mixed::run(&settings, 5, 20_000).await.expect("equal states");
    assert!(report.operations >= 20_000);
    let kinds: Vec<_> = report.nodes.iter().map(|node| (node.executor.as_str(), node.threads)).collect();
    assert_eq!(kinds, [("single-divisible", 1), ("multi-divisible", 2), ("multi-monolithic", 3)]);
    assert!(report.nodes.iter().all(|node| node.operations >= report.operations), "{report:?}");
}

/// If clients read whatever a leader knows that was cut off, the judge must find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_reads_from_a_leader_that_was_cut_off_are_found() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let history = stale(&plan(&folder, Vec::new())).await.expect("a history");
    let faults = judge(&history, Duration::from_secs(30));
    let is_found = |fault: &Fault| matches!(fault, Fault::NotLinearizable { .. });
    assert!(faults.iter().any(is_found), "{faults:?}");
    // Writes go to the others, and are right.
    let is_read = |fault: &Fault| matches!(fault, Fault::NotLinearizable { .. } | Fault::Undecided { .. });
    assert!(faults.iter().all(is_read), "{faults:?}");
}

#[test]
fn a_seed_draws_one_schedule_in_which_each_scenario_comes_in_turn() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        seed: 3,
        rounds: 25,
        scenarios: Vec::new(),
        pace: Pace::default(),
        settings: Settings::new("unused".into(), folder.path().to_owned()),
    };
    let drawn = |seed| draw(&plan, &mut Pcg64Mcg::seed_from_u64(seed));
    assert_eq!(drawn(3), drawn(3));
    assert_ne!(drawn(3), drawn(4));
    let mut first = drawn(3)[..11].to_vec();
    first.sort_unstable();
    first.dedup();
    assert_eq!((first.len(), drawn(3).len()), (11, 25));
}
