//! `atlas-smr serve`: one replica.

use std::io::Read;

use atlas_smr_raft::config::NodeConfig;
use atlas_smr_raft::node::{Node, StartError};
use tokio::sync::oneshot;

use super::args::ServeArgs;
use super::{asked_to_end, block_on};
use crate::error::CliError;
use crate::print;
use crate::served::Store;

/// Serves until it is asked to end, or fails.
pub fn run(args: &ServeArgs) -> Result<(), CliError> {
    let config = settings(args)?;
    block_on(serve(config, args.until_eof))
}

/// The file's settings, and what the options say instead.
fn settings(args: &ServeArgs) -> Result<NodeConfig, CliError> {
    let mut config = match &args.config {
        None => NodeConfig::default(),
        Some(path) => {
            let wrong = |what: String| CliError::ConfigFile { path: path.clone(), what };
            let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
            toml::from_str(&text).map_err(|error| wrong(error.to_string()))?
        }
    };
    if let Some(id) = args.id {
        config.id = id;
    }
    if let Some(cluster) = &args.cluster {
        config.cluster.clone_from(cluster);
    }
    if let Some(dir) = &args.data_dir {
        config.data_dir.clone_from(dir);
    }
    if !args.members.is_empty() {
        config.members = args.members.iter().map(|member| member.0.clone()).collect();
    }
    if let Some(kind) = args.executor {
        config.executor.kind = kind;
    }
    config.bootstrap |= args.init;
    config.executor.threads = args.threads.or(config.executor.threads);
    config.listen.peers = args.listen_peers.or(config.listen.peers);
    config.listen.clients = args.listen_clients.or(config.listen.clients);
    config.listen.http = args.http.or(config.listen.http);
    config.listen.allow_insecure |= args.allow_insecure;
    config.validate().map_err(StartError::Config)?;
    Ok(config)
}

async fn serve(config: NodeConfig, until_eof: bool) -> Result<(), CliError> {
    let id = config.id;
    let node = Node::start(config, Store).await?;
    let addresses = node.addresses();
    let http = addresses.http.map_or_else(String::new, |http| format!(", http {http}"));
    print(&format!("node {id} listens: peers {}, clients {}{http}", addresses.peers, addresses.clients))?;
    let ended = tokio::select! {
        failure = node.failed() => Err(failure),
        asked = asked_to_end() => Ok(asked?),
        () = input_ended(until_eof) => Ok(()),
    };
    // A node that has failed has nothing to finish; what it acknowledged is on its disk.
    ended?;
    node.shutdown().await?;
    Ok(())
}

/// Returns once standard input ends; never, if nobody wants to know.
async fn input_ended(wanted: bool) {
    let (ended, told) = oneshot::channel::<()>();
    if !wanted {
        std::future::pending::<()>().await;
    }
    // A thread of its own, as nothing can interrupt the reading.
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut input = std::io::stdin().lock();
        while matches!(input.read(&mut buffer), Ok(read) if read > 0) {}
        drop(ended);
    });
    let _ = told.await;
}
