//! Accepts connections, up to a number of them; whoever comes then waits until another has gone. One that says nothing goes soon.

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::Stage;

/// After an error of `accept`, such as too many open files, it is tried again so much later.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the other end may take to say something at all.
const GREETING: Duration = Duration::from_secs(5);
/// How long it may then keep silent, where no protocol asks it whether it is there.
const IDLE: Duration = Duration::from_secs(30);

/// A connection, and its place among those that may be. It breaks when the listener is cut: one that keeps silent would
/// otherwise live as long as its other end likes.
pub(crate) struct Connection {
    stream: TcpStream,
    /// `None` once it has come.
    cut: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Until when the other end has to say something.
    silence: Option<Pin<Box<Sleep>>>,
    /// How long it may keep silent after that.
    idle: Option<Duration>,
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
                    let connection = Connection {
                        stream,
                        cut: Some(Box::pin(cut)),
                        silence: Some(Box::pin(sleep(GREETING))),
                        idle: None,
                        _place: place,
                    };
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

/// The same as a listener of axum's, for whom one that keeps silent goes at any time.
pub(crate) struct Accepting<S> {
    local: io::Result<SocketAddr>,
    connections: Pin<Box<S>>,
}

/// The connections that `listener` accepts, as of [`accept`].
pub(crate) fn accepting(
    listener: TcpListener,
    most: usize,
    stage: watch::Receiver<Stage>,
) -> Accepting<impl Stream<Item = io::Result<Connection>> + Send> {
    Accepting { local: listener.local_addr(), connections: Box::pin(accept(listener, most, stage)) }
}

impl<S: Stream<Item = io::Result<Connection>> + Send + 'static> axum::serve::Listener for Accepting<S> {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let accepted = match self.connections.next().await {
                Some(accepted) => accepted,
                // The listener is closed.
                None => pending().await,
            };
            // One that has broken already has no address any more.
            if let Ok((mut connection, peer)) =
                accepted.and_then(|it| it.stream.peer_addr().map(|peer| (it, peer)))
            {
                connection.idle = Some(IDLE);
                return (connection, peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.local {
            Ok(local) => Ok(*local),
            Err(error) => Err(error.kind().into()),
        }
    }
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
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.silence = self.idle.map(|idle| Box::pin(sleep(idle)));
        } else if self.silence.as_mut().is_some_and(|silence| silence.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
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
        self.check(context)?;
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
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
