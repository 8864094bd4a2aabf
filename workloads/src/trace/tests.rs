//! Tests of the reader, the models and the workload, on a block made up here and on the recorded ones.

use std::io::Write;

use super::*;
use crate::memory::{Memory, check_paths_agree};
use crate::reference::run_workload;

const ADDRESS: [&str; 3] = [
    "5df9b87991262f6ba471f09758cde1c0fc1de734",
    "a1e4380a3b1f749673e270229993ee55f35663b4",
    "e6a7a1d47ff21b6321162aea7c6cb457d5476bca",
];

/// Keys 0 to 2: accounts (2 is the beneficiary); 3 to 5: their code; 6: a slot.
fn header(transactions: usize) -> String {
    let [a, b, c] = ADDRESS;
    format!(
        "{{\"block\":7,\"gas\":1,\"txs\":{transactions},\"beneficiary\":2,\
         \"keys\":[\"A{a}\",\"A{b}\",\"A{c}\",\"C{a}\",\"C{b}\",\"C{c}\",\"S{a}/1f\"]}}"
    )
}

/// Pays from 0 to 1, with a fee to 2.
const PAYMENT: &str = r#"{"ns":10,"gas":21,"from":0,"to":1,"r":[[0,"x"],[1,"x"],[2,"x"],[5,"x"]],
 "w":[[0,"x"],[1,"x"],[2,"x"]],"d":[[0,"-9"],[1,"7"],[2,"2"]],"bo":[],"no":[]}"#;
/// Looks at the balance of 1 and the nonce of 2, which creates something; writes a slot.
const CALL: &str = r#"{"ns":10,"gas":21,"from":1,"to":0,"r":[[1,"x"],[0,"x"],[6,"x"],[2,"x"]],
 "w":[[1,"x"],[2,"x"],[6,"x"]],"d":[[1,-3],[2,"3"]],"bo":[1],"no":[2]}"#;

fn lines(transactions: &[&str]) -> String {
    let flat = transactions.iter().map(|transaction| transaction.replace('\n', ""));
    std::iter::once(header(transactions.len())).chain(flat).collect::<Vec<_>>().join("\n")
}

fn parse(text: &str) -> Result<Recording, TraceError> {
    Recording::parse(Path::new("here.jsonl"), text.as_bytes())
}

fn made_up(model: Model) -> Block {
    Block::new(&parse(&lines(&[PAYMENT, CALL])).expect("well-formed"), model)
}

/// Keys as `column:index of the address`.
fn names(keys: &[TraceKey]) -> Vec<String> {
    let name = |key: &TraceKey| {
        let hex: String = key.bytes.iter().take(20).map(|byte| format!("{byte:02x}")).collect();
        let address = ADDRESS.iter().position(|address| **address == hex).expect("known");
        format!("{}:{address}", key.column.name())
    };
    keys.iter().map(name).collect()
}

#[test]
fn raw_is_as_recorded() {
    let block = made_up(Model::Raw);
    let payment = &block.operations[0];
    assert_eq!(names(&payment.reads), ["account:0", "account:1", "account:2", "code:2"]);
    assert_eq!(names(&payment.writes), ["account:0", "account:1", "account:2"]);
    assert!(payment.balances.is_empty());
}

#[test]
fn account_merges_the_fee_alone() {
    let block = made_up(Model::Account);
    let [payment, call] = &block.operations[..] else { panic!("two operations") };
    assert_eq!(names(&payment.reads), ["account:0", "account:1", "code:2"]);
    assert_eq!(names(&payment.writes), ["account:0", "account:1"]);
    let [fee] = &payment.balances[..] else { panic!("the fee") };
    assert_eq!((fee.difference, fee.observed), (Some(2), false));

    // It looks at the beneficiary's nonce: there the account is as recorded, and its balance is seen.
    assert_eq!(names(&call.writes), ["account:1", "account:2", "storage:0"]);
    let [fee] = &call.balances[..] else { panic!("the fee") };
    assert_eq!((fee.difference, fee.observed), (Some(3), true));
}

#[test]
fn merge_reads_only_what_is_observed() {
    let block = made_up(Model::Merge);
    let [payment, call] = &block.operations[..] else { panic!("two operations") };
    assert_eq!(names(&payment.reads), ["code:2"]);
    assert_eq!(names(&payment.writes), ["account:0"], "the sender's nonce");
    assert_eq!(payment.balances.len(), 3);
    assert!(payment.balances.iter().all(|change| !change.observed && change.difference.is_some()));

    assert_eq!(names(&call.reads), ["storage:0", "account:2"]);
    assert_eq!(names(&call.writes), ["account:1", "account:2", "storage:0"]);
    let observed: Vec<_> = call.balances.iter().map(|change| (change.observed, change.difference)).collect();
    assert_eq!(observed, [(true, Some(-3)), (false, Some(3))]);
}

fn workload(model: Model) -> Trace {
    Trace { blocks: vec![Arc::new(made_up(model))], scale: 0.0, repeat: 3 }
}

#[test]
fn both_paths_agree() {
    Model::ALL.into_iter().for_each(|model| check_paths_agree(&workload(model)));
}

