//! The new process's side.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use anyhow::{Context, bail};
use meshgate_ingress::ListenAt;
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
use tokio::net::UnixStream;

use super::line::{Line, receive, send};
use super::{
    ANSWER_MAX, CONTROL, ControlSocket, DONE, ERROR, SERVING, SOCKETS, START_MAX, TAKE_OVER,
    control,
};
use crate::args::IngressArgs;
use crate::cluster::inherited;

/// The process that serves until this one does.
#[derive(Debug)]
pub(in super::super) struct Predecessor {
    stream: UnixStream,
    sockets: Vec<(String, OwnedFd)>,
    /// Names of the sockets that this process goes on with.
    kept: Vec<String>,
}

impl Predecessor {
    /// Asks for the sockets, if the arguments say that somebody has them.
    pub(in super::super) async fn find(args: &IngressArgs) -> anyhow::Result<Option<Self>> {
        let stream = match (args.take_over_fd, args.take_over) {
            (Some(descriptor), _) => {
                let stream = StdStream::from(inherited(descriptor)?);
                stream
                    .set_nonblocking(true)
                    .and_then(|()| UnixStream::from_std(stream))
                    .context("cannot talk to the running edge")?
            }
            (None, true) => {
                let path = control::path(args.control_socket.as_deref(), args.http);
                UnixStream::connect(&path).await.with_context(|| {
                    format!(
                        "no running edge answers at {}: start it without --take-over, or say where it is by \
                         --control-socket",
                        path.display()
                    )
                })?
            }
            (None, false) => return Ok(None),
        };
        let found = Self::ask(stream).await.context("cannot take over")?;
        Ok(Some(found))
    }

    async fn ask(stream: UnixStream) -> anyhow::Result<Self> {
        send(&stream, TAKE_OVER, &[]).await?;
        let Line { text, descriptors } = receive(&stream, ANSWER_MAX).await?;
        let mut words = text.split(' ');
        if words.next() != Some(SOCKETS) {
            bail!("the running edge says {text:?}");
        }
        let names: Vec<String> = words.map(str::to_owned).collect();
        if names.len() != descriptors.len() {
            bail!(
                "{} names came with {} sockets",
                names.len(),
                descriptors.len()
            );
        }
        Ok(Self {
            stream,
            sockets: names.into_iter().zip(descriptors).collect(),
            kept: Vec::new(),
        })
    }

    /// The sockets of that name where they listen at the right address; else new ones are to be made. All of them are
    /// kept: connections wait in each.
    pub(in super::super) fn socket(
        &mut self,
        name: &str,
        address: SocketAddr,
    ) -> anyhow::Result<ListenAt> {
        let wrong = || format!("the {name} socket handed over");
        let (mut sockets, mut was) = (Vec::new(), None);
        for descriptor in self.take(name) {
            let socket = TcpListener::from(descriptor);
            if !getsockopt(&socket, AcceptConn).with_context(wrong)? {
                bail!("{} does not listen", wrong());
            }
            was = Some(socket.local_addr().with_context(wrong)?);
            sockets.push(socket);
        }
        let Some(at) = was else {
            return Ok(ListenAt::Address(address));
        };
        let same = at.ip() == address.ip() && (address.port() == 0 || at.port() == address.port());
        if !same {
            tracing::info!(listener = name, was = %at, now = %address, "the address changes");
            return Ok(ListenAt::Address(address));
        }
        self.kept.push(name.to_owned());
        Ok(ListenAt::Open(sockets))
    }

    /// The control socket, where it is at the right place.
    pub(in super::super) fn control(
        &mut self,
        args: &IngressArgs,
    ) -> anyhow::Result<Option<ControlSocket>> {
        let Some(descriptor) = self.take(CONTROL).pop() else {
            return Ok(None);
        };
        let path = control::path(args.control_socket.as_deref(), args.http);
        let socket = ControlSocket::inherit(descriptor, path)?;
        if socket.is_some() {
            self.kept.push(CONTROL.to_owned());
        }
        Ok(socket)
    }

    fn take(&mut self, name: &str) -> Vec<OwnedFd> {
        let taken = self.sockets.extract_if(.., |(known, _)| known == name);
        taken.map(|(_, descriptor)| descriptor).collect()
    }

    /// This process serves; returns when the other one has stopped accepting. An error: it goes on, and this one must
    /// not.
    pub(in super::super) async fn relieve(self) -> anyhow::Result<()> {
        let mut words = vec![SERVING.to_owned()];
        words.extend(self.kept);
        let told = send(&self.stream, &words.join(" "), &[]).await;
        let answer = match told {
            Ok(()) => receive(&self.stream, START_MAX).await,
            Err(error) => Err(error),
        };
        match answer.map(|line| line.text) {
            Ok(text) if text == DONE => tracing::info!("took over; the former process drains"),
            Ok(text) if text.starts_with(ERROR) => {
                bail!(
                    "the running edge gave this process up: {}",
                    text[ERROR.len()..].trim()
                )
            }
            // It would have said so if it went on: there is nobody but us.
            Ok(_) => tracing::warn!("the former process ended before it was relieved"),
            Err(error) => tracing::warn!(%error, "the former process does not answer any more"),
        }
        Ok(())
    }
}
