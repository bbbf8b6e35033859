//! The listening socket: connections that can be ended by a reset, and that know which providers they have met.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::provider::Provider;

/// Connections that may wait to be accepted, as many as servers of the web allow (nginx: 511). With tokio's 128, of 200 clients that
/// came at the same moment 70 were not heard, and tried again a second later.
const BACKLOG: u32 = 511;

#[derive(Debug, Default)]
struct Marks {
    reset: AtomicBool,
    met: AtomicU8,
}

/// A handle on the connection a request came by.
#[derive(Debug, Clone, Default)]
pub struct Connection(Arc<Marks>);

impl Connection {
    /// When the connection is closed, the peer gets a TCP reset in place of an orderly end.
    pub fn end_by_reset(&self) {
        self.0.reset.store(true, Ordering::Relaxed);
    }

    /// Whether this is the first request to that provider on the connection.
    pub fn meets(&self, provider: Provider) -> bool {
        let bit = 1 << provider as u8;
        self.0.met.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

/// A stream that looks at its marks when it is dropped.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    connection: Connection,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.connection.0.reset.load(Ordering::Relaxed) {
            // With a linger time of zero, close sends RST. A peer that is gone needs none.
            let _gone = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A FIN sent first would make the end look orderly.
        if self.connection.0.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
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

/// The listener on loopback.
#[derive(Debug)]
pub struct Door(TcpListener);

impl Door {
    /// Listens on 127.0.0.1.
    ///
    /// # Errors
    /// When the port is taken or not allowed.
    pub async fn open(port: u16) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
        Ok(Door(socket.listen(BACKLOG)?))
    }
}

impl Listener for Door {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    // Small answers would otherwise wait for the peer's delayed ACK.
                    let _gone = stream.set_nodelay(true);
                    let connection = Connection::default();
                    return (Socket { stream, connection }, address);
                }
                // Out of file descriptors, mostly: they come back when connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Door>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().connection.clone()
    }
}
