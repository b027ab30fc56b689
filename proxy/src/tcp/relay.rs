//! The copy loop.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use meshgate_routing::Time;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::io::Io;

/// What was passed on, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relayed {
    pub(super) from_client: u64,
    pub(super) to_client: u64,
}

/// For each direction. Enough for a gigabit within a data centre; a thousand idle connections cost 32 MiB.
const COPY_BUFFER_BYTES: usize = 16 * 1024;

/// While draining, a connection that is silent for so long is taken for idle.
const DRAIN_IDLE: Duration = Duration::from_secs(5);

/// Passes bytes both ways, half-closes included, until both ends are done or nothing moved for `idle`. Drain does not
/// cut a connection that is in use, for nobody could take it up elsewhere; its deadline does.
///
/// When one end breaks off, the other sees that: a reset, never an ordinary end, which would make what came look like all
/// there is. TLS knows a break even where TCP ends in order (RFC 8446 §6.1).
pub(super) async fn relay(
    client: Io,
    upstream: Io,
    idle: Option<Duration>,
    drain: &CancellationToken,
) -> Relayed {
    let moved = Arc::new(Moved::default());
    moved.touch();
    let mut client = Watched {
        io: client,
        moved: moved.clone(),
        from_client: true,
    };
    let mut upstream = Watched {
        io: upstream,
        moved: moved.clone(),
        from_client: false,
    };
    let copying = copy_bidirectional_with_sizes(
        &mut client,
        &mut upstream,
        COPY_BUFFER_BYTES,
        COPY_BUFFER_BYTES,
    );
    let idle = idle.unwrap_or(Duration::MAX);
    let drained = async {
        drain.cancelled().await;
        moved.nothing_for(DRAIN_IDLE).await;
    };
    let broken = tokio::select! {
        copied = copying => copied.is_err(),
        () = moved.nothing_for(idle) => false,
        () = drained => false,
    };
    if broken {
        client.io.reset_on_close();
        upstream.io.reset_on_close();
    }
    Relayed {
        from_client: moved.from_client.load(Ordering::Relaxed),
        to_client: moved.to_client.load(Ordering::Relaxed),
    }
}

#[derive(Debug, Default)]
struct Moved {
    from_client: AtomicU64,
    to_client: AtomicU64,
    last: AtomicU64,
}

impl Moved {
    fn touch(&self) {
        self.last.store(clock::now().as_nanos(), Ordering::Relaxed);
    }

    async fn nothing_for(&self, idle: Duration) {
        loop {
            let last = Time::from_nanos(self.last.load(Ordering::Relaxed));
            let quiet = clock::now().since(last);
            match idle.checked_sub(quiet) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }
}

/// Notes what is read from it.
struct Watched {
    io: Io,
    moved: Arc<Moved>,
    from_client: bool,
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let count = (buf.filled().len() - before) as u64;
        let sum = match this.from_client {
            true => &this.moved.from_client,
            false => &this.moved.to_client,
        };
        sum.fetch_add(count, Ordering::Relaxed);
        this.moved.touch();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
