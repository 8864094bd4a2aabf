//! The two gRPC listeners of a node, one for other nodes and one for clients, and the one for people and monitors.

mod clients;
mod connection;
mod http;
mod peers;
mod read_index;

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;

pub(crate) use clients::{ClientService, Shared};
pub(crate) use connection::accept;
pub(crate) use http::{HttpState, serve as serve_http};
pub use peers::TransferCounts;
pub(crate) use peers::{PeerService, Transfers};
pub(crate) use read_index::ReadIndex;

use crate::tls::Tls;

/// A connection that has been silent for so long is asked whether it is alive,
const SILENCE: Duration = Duration::from_secs(10);
/// and given up if it does not answer within this time.
const ALIVE: Duration = Duration::from_secs(10);
/// Headers of a request, at most.
const HEADERS: u32 = 16 << 10;

/// How a listener is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Not at all.
    #[default]
    Serve,
    /// No more connections, no more requests; those that are on their way are finished.
    Drain,
    /// Connections are closed, whatever is on its way.
    Cut,
}

/// One listener's settings.
pub(crate) struct Listening {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Tls>,
    pub(crate) connections: usize,
    pub(crate) calls_per_connection: u32,
}

/// Serves `routes` until `stage` says otherwise.
///
/// # Errors
///
/// Certificates that cannot be used.
pub(crate) fn serve(
    listening: Listening,
    routes: Routes,
    mut stage: watch::Receiver<Stage>,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send, tonic::transport::Error> {
    let mut server = Server::builder()
        .max_concurrent_streams(listening.calls_per_connection)
        .http2_keepalive_interval(Some(SILENCE))
        .http2_keepalive_timeout(Some(ALIVE))
        .http2_max_header_list_size(HEADERS)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    if let Some(tls) = listening.tls {
        server = server.tls_config(tls.server())?;
    }
    let incoming = accept(listening.listener, listening.connections, stage.clone());
    Ok(server.add_routes(routes).serve_with_incoming_shutdown(incoming, async move {
        let _ = stage.wait_for(|stage| *stage >= Stage::Drain).await;
    }))
}
