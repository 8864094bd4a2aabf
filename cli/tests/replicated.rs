//! The subcommands that speak to replicas, as their users run them. Every process that is started here is ended by its id.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use atlas_smr_raft::loopback;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Against hangs only.
const PATIENCE: Duration = Duration::from_secs(120);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atlas-smr"));
    command.env_remove("RUST_LOG").env_remove("ATLAS_ADDRESSES");
    command
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("the program runs")
}

fn text(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A node that is killed if the test ends early.
struct Node(Child);

impl Node {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("an id")).expect("an id");
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end, and returns its exit code.
    fn ended(&mut self) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("a status") {
                return status.code();
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Addresses on loopback that nobody uses at the moment.
fn addresses<const N: usize>() -> [String; N] {
    let free = loopback::addresses(N).expect("ports");
    std::array::from_fn(|index| free[index].to_string())
}

/// Starts a node, and waits until it listens.
fn serve(arguments: &[&str]) -> Node {
    let mut command = program();
    let mut child = command.arg("serve").args(arguments).stdout(Stdio::piped()).spawn().expect("it starts");
    let output = child.stdout.take().expect("piped");
    let node = Node(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("a line");
    assert!(line.contains("listens: peers 127.0.0.1:"), "{line}");
    node
}

#[test]
fn three_replicas_end_equal() {
    let output = run(&["cluster", "--operations", "20000", "--work-ns", "0", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document and nothing else");
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&document), ["equal", "latency_us", "nodes", "operations", "operations_per_s"]);
    assert_eq!((&document["equal"], &document["operations"]), (&true.into(), &20_000.into()));
    assert!(document["operations_per_s"].as_f64().expect("a number") > 0.0);
    assert_eq!(keys(&document["latency_us"]), ["p50", "p99", "p999"]);
    assert!(document["latency_us"]["p50"].as_u64().expect("a number") > 0);
    let nodes = document["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 3);
    for (id, node) in (1..).zip(nodes) {
        assert_eq!(keys(node), ["applied", "digest", "executor", "id", "threads"]);
        assert_eq!(node["id"], id);
        assert_eq!(node["digest"].as_str().map(str::len), Some(64));
        assert_eq!((&node["digest"], &node["applied"]), (&nodes[0]["digest"], &nodes[0]["applied"]));
    }
    let executors: Vec<_> = nodes.iter().map(|node| node["executor"].as_str().expect("a name")).collect();
    assert_eq!(executors, ["multi-divisible", "single-monolithic", "multi-monolithic"]);
    let threads: Vec<_> = nodes.iter().map(|node| node["threads"].as_u64().expect("a number")).collect();
    assert_eq!(threads, [2, 1, 2]);
}

#[test]
fn a_stopped_node_exits_with_zero_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let [peers, clients, http] = addresses();
    let data = folder.path().join("data");
    let member = format!("1={peers},{clients}");
    let arguments = [
        "--id",
        "1",
        "--cluster",
        "test",
        "--data-dir",
        data.to_str().expect("text"),
        "--member",
        &member,
        "--init",
    ];
    let node = [&arguments[..], &["--http", &http]].concat();
    let client = |arguments: &[&str]| {
        let all = [&["client", "--addresses", clients.as_str()], arguments].concat();
        text(&run(&all))
    };
    let mut first = serve(&node);
    assert_eq!(client(&["put", "alice", "100"]), (Some(0), "done".to_owned()));
    assert_eq!(client(&["transfer", "alice", "bob", "30"]), (Some(0), "70 30".to_owned()));
    assert_eq!(client(&["transfer", "alice", "bob", "71"]), (Some(1), "too little: 70".to_owned()));
    assert_eq!(client(&["get", "carol"]), (Some(1), String::new()));
    first.signal(Signal::TERM);
    assert_eq!(first.ended(), Some(0));
    let snapshots = std::fs::read_dir(data.join("snapshots")).expect("a folder").count();
    assert!(snapshots > 0, "a stopped node leaves a snapshot");

    let mut second = serve(&node);
    assert_eq!(client(&["get", "alice"]), (Some(0), "70".to_owned()));
    assert_eq!(client(&["delete", "bob"]), (Some(0), "30".to_owned()));
    second.signal(Signal::KILL);
    assert_eq!(second.ended(), None, "killed");

    let mut third = serve(&node);
    assert_eq!(client(&["get", "bob"]), (Some(1), String::new()), "what was acknowledged is kept");
    assert_eq!(client(&["get", "alice", "--stale"]), (Some(0), "70".to_owned()));
    let status = run(&["status", "--addresses", &clients, "--json"]);
    assert_eq!(status.status.code(), Some(0), "{}", complaint(&status));
    let status: Value = serde_json::from_slice(&status.stdout).expect("a document");
    assert_eq!((&status["leader"], &status["nodes"][0]["role"]), (&1.into(), &"leader".into()));
    assert_eq!(status["nodes"][0]["digest"].as_str().map(str::len), Some(64));
    let bench =
        run(&["client", "--addresses", &clients, "bench", "--operations", "3000", "--mix", "put", "--json"]);
    assert_eq!(bench.status.code(), Some(0), "{}", complaint(&bench));
    let bench: Value = serde_json::from_slice(&bench.stdout).expect("a document");
    assert_eq!((&bench["operations"], &bench["failed"]), (&3000.into(), &0.into()));
    third.signal(Signal::INT);
    assert_eq!(third.ended(), Some(0));

    let nobody = run(&["client", "--addresses", &clients, "--timeout-ms", "300", "get", "alice"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(complaint(&nobody).contains("the outcome is unknown"), "{}", complaint(&nobody));
    let status = run(&["status", "--addresses", &clients, "--json"]);
    assert_eq!(status.status.code(), Some(1), "a node that does not answer");
}

#[test]
fn a_node_ends_with_whoever_started_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let [peers, clients] = addresses();
    let member = format!("1={peers},{clients}");
    let data = folder.path().to_str().expect("text").to_owned();
    let mut command = program();
    command.args([
        "serve",
        "--until-eof",
        "--id",
        "1",
        "--cluster",
        "test",
        "--data-dir",
        &data,
        "--member",
        &member,
        "--init",
    ]);
    let mut node = Node(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts"));
    assert_eq!(node.0.try_wait().expect("a status"), None);
    drop(node.0.stdin.take());
    assert_eq!(node.ended(), Some(0));
}

#[test]
fn wrong_settings_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    let check = |settings: &str, expected: &str| {
        std::fs::write(&file, settings).expect("written");
        let output = run(&["serve", "--config", file.to_str().expect("text")]);
        assert_eq!(output.status.code(), Some(2), "{}", complaint(&output));
        assert!(complaint(&output).contains(expected), "{}", complaint(&output));
    };
    let member = "[[members]]\nid = 1\npeer_address = '127.0.0.1:1'\nclient_address = '127.0.0.1:2'\n";
    check(&format!("id = 1\n{member}"), "`data_dir` is missing");
    check("id = 1\nbootstrap = true\ndata_dir = 'x'\n", "as a voter");
    check(&format!("id = 1\ndata_dir = 'x'\n{member}"), "`cluster` is missing");
    check("id = 1\nidd = 2\n", "unknown field `idd`");
    check(&format!("id = 1\ndata_dir = 'x'\n[executor]\nkind = 'triple'\n{member}"), "triple");
    check(
        &format!("id = 1\ncluster = 'x'\ndata_dir = 'x'\n[listen]\nclients = '0.0.0.0:7'\n{member}"),
        "0.0.0.0:7 is not loopback and has no TLS",
    );
    let missing = run(&["serve", "--config", "/nowhere/node.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(complaint(&missing).contains("/nowhere/node.toml"));
    let nothing = run(&["client", "get", "a"]);
    assert_eq!(nothing.status.code(), Some(2));
}

/// The addresses in the settings that `cluster` wrote for its nodes, once all of them are listened on.
fn listening(folder: &std::path::Path) -> Vec<String> {
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < PATIENCE, "the nodes do not listen");
        std::thread::sleep(Duration::from_millis(50));
        let Ok(text) = std::fs::read_to_string(folder.join("node-3.toml")) else { continue };
        let lines = text.lines().filter_map(|line| line.split_once("_address = "));
        let addresses: Vec<_> = lines.map(|(_, address)| address.trim_matches('"').to_owned()).collect();
        let all = addresses.iter().all(|address| std::net::TcpStream::connect(address).is_ok());
        if addresses.len() == 6 && all {
            return addresses;
        }
    }
}

#[test]
fn the_nodes_of_a_cluster_end_with_it() {
    for signal in [Signal::INT, Signal::KILL] {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().to_str().expect("text");
        let mut command = program();
        command.args(["cluster", "--json", "--operations", "1000000000", "--work-ns", "0", "--dir", dir]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut cluster = Node(command.spawn().expect("it starts"));
        let addresses = listening(folder.path());
        cluster.signal(signal);
        assert_ne!(cluster.ended(), Some(0), "an interrupted run is no success");
        let begin = Instant::now();
        while let Some(taken) = addresses.iter().find(|address| TcpListener::bind(address).is_err()) {
            assert!(begin.elapsed() < PATIENCE, "{taken} is still listened on after {signal:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
