//! One replica, a whole cluster of them, and those who speak to them.
//!
//! | subcommand | file |
//! |---|---|
//! | `serve` | `serve.rs`: one replica of the [store](crate::served) |
//! | `client` | `client.rs`: single operations; `load.rs`: many |
//! | `status` | `status.rs`: how every node fares |
//! | `cluster` | `cluster.rs`: three replicas as processes, load, and the verdict; `children.rs`: the processes |

pub mod args;
mod children;
mod client;
mod cluster;
mod load;
mod serve;
mod status;
mod watch;

use std::future::Future;

use tokio::runtime::Builder;

use crate::error::CliError;

pub use client::run as client;
pub use cluster::run as cluster;
pub use serve::run as serve;
pub use status::run as status;

/// Runs a task to its end, and leaves behind what still blocks a thread.
fn block_on<T>(task: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)?;
    let outcome = runtime.block_on(task);
    runtime.shutdown_background();
    outcome
}

/// Returns once somebody wants the program to end: SIGTERM or SIGINT.
async fn asked_to_end() -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
