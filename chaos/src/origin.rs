//! Which process opened a connection.
//!
//! All nodes know each other by the same addresses, so that a proxy cannot tell by its port who connects. On loopback
//! the kernel can: `/proc/net/tcp` names the socket at a connection's other end, and `/proc/<pid>/fd` who holds it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::lock;
use crate::proxy::{NodeId, Origin};

/// The processes of the nodes, each by its id; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Processes(Arc<Mutex<BTreeMap<NodeId, u32>>>);

impl Processes {
    /// Node `node` is process `pid` from now on.
    pub fn set(&self, node: NodeId, pid: u32) {
        lock(&self.0).insert(node, pid);
    }

    /// The node whose process opened the connection from `client` to `server`; nothing if none did, or closed it again.
    pub fn opener(&self, client: SocketAddr, server: SocketAddr) -> Option<NodeId> {
        let inode = inode(&fs::read_to_string("/proc/net/tcp").ok()?, client, server)?;
        let link = PathBuf::from(format!("socket:[{inode}]"));
        let processes = lock(&self.0).clone();
        processes.into_iter().find(|&(_, pid)| holds(pid, &link)).map(|(node, _)| node)
    }

    /// For proxies.
    pub fn origin(&self) -> Origin {
        let processes = self.clone();
        Arc::new(move |client, server| processes.opener(client, server))
    }
}

fn holds(pid: u32, link: &PathBuf) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target == *link))
}

/// The socket from `client` to `server` in a table of the kernel.
fn inode(table: &str, client: SocketAddr, server: SocketAddr) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = address(fields.get(1)?)? == client && address(fields.get(2)?)? == server;
        if is_it { fields.get(9)?.parse().ok() } else { None }
    })
}

/// An address of the table: four bytes in the machine's order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
    Some((ip, u16::from_str_radix(port, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn this_process_is_found_and_no_other() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let ends = (client.local_addr().expect("connected"), client.peer_addr().expect("connected"));
        let processes = Processes::default();
        assert_eq!(processes.opener(ends.0, ends.1), None);
        processes.set(4, 1);
        processes.set(7, std::process::id());
        assert_eq!(processes.opener(ends.0, ends.1), Some(7));
        // Another connection, which does not exist.
        assert_eq!(processes.opener(ends.0, ends.0), None);
    }
}
