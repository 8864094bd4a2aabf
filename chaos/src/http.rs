//! Just enough HTTP to read a node's metrics.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A page may take so long,
const LIMIT: Duration = Duration::from_secs(10);
/// and so many bytes.
const MOST: u64 = 1 << 20;

/// What is at `path`, headers included.
///
/// # Errors
///
/// Nobody answers in time, or not in text.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let page = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        stream.take(MOST).read_to_string(&mut page).await?;
        Ok(page)
    };
    tokio::time::timeout(LIMIT, page).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
