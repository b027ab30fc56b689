//! The new process's side.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;

use anyhow::{Context, bail};
use meshgate_ingress::{ListenAt, Options};
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
use tokio::net::UnixStream;

use super::line::{Line, receive, send};
use super::{
    ANSWER_MAX, CONTROL, ControlSocket, DONE, ERROR, MORE, NEXT, SERVING, SOCKETS, START_MAX,
    TAKE_OVER, control,
};
use crate::args::{IngressArgs, Listens};
use crate::cluster::inherited;

/// Whether a message with sockets is the last.
enum Part {
    MoreFollow,
    Last,
}

/// The process that serves until this one does.
#[derive(Debug)]
pub(in super::super) struct Predecessor {
    stream: UnixStream,
    /// Those that nobody has taken yet.
    sockets: Vec<Handed>,
    control: Option<OwnedFd>,
    /// This process goes on with the control socket.
    keeps_control: bool,
}

/// A listening socket that was handed over.
#[derive(Debug)]
struct Handed {
    /// What it was for.
    name: String,
    at: SocketAddr,
    socket: TcpListener,
}

impl Handed {
    fn new(name: &str, descriptor: OwnedFd) -> anyhow::Result<Self> {
        let wrong = || format!("the {name} socket handed over");
        let socket = TcpListener::from(descriptor);
        if !getsockopt(&socket, AcceptConn).with_context(wrong)? {
            bail!("{} does not listen", wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            at: socket.local_addr().with_context(wrong)?,
            socket,
        })
    }
}

impl Predecessor {
    /// Asks for the sockets, if the arguments say that somebody has them.
    pub(in super::super) async fn find(
        args: &IngressArgs,
        listens: &Listens,
    ) -> anyhow::Result<Option<Self>> {
        let stream = match (args.take_over_fd, args.take_over) {
            (Some(descriptor), _) => {
                let stream = StdStream::from(inherited(descriptor)?);
                stream
                    .set_nonblocking(true)
                    .and_then(|()| UnixStream::from_std(stream))
                    .context("cannot talk to the running edge")?
            }
            (None, true) => {
                let path = control::path(args.control_socket.as_deref(), listens.first);
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
        let mut found = Self {
            stream,
            sockets: Vec::new(),
            control: None,
            keeps_control: false,
        };
        let mut word = TAKE_OVER;
        loop {
            send(&found.stream, word, &[]).await?;
            let line = receive(&found.stream, ANSWER_MAX).await?;
            match found.note(line)? {
                Part::Last => return Ok(found),
                Part::MoreFollow => word = NEXT,
            }
        }
    }

    /// Names and descriptors of one message.
    fn note(&mut self, Line { text, descriptors }: Line) -> anyhow::Result<Part> {
        let mut words = text.split(' ');
        let part = match words.next() {
            Some(SOCKETS) => Part::Last,
            Some(MORE) => Part::MoreFollow,
            _ => bail!("the running edge says {text:?}"),
        };
        let names: Vec<&str> = words.collect();
        if names.len() != descriptors.len() {
            bail!(
                "{} names came with {} sockets",
                names.len(),
                descriptors.len()
            );
        }
        for (name, descriptor) in names.into_iter().zip(descriptors) {
            match name {
                CONTROL => self.control = Some(descriptor),
                _ => self.sockets.push(Handed::new(name, descriptor)?),
            }
        }
        Ok(part)
    }

    /// Puts what the former process listens at in the place of addresses that it has, too. All sockets of an address are
    /// taken: connections wait in each.
    pub(in super::super) fn give(&mut self, options: &mut Options) {
        let http = options.http.iter_mut().map(|at| ("http", at));
        let https = options.https.iter_mut().map(|at| ("https", at));
        let others = [
            ("ready", &mut options.ready),
            ("metrics", &mut options.metrics),
        ];
        let mut wanted: Vec<_> = http.chain(https).chain(others).collect();
        // Any port is one that nobody names.
        wanted.sort_by_key(|(_, at)| matches!(at, ListenAt::Address(at) if at.port() == 0));
        for (name, wanted) in wanted {
            let ListenAt::Address(address) = *wanted else {
                continue;
            };
            let sockets = self.take(name, address);
            if !sockets.is_empty() {
                *wanted = ListenAt::Open(sockets);
            }
        }
    }

    /// The sockets of an address, whatever they were for; with port 0 those of any port that were for the same.
    fn take(&mut self, name: &str, wanted: SocketAddr) -> Vec<TcpListener> {
        let is_it = |one: &&Handed| match wanted.port() {
            0 => one.name == name && one.at.ip() == wanted.ip(),
            _ => one.at == wanted,
        };
        let Some(at) = self.sockets.iter().find(is_it).map(|found| found.at) else {
            return Vec::new();
        };
        let taken = self.sockets.extract_if(.., |one| one.at == at);
        taken.map(|one| one.socket).collect()
    }

    /// The control socket, where it is at the right place.
    pub(in super::super) fn control(
        &mut self,
        given: Option<&Path>,
        first: SocketAddr,
    ) -> anyhow::Result<Option<ControlSocket>> {
        let Some(descriptor) = self.control.take() else {
            return Ok(None);
        };
        let socket = ControlSocket::inherit(descriptor, control::path(given, first))?;
        self.keeps_control = socket.is_some();
        Ok(socket)
    }

    /// This process serves; returns when the other one has stopped accepting. An error: it goes on, and this one must
    /// not.
    pub(in super::super) async fn relieve(self) -> anyhow::Result<()> {
        for Handed { name, at, .. } in &self.sockets {
            tracing::info!(listener = name, %at, "closes with the former process");
        }
        // When the other process closes them nobody must have them: a connection would wait for no one.
        drop(self.sockets);
        let word = match self.keeps_control {
            true => format!("{SERVING} {CONTROL}"),
            false => SERVING.to_owned(),
        };
        let told = send(&self.stream, &word, &[]).await;
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
