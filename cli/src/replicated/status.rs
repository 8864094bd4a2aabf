//! `atlas-smr status`: how the nodes of a cluster fare.

use std::collections::BTreeSet;

use atlas_smr_raft::client::Client;
use serde::Serialize;

use super::args::StatusArgs;
use super::block_on;
use super::watch::{Row, ask, table};
use crate::error::CliError;
use crate::print;

/// The document of `--json`.
#[derive(Serialize)]
struct Document {
    leader: Option<u64>,
    nodes: Vec<Row>,
}

/// True if every node answers.
pub fn run(args: &StatusArgs) -> Result<bool, CliError> {
    block_on(async {
        let config = args.reach.config()?;
        let client = Client::new(config.clone())?;
        let addresses = members(&client, config.addresses).await;
        let rows = ask(&client, &addresses, !args.no_digest).await;
        let whole = rows.iter().all(|row| row.node.is_some());
        if args.json {
            // The newest term's leader, as the nodes know it.
            let newest = rows.iter().filter_map(|row| row.node.as_ref()).max_by_key(|node| node.term);
            let document = Document { leader: newest.and_then(|node| node.leader), nodes: rows };
            print(&serde_json::to_string_pretty(&document)?)?;
        } else {
            print(&table(&rows))?;
        }
        Ok(whole)
    })
}

/// The given addresses, and those of the other members that the nodes behind them know.
async fn members(client: &Client, given: Vec<String>) -> Vec<String> {
    let mut addresses = given.clone();
    let mut known: BTreeSet<String> = given.iter().cloned().collect();
    for address in given {
        let Ok(status) = client.status(&address, false).await else { continue };
        for node in status.nodes {
            if known.insert(node.client_address.clone()) {
                addresses.push(node.client_address);
            }
        }
    }
    addresses
}
