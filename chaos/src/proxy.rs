//! Proxies between nodes, which can cut the links between them.
//!
//! A node reaches another one through that one's proxy. All proxies share [`Links`], which knows for each pair of nodes
//! whether bytes pass from the first to the second, whichever of the two opened the connection; so a partition may be of one
//! direction only. TCP would carry on after a short cut and give up after a long one; both are here:
//!
//! - [`Cut::Stall`] holds bytes back. What was on its way arrives after the cut is healed, late but in order.
//! - [`Cut::Reset`] closes connections, old and new ones.
//!
//! Which node opened a connection is what [`Origin`] says. Connections of nobody it knows are closed and counted.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A node's number.
pub type NodeId = u64;
/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Bytes wait until the cut is healed.
    Stall,
    /// Connections are closed.
    Reset,
}

type Cuts = BTreeMap<(NodeId, NodeId), Cut>;

/// Which links are cut; clones share it.
#[derive(Clone, Debug)]
pub struct Links {
    cuts: watch::Sender<Cuts>,
    strangers: Arc<AtomicU64>,
}

impl Default for Links {
    fn default() -> Self {
        Links { cuts: watch::Sender::new(Cuts::new()), strangers: Arc::default() }
    }
}

impl Links {
    /// Cuts the link over which bytes pass from `from` to `to`.
    pub fn cut(&self, from: NodeId, to: NodeId, how: Cut) {
        self.cuts.send_modify(|cuts| {
            cuts.insert((from, to), how);
        });
    }

    /// Cuts all links of `node` with `others`, in both directions.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>, how: Cut) {
        for other in others.into_iter().filter(|&other| other != node) {
            self.cut(node, other, how);
            self.cut(other, node, how);
        }
    }

    /// Heals all links.
    pub fn heal(&self) {
        self.cuts.send_modify(Cuts::clear);
    }

    /// How many connections were closed because nobody knew whose they are.
    pub fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }

    fn state(&self, from: NodeId, to: NodeId) -> Option<Cut> {
        self.cuts.borrow().get(&(from, to)).copied()
    }

    /// Waits until the link is whole.
    ///
    /// # Errors
    ///
    /// The link was reset.
    async fn pass(&self, from: NodeId, to: NodeId) -> io::Result<()> {
        let mut cuts = self.cuts.subscribe();
        let is_settled = |cuts: &Cuts| cuts.get(&(from, to)) != Some(&Cut::Stall);
        // `self` holds the sender: the channel is open.
        let settled = cuts.wait_for(is_settled).await.map_err(io::Error::other)?;
        match settled.get(&(from, to)) {
            Some(_) => Err(io::ErrorKind::ConnectionReset.into()),
            None => Ok(()),
        }
    }

    /// Waits until the link is reset.
    async fn reset(&self, from: NodeId, to: NodeId) {
        let mut cuts = self.cuts.subscribe();
        // An error would mean that the channel is closed; `self` holds the sender.
        let _ = cuts.wait_for(|cuts| cuts.get(&(from, to)) == Some(&Cut::Reset)).await;
    }
}

/// Tells which node opened a connection, by the connection's two ends: its own and the proxy's.
pub type Origin = Arc<dyn Fn(SocketAddr, SocketAddr) -> Option<NodeId> + Send + Sync>;

/// The proxy in front of one node; dropped, it closes.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback, and carries connections on to `target`, which belongs to node `to`.
    ///
    /// # Errors
    ///
    /// There is no port.
    pub async fn start(to: NodeId, target: SocketAddr, links: Links, origin: Origin) -> io::Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // Dropped with the proxy, and all connections with it.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, client)) = accepted else { continue };
                        let (links, origin) = (links.clone(), Arc::clone(&origin));
                        connections.spawn(async move {
                            // Whoever opened it sees it closed, and will open another one.
                            let _ = carry(stream, client, address, to, target, links, origin).await;
                        });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Proxy { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    stream: TcpStream,
    client: SocketAddr,
    proxy: SocketAddr,
    to: NodeId,
    target: SocketAddr,
    links: Links,
    origin: Origin,
) -> io::Result<()> {
    let known = tokio::task::spawn_blocking(move || origin(client, proxy)).await.map_err(io::Error::other)?;
    let Some(from) = known else {
        links.strangers.fetch_add(1, Ordering::Relaxed);
        return Err(io::ErrorKind::PermissionDenied.into());
    };
    // Connecting takes bytes in both directions.
    links.pass(from, to).await?;
    links.pass(to, from).await?;
    let node = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    node.set_nodelay(true)?;
    let (from_client, to_client) = stream.into_split();
    let (from_node, to_node) = node.into_split();
    // Whichever ends first, the connection is over: gRPC half-closes streams, not connections.
    tokio::select! {
        there = pump(from_client, to_node, &links, from, to) => there,
        back = pump(from_node, to_client, &links, to, from) => back,
        () = links.reset(from, to) => Ok(()),
        () = links.reset(to, from) => Ok(()),
    }
}

/// Carries bytes from one node to another until the connection ends.
async fn pump(
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    links: &Links,
    from: NodeId,
    to: NodeId,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = reader.read(&mut chunk).await?;
        if links.state(from, to).is_some() {
            links.pass(from, to).await?;
        }
        if length == 0 {
            return writer.shutdown().await;
        }
        writer.write_all(&chunk[..length]).await?;
    }
}
