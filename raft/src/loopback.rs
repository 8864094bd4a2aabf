//! Addresses for a cluster on one machine.
//!
//! A system hands the ports of its ephemeral range (from 32,768 on Linux, from 49,152 elsewhere) to outgoing connections. A
//! node whose address comes from that range may find it taken when it starts again. These come from below it.

use std::io::{Error, ErrorKind, Result};
use std::iter::repeat_with;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;
/// How far apart processes begin whose numbers follow each other: more than one of them usually takes.
const STRIDE: u32 = 101;

/// How many ports this process has looked at.
static TRIED: AtomicU32 = AtomicU32::new(0);

/// So many different addresses of 127.0.0.1 on which nobody listens at the moment. A process gives none twice before it has
/// gone through all, and processes that run beside each other begin at different ones.
///
/// # Errors
///
/// [`ErrorKind::AddrInUse`] when too few are free; any other error of binding a listener.
pub fn addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let begin = std::process::id() % COUNT * STRIDE;
    // Nothing but the number itself is shared.
    let next = || FIRST + begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % COUNT;
    free(count, repeat_with(next).take(COUNT as usize).map(|port| port as u16))
}

/// The first of these ports on which nobody listens.
fn free(count: usize, ports: impl Iterator<Item = u16>) -> Result<Vec<SocketAddr>> {
    let mut found = Vec::with_capacity(count);
    let mut ports = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    while found.len() < count {
        let Some(address) = ports.next() else {
            return Err(Error::new(
                ErrorKind::AddrInUse,
                format!("only {} ports of {count} are free", found.len()),
            ));
        };
        match TcpListener::bind(address) {
            Ok(_) => found.push(address),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::{ErrorKind, Result};
    use std::net::TcpListener;

    use super::{COUNT, FIRST, addresses, free};

    #[test]
    fn differ_and_can_be_listened_on() -> Result<()> {
        let (first, second) = (addresses(20)?, addresses(20)?);
        let all: HashSet<_> = first.iter().chain(&second).collect();
        assert_eq!(all.len(), 40);
        for address in all {
            assert!((FIRST..FIRST + COUNT).contains(&u32::from(address.port())), "{address}");
            TcpListener::bind(address)?;
        }
        Ok(())
    }

    #[test]
    fn taken_ones_are_passed_over() -> Result<()> {
        let four = addresses(4)?;
        let ports = || four.iter().map(|address| address.port());
        let _held = (TcpListener::bind(four[0])?, TcpListener::bind(four[2])?);
        assert_eq!(free(2, ports())?, [four[1], four[3]]);
        let few = free(3, ports()).map_err(|error| error.kind());
        assert_eq!(few, Err(ErrorKind::AddrInUse));
        Ok(())
    }
}