#[test]
fn balances_end_where_the_differences_lead() {
    let workload = workload(Model::Merge);
    let mut state = Memory::default();
    workload.populate(&mut state);
    let of = |state: &Memory| {
        let accounts = &workload.blocks[0].keys;
        let accounts = accounts.iter().filter(|key| key.column == Column::Balance);
        accounts.map(|key| state.read_with("balance", &key.bytes, balance)).collect::<Vec<_>>()
    };
    let before = of(&state);
    let plan = Plan { seed: 0, batch: 1, operations: 1 };
    let outcome = run_workload(&workload, &mut state, workload.batches(plan));
    assert_eq!(outcome.operations, workload.operations());
    let differences: Vec<_> =
        before.iter().zip(of(&state)).map(|(before, after)| after.wrapping_sub(*before) as i128).collect();
    assert_eq!(differences, [-27, 12, 15]);
}

#[test]
fn a_wrong_order_shows() {
    for model in Model::ALL {
        let mut workload = workload(model);
        let outcome = |workload: &Trace| {
            let mut state = Memory::default();
            workload.populate(&mut state);
            let plan = Plan { seed: 0, batch: 1, operations: 1 };
            let replies = run_workload(workload, &mut state, workload.batches(plan)).replies;
            (state, replies)
        };
        let right = outcome(&workload);
        let mut block = made_up(model);
        block.operations.reverse();
        workload.blocks = vec![Arc::new(block)];
        let wrong = outcome(&workload);
        assert_ne!(right.1, wrong.1);
        assert_ne!(right.0, wrong.0, "{model}");
    }
}

#[test]
fn malformed_lines_are_named() {
    let error = |text: &str| parse(text).expect_err("malformed").to_string();
    let with = |transaction: &str| error(&lines(&[PAYMENT, transaction]));
    assert!(error("").starts_with("here.jsonl:1: empty"));
    assert!(error("nonsense").starts_with("here.jsonl:1: "));
    assert!(with("{\"ns\":").starts_with("here.jsonl:3: EOF while parsing"));
    assert!(with("{}").starts_with("here.jsonl:3: missing field `ns`, column"));
    assert!(with(&CALL.replace("[6,", "[7,")).starts_with("here.jsonl:3: `r` names key 7"));
    assert!(with(&CALL.replace("\"bo\":[1]", "\"bo\":[6]")).contains("no account"));
    let wide = CALL.replace("[1,-3]", "[1,\"-999999999999999999999999999999999999999999\"]");
    assert!(with(&wide).contains("here.jsonl:3: difference \"-99999"));
    assert!(with(&CALL.replace("\"to\":0", "\"to\":-2")).starts_with("here.jsonl:3: `to` is -2"));
    assert!(parse(&lines(&[&CALL.replace("\"to\":0", "\"to\":-1")])).is_ok());
    let short = error(&lines(&[PAYMENT, CALL]).replace("\"txs\":2", "\"txs\":3"));
    assert_eq!(short, "here.jsonl:3: 2 transactions here, but the header says 3");
    let key = error(&lines(&[]).replace("A5d", "A5x"));
    assert!(key.starts_with("here.jsonl:1: key \"A5x"), "{key}");
    let bytes = [header(1).as_bytes(), b"\n{\"ns\":\"\xff\"}"].concat();
    let error = Recording::parse(Path::new("here.jsonl"), &bytes[..]).expect_err("malformed").to_string();
    assert!(error.starts_with("here.jsonl:2: "), "{error}");
}

#[test]
fn folders_are_read_in_block_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let none = files(folder.path()).expect_err("empty").to_string();
    assert!(none.contains("no trace here"), "{none}");
    assert!(matches!(files(&folder.path().join("missing")), Err(TraceError::Io { .. })));
    for name in ["100.jsonl", "20.jsonl", "note.txt"] {
        let mut file = std::fs::File::create(folder.path().join(name)).expect("a file");
        writeln!(file, "{}", lines(&[PAYMENT])).expect("written");
    }
    let found = files(folder.path()).expect("two");
    assert!(found[0].ends_with("20.jsonl") && found[1].ends_with("100.jsonl") && found.len() == 2);
    assert_eq!(Trace::load(folder.path(), Model::Raw).expect("well-formed").operations(), 2);
}

#[test]
fn nonsense_is_refused() {
    assert!(Trace { repeat: 0, ..workload(Model::Raw) }.validate().is_err());
    assert!(Trace { scale: -1.0, ..workload(Model::Raw) }.validate().is_err());
    assert!("strict".parse::<Model>().is_err());
}

#[test]
fn every_recorded_block_can_be_read() {
    let Some(folder) = default_folder() else {
        println!("skipped: no recorded traces (set ATLAS_TRACES)");
        return;
    };
    for model in Model::ALL {
        let trace = Trace::load(&folder, model).expect("well-formed");
        println!("{model}: {} blocks, {} operations", trace.blocks.len(), trace.operations());
        let merged = trace.blocks.iter().flat_map(|block| &block.operations).any(|o| !o.balances.is_empty());
        assert_eq!(merged, model != Model::Raw);
    }
}
