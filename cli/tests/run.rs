//! The built program, as its users run it: on tiny workloads.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn atlas_smr(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_atlas-smr"))
        .args(arguments)
        .env_remove("ATLAS_TRACES")
        .env_remove("RUST_LOG")
        .output()
        .expect("the program runs")
}

/// Standard error, which is one line.
fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// The document on standard output; the run is equal.
fn document(arguments: &[&str]) -> Value {
    let output = atlas_smr(&[arguments, &["--json", "--no-pin"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    serde_json::from_slice(&output.stdout).expect("one document and nothing else")
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// A folder with one block of two transactions; the second line of transactions is `second`.
fn traces(second: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = ("0".repeat(40), "1".repeat(40));
    let header = format!(
        "{{\"block\":5,\"gas\":1,\"txs\":2,\"beneficiary\":1,\"keys\":[\"A{a}\",\"A{b}\",\"S{a}/2\"]}}"
    );
    let text = format!("{header}\n{TRANSACTION}\n{second}\n");
    std::fs::write(folder.path().join("5.jsonl"), text).expect("written");
    folder
}

const TRANSACTION: &str = "{\"ns\":100,\"gas\":21,\"from\":0,\"to\":-1,\"r\":[[0,\"x\"],[1,\"x\"],[2,\"x\"]],\
     \"w\":[[0,\"x\"],[1,\"x\"],[2,\"x\"]],\"d\":[[0,\"-4\"],[1,\"4\"]],\"bo\":[],\"no\":[]}";

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn the_document_has_its_shape() {
    let document =
        document(&["run", "--operations", "300", "--batch", "20", "--threads", "2", "--work-ns", "0"]);
    assert_eq!(keys(&document), ["batch", "executors", "operations", "threads", "workload"]);
    assert_eq!(document["workload"], "transfer");
    assert_eq!(
        (&document["threads"], &document["batch"], &document["operations"]),
        (&2.into(), &20.into(), &300.into())
    );
    let executors = document["executors"].as_array().expect("a list");
    let names: Vec<_> = executors.iter().map(|executor| executor["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["single-mon", "multi-mon", "single-div", "multi-div"]);
    for executor in executors {
        let expected = [
            "collisions",
            "equal",
            "latency_us",
            "name",
            "ops_per_s",
            "replays",
            "reply_digest",
            "sequential_batches",
            "speculations",
            "state_digest",
        ];
        assert_eq!(keys(executor), expected);
        assert_eq!(keys(&executor["latency_us"]), ["p50", "p99", "p999"]);
        assert_eq!(executor["equal"], true);
        assert!(executor["ops_per_s"].as_f64().expect("a number") > 0.0);
        assert!(executor["latency_us"]["p999"].as_f64().expect("a number") > 0.0);
        assert_eq!(executor["state_digest"], executors[0]["state_digest"]);
        assert_eq!(executor["reply_digest"], executors[0]["reply_digest"]);
        assert_eq!(executor["state_digest"].as_str().map(str::len), Some(64));
    }
}

#[test]
fn every_generated_workload_is_equal() {
    for workload in
        ["transfer", "kv-put", "kv-update", "kv-merge", "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-f", "branch"]
    {
        for mode in ["adaptive", "speculate", "sequential"] {
            let size =
                ["--operations", "500", "--batch", "33", "--accounts", "5", "--keys", "9", "--work-ns", "0"];
            let choice = ["--workload", workload, "--mode", mode, "--threads", "3", "--heavy", "0.1"];
            let document = document(&[&size[..], &choice[..]].concat());
            for executor in document["executors"].as_array().expect("a list") {
                assert_eq!(executor["equal"], true, "{workload} {mode} {executor}");
            }
        }
    }
}

#[test]
fn the_seed_decides_and_nothing_else() {
    let digest = |seed, threads| {
        let size = ["--operations", "200", "--executor", "multi-mon", "--work-ns", "0"];
        let document = document(&[&size[..], &["--seed", seed, "--threads", threads]].concat());
        assert_eq!(document["executors"].as_array().map(Vec::len), Some(1));
        document["executors"][0]["reply_digest"].as_str().expect("a digest").to_owned()
    };
    assert_eq!(digest("1", "1"), digest("1", "4"));
    assert_ne!(digest("1", "2"), digest("2", "2"));
}

#[test]
fn traces_are_equal_in_every_model() {
    let folder = traces(TRANSACTION);
    for model in ["raw", "account", "merge"] {
        let trace = ["--workload", "trace", "--trace-dir", text(folder.path()), "--model", model];
        let document = document(&[&trace[..], &["--repeat", "10", "--mode", "speculate"]].concat());
        assert_eq!((&document["operations"], &document["batch"]), (&20.into(), &2.into()));
        for executor in document["executors"].as_array().expect("a list") {
            assert_eq!(executor["equal"], true, "{model} {executor}");
        }
    }
}

#[test]
fn recorded_traces_are_equal_in_every_model() {
    let Some(folder) = workloads::trace::default_folder() else {
        println!("skipped: no recorded traces (set ATLAS_TRACES)");
        return;
    };
    for model in ["raw", "account", "merge"] {
        let trace = ["--workload", "trace", "--trace-dir", text(&folder), "--model", model, "--scale", "0"];
        let document = document(&[&trace[..], &["--mode", "speculate", "--threads", "3"]].concat());
        for executor in document["executors"].as_array().expect("a list") {
            assert_eq!(executor["equal"], true, "{model} {executor}");
        }
    }
}

#[test]
fn the_table_says_what_it_shows() {
    let output = atlas_smr(&["--operations", "100", "--work-ns", "0", "--executor", "multi-div", "--no-pin"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let table = String::from_utf8(output.stdout).expect("text");
    for word in ["transfer", "plain loop", "multi-div", "p99.9", "reference", "equal: every reply"] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
    assert!(!table.contains("single-mon"));
}

#[test]
fn what_the_caller_can_mend_has_code_2() {
    let cases: [(&[&str], &str); 14] = [
        (&["--workload", "nonsense"], "unknown workload `nonsense`; known are transfer"),
        (&["--executor", "nonsense"], "multi-mon"),
        (&["--model", "nonsense"], "unknown conflict model"),
        (&["--threads", "0"], "`threads` must be at least 1"),
        (&["--threads", "100000"], "`threads` is 100000"),
        (&["--batch", "0"], "`batch` is 0"),
        (&["--operations", "0"], "`operations` is 0"),
        (&["--in-flight", "0"], "`in-flight` is 0"),
        (&["--accounts", "1"], "`accounts` is 1"),
        (&["--workload", "kv-put", "--value-size", "99999999"], "`value-size` is 99999999"),
        (&["--workload", "trace", "--trace-dir", "/nowhere/at/all"], "/nowhere/at/all: "),
        (&["--heavy", "2"], "`heavy` is 2"),
        (&["soak", "--segment", "0"], "`segment` is 0"),
        (&["soak", "--threads", "100000", "--seconds", "1"], "`threads` is 100000"),
    ];
    for (arguments, expected) in cases {
        let output = atlas_smr(arguments);
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {complaint}");
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
        assert!(output.stdout.is_empty() && !complaint.contains("panicked"), "{arguments:?}: {complaint}");
    }
}

#[test]
fn a_malformed_trace_is_named_with_file_and_line() {
    let wide = TRANSACTION.replace("\"-4\"", &format!("\"1{}\"", "0".repeat(60)));
    let cases = [
        ("{\"ns\":1".to_owned(), "EOF"),
        ("nonsense".to_owned(), "expected"),
        (TRANSACTION.replace("[2,", "[3,"), "names key 3"),
        (wide, "128 bits"),
        (String::new(), "the header says 2"),
    ];
    for (second, expected) in cases {
        let folder = traces(&second);
        let output = atlas_smr(&["--workload", "trace", "--trace-dir", text(folder.path()), "--json"]);
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(complaint.contains("5.jsonl:3: ") && complaint.contains(expected), "{complaint}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_unreadable_trace_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("5.jsonl")).expect("made");
    let output = atlas_smr(&["--workload", "trace", "--trace-dir", text(folder.path())]);
    let complaint = complaint(&output);
    assert_eq!(output.status.code(), Some(2), "{complaint}");
    assert!(complaint.contains("5.jsonl") && complaint.lines().count() == 1, "{complaint}");
}

#[test]
fn a_short_soak_does_everything_and_finds_nothing() {
    let output = atlas_smr(&["soak", "--operations", "9000", "--segment", "400", "--threads", "3", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document and nothing else");
    assert_eq!((&document["equal"], &document["difference"]), (&true.into(), &Value::Null));
    let number = |key: &str| document[key].as_u64().unwrap_or_else(|| panic!("{key} in {document}"));
    assert!((9000..9400).contains(&number("operations")));
    // Each operation by the loop, and by all executors but the one that misses its segment.
    assert!(number("executed") >= 3 * number("operations"), "{document}");
    for deed in ["segments", "checkpoints", "installs", "restarts", "unordered"] {
        assert!(number(deed) > 15, "{deed} in {document}");
    }
    assert!(number("comparisons") >= 6 * number("restarts"));
    let samples = document["samples"].as_array().expect("a list");
    assert!(samples.len() >= 2);
    for sample in samples {
        assert_eq!(keys(sample), ["operations", "rss_mib", "seconds"]);
    }
    let line = complaint(&output);
    assert!(line.contains("operations") && line.contains(" s "), "progress: {line}");
}

#[test]
fn a_soak_is_bounded_by_time_and_says_what_it_found() {
    let output = atlas_smr(&["soak", "--seconds", "1", "--segment", "100", "--threads", "2"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let text = String::from_utf8(output.stdout).expect("text");
    for word in ["restarts", "memory: ", "equal: every state and every reply"] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
}

#[test]
fn nobody_reading_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_atlas-smr"))
        .args(["--operations", "100", "--work-ns", "0", "--executor", "single-mon"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
}
