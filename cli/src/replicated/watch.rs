//! How all nodes of a cluster fare, as far as they answer.

use atlas_smr_raft::client::{Client, NodeStatus};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use tokio::task::JoinSet;

/// One node.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Where clients reach it.
    pub address: String,
    /// `None` if it does not answer.
    #[serde(flatten)]
    pub node: Option<NodeRow>,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a node says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct NodeRow {
    pub id: u64,
    pub role: String,
    pub leader: Option<u64>,
    pub term: u64,
    pub last_log: u64,
    pub applied: u64,
    pub snapshot: u64,
    pub executor: String,
    pub threads: u32,
    pub operations: u64,
    pub collisions: u64,
    pub replays: u64,
    /// The digest of the state, and the last entry with operations in it.
    pub digest: Option<String>,
    pub digest_applied: Option<u64>,
}

impl From<NodeStatus> for NodeRow {
    fn from(status: NodeStatus) -> Self {
        let counters = status.counters.unwrap_or_default();
        NodeRow {
            id: status.id,
            role: status.role,
            leader: status.leader.map(|leader| leader.id),
            term: status.term,
            last_log: status.last_log,
            applied: status.applied,
            snapshot: status.snapshot,
            executor: status.executor,
            threads: status.threads,
            operations: counters.operations,
            collisions: counters.collisions,
            replays: counters.replays,
            digest_applied: status.digest.as_ref().map(|digest| digest.applied),
            digest: status.digest.map(|digest| digest.hex),
        }
    }
}

/// Asks all nodes at once.
pub async fn ask(client: &Client, addresses: &[String], digest: bool) -> Vec<Row> {
    let mut asked = JoinSet::new();
    for (index, address) in addresses.iter().cloned().enumerate() {
        let client = client.clone();
        asked.spawn(async move {
            let (node, error) = match client.status(&address, digest).await {
                Ok(status) => (Some(NodeRow::from(status)), None),
                Err(error) => (None, Some(error.to_string())),
            };
            (index, Row { address, node, error })
        });
    }
    let mut rows = asked.join_all().await;
    rows.sort_by_key(|(index, _)| *index);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// A table for people.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "node",
        "role",
        "term",
        "last log",
        "applied",
        "snapshot",
        "executor",
        "threads",
        "operations",
        "collisions",
        "replays",
        "digest",
    ]);
    for row in rows {
        match &row.node {
            Some(node) => table.add_row(cells(node)),
            None => table.add_row([row.address.as_str(), row.error.as_deref().unwrap_or("does not answer")]),
        };
    }
    table.to_string()
}

fn cells(node: &NodeRow) -> Vec<Cell> {
    let number = |number: u64| Cell::new(number).set_alignment(CellAlignment::Right);
    // Enough to tell digests apart; the document has them whole.
    let digest = node.digest.as_ref().map_or("", |digest| digest.get(..12).unwrap_or(digest));
    vec![
        number(node.id),
        Cell::new(&node.role),
        number(node.term),
        number(node.last_log),
        number(node.applied),
        number(node.snapshot),
        Cell::new(&node.executor),
        number(node.threads.into()),
        number(node.operations),
        number(node.collisions),
        number(node.replays),
        Cell::new(digest),
    ]
}
