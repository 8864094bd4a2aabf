//! How to serve an application of one's own: three replicas of named counters in this process, and a client.
//!
//! `cargo run -p atlas-smr-raft --example counters`
//!
//! In earnest each node is a process of its own, on a machine of its own, with certificates; here they share a folder that is
//! deleted at the end.

use std::error::Error;

use atlas_smr_execution::app::{Application, ApplicationData, ScalableApp};
use atlas_smr_execution::error::BoxError;
use atlas_smr_execution::state::{CRUDState, ShardedState};
use atlas_smr_raft::client::{Client, ClientConfig, Consistency};
use atlas_smr_raft::config::{MemberConfig, NodeConfig};
use atlas_smr_raft::machine::ExecutorKind;
use atlas_smr_raft::node::Node;
use atlas_smr_raft::types::Answer;
use serde::{Deserialize, Serialize};

/// The application: nothing here knows that it is replicated.
struct Counters;

/// What clients ask. Requests and replies travel in postcard, so all they need is serde.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Request {
    Increment(String),
    Read(String),
}

impl ApplicationData for Counters {
    type Request = Request;
    type Reply = u64;
}

fn count(value: Option<&[u8]>) -> u64 {
    value.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The operation, on whatever state it is handed.
fn execute(state: &mut impl CRUDState, request: &Request) -> u64 {
    match request {
        Request::Read(name) => state.read_with("counters", name.as_bytes(), count),
        Request::Increment(name) => {
            let new = state.read_with("counters", name.as_bytes(), count) + 1;
            state.put("counters", name.as_bytes(), &new.to_le_bytes());
            new
        }
    }
}

impl Application<ShardedState> for Counters {
    type AppData = Counters;

    fn initial_state() -> Result<ShardedState, BoxError> {
        Ok(ShardedState::new())
    }

    /// Reads that do not go through the log; whatever is asked here, it cannot change the state.
    fn unordered_execution(&self, state: &ShardedState, request: Request) -> u64 {
        match request {
            Request::Read(name) | Request::Increment(name) => {
                state.read_with("counters", name.as_bytes(), count)
            }
        }
    }

    fn update(&self, state: &mut ShardedState, request: Request) -> u64 {
        execute(state, &request)
    }
}

impl ScalableApp<ShardedState> for Counters {
    fn speculatively_execute(&self, state: &mut impl CRUDState, request: Request) -> u64 {
        execute(state, &request)
    }
}

fn reply(answer: &Answer) -> Result<u64, Box<dyn Error>> {
    match answer {
        Answer::Done(bytes) => Ok(postcard::from_bytes(bytes)?),
        other => Err(format!("{other:?}").into()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let members: Vec<MemberConfig> = (1..=3)
        .map(|id| MemberConfig {
            id,
            peer_address: format!("127.0.0.1:{}", 7100 + id),
            client_address: format!("127.0.0.1:{}", 7200 + id),
            learner: false,
        })
        .collect();
    // Replicas may differ in how they execute; their states may not.
    let kinds = [ExecutorKind::MultiDivisible, ExecutorKind::SingleMonolithic, ExecutorKind::MultiMonolithic];
    let mut nodes = Vec::new();
    for (member, kind) in members.iter().zip(kinds) {
        let mut config = NodeConfig {
            id: member.id,
            cluster: "counters".to_owned(),
            data_dir: folder.path().join(member.id.to_string()),
            bootstrap: true,
            members: members.clone(),
            ..NodeConfig::default()
        };
        config.executor.kind = kind;
        nodes.push(Node::start(config, Counters).await?);
    }

    let addresses = members.into_iter().map(|member| member.client_address).collect();
    let client = Client::new(ClientConfig { addresses, ..ClientConfig::default() })?;
    let increment = postcard::to_allocvec(&Request::Increment("apples".to_owned()))?;
    for answer in client.execute(vec![increment.into(); 3]).await? {
        println!("apples: {}", reply(&answer)?);
    }
    let read = postcard::to_allocvec(&Request::Read("apples".to_owned()))?;
    let answers = client.read(vec![read.into()], Consistency::Linearizable).await?;
    println!("read: {}", reply(&answers[0])?);

    for node in nodes {
        node.shutdown().await?;
    }
    Ok(())
}
