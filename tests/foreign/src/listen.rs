//! A socket on a free port, and a task for each of its connections.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Where `each` serves connections, until what is returned is dropped.
pub(crate) async fn listen<S>(
    each: impl Fn(TcpStream) -> S + Send + 'static,
) -> io::Result<(SocketAddr, JoinSet<()>)>
where
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            while connections.try_join_next().is_some() {}
            connections.spawn(each(stream));
        }
    });
    Ok((address, tasks))
}
