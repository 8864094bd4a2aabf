//! Accepts connections, up to a number of them; whoever comes then waits until another has gone.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::Stage;

/// After an error of `accept`, such as too many open files, it is tried again so much later.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection, and its place among those that may be. It breaks when the listener is cut: one that keeps silent would
/// otherwise live as long as its other end likes.
pub(crate) struct Connection {
    stream: TcpStream,
    /// `None` once it has come.
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(cut) = &mut self.cut {
            if cut.as_mut().poll(context).is_pending() {
                return Ok(());
            }
            self.cut = None;
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

/// The connections that `listener` accepts, until `stage` says otherwise; the listener is closed then.
pub(crate) fn accept(
    listener: TcpListener,
    most: usize,
    mut stage: watch::Receiver<Stage>,
) -> impl Stream<Item = io::Result<Connection>> + Send {
    let (accepted, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        loop {
            let next = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let next = tokio::select! {
                next = next => next,
                _ = stage.wait_for(|stage| *stage >= Stage::Drain) => return,
            };
            match next {
                (Ok(place), Ok((stream, _))) => {
                    let _ = stream.set_nodelay(true);
                    let mut stage = stage.clone();
                    let cut = async move {
                        let _ = stage.wait_for(|stage| *stage == Stage::Cut).await;
                    };
                    let connection = Connection { stream, cut: Some(Box::pin(cut)), _place: place };
                    if accepted.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                (_, Err(error)) => {
                    tracing::warn!("a connection was not accepted: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
                (Err(_), _) => return,
            }
        }
    });
    ReceiverStream::new(stream)
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
