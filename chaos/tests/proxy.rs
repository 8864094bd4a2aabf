//! Links between nodes, cut and healed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chaos::proxy::{Cut, Links, NodeId, Origin, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Far more than a byte takes to cross loopback.
const LIMIT: Duration = Duration::from_secs(60);
/// Long enough that a byte that passes would be there.
const QUIET: Duration = Duration::from_millis(200);

fn opened_by(node: Option<NodeId>) -> Origin {
    Arc::new(move |_, _| node)
}

/// Node 2 echoes; what node 1 sends it goes through the proxy.
async fn echo(links: &Links, origin: Origin) -> Proxy {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let target: SocketAddr = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    Proxy::start(2, target, links.clone(), origin).await.expect("a port")
}

async fn send(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.expect("accepted");
}

async fn receive(stream: &mut TcpStream, length: usize) -> io::Result<Vec<u8>> {
    let mut text = vec![0; length];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut text)).await.expect("it hangs")?;
    Ok(text)
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(QUIET, stream.read(&mut [0])).await.is_err()
}

#[tokio::test]
async fn bytes_pass_both_ways() {
    let links = Links::default();
    let proxy = echo(&links, opened_by(Some(1))).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("listening");
    let text: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
    let (mut reader, mut writer) = stream.split();
    let mut back = vec![0; text.len()];
    let (sent, received) = tokio::join!(writer.write_all(&text), reader.read_exact(&mut back));
    sent.expect("sent");
    received.expect("received");
    assert!(back == text);
}

#[tokio::test]
async fn a_stalled_link_delivers_late_whichever_direction_is_cut() {
    for (from, to) in [(1, 2), (2, 1)] {
        let links = Links::default();
        let proxy = echo(&links, opened_by(Some(1))).await;
        let mut stream = TcpStream::connect(proxy.address()).await.expect("listening");
        send(&mut stream, b"before").await;
        assert_eq!(receive(&mut stream, 6).await.expect("whole"), b"before");
        links.cut(from, to, Cut::Stall);
        send(&mut stream, b"during").await;
        assert!(is_silent(&mut stream).await);
        links.heal();
        assert_eq!(receive(&mut stream, 6).await.expect("healed"), b"during");
    }
}

#[tokio::test]
async fn a_new_connection_waits_for_a_stalled_link() {
    let links = Links::default();
    let proxy = echo(&links, opened_by(Some(1))).await;
    links.isolate(2, [1, 2, 3], Cut::Stall);
    let mut stream = TcpStream::connect(proxy.address()).await.expect("listening");
    send(&mut stream, b"early").await;
    assert!(is_silent(&mut stream).await);
    links.heal();
    assert_eq!(receive(&mut stream, 5).await.expect("healed"), b"early");
}

#[tokio::test]
async fn a_reset_link_closes_old_connections_and_new_ones() {
    let links = Links::default();
    let proxy = echo(&links, opened_by(Some(1))).await;
    let mut old = TcpStream::connect(proxy.address()).await.expect("listening");
    send(&mut old, b"before").await;
    receive(&mut old, 6).await.expect("whole");
    links.cut(2, 1, Cut::Reset);
    receive(&mut old, 1).await.expect_err("closed");
    let mut new = TcpStream::connect(proxy.address()).await.expect("listening");
    receive(&mut new, 1).await.expect_err("closed");
    links.heal();
    let mut newest = TcpStream::connect(proxy.address()).await.expect("listening");
    send(&mut newest, b"after").await;
    assert_eq!(receive(&mut newest, 5).await.expect("healed"), b"after");
}

#[tokio::test]
async fn other_links_are_not_touched() {
    let links = Links::default();
    let proxy = echo(&links, opened_by(Some(1))).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("listening");
    links.isolate(3, [1, 2, 3], Cut::Reset);
    send(&mut stream, b"still").await;
    assert_eq!(receive(&mut stream, 5).await.expect("whole"), b"still");
}

#[tokio::test]
async fn a_stranger_is_turned_away_and_counted() {
    let links = Links::default();
    let proxy = echo(&links, opened_by(None)).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("listening");
    receive(&mut stream, 1).await.expect_err("closed");
    assert_eq!(links.strangers(), 1);
}

#[tokio::test]
async fn a_dropped_proxy_takes_its_connections_along() {
    let links = Links::default();
    let proxy = echo(&links, opened_by(Some(1))).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("listening");
    send(&mut stream, b"before").await;
    receive(&mut stream, 6).await.expect("whole");
    drop(proxy);
    receive(&mut stream, 1).await.expect_err("closed");
}
