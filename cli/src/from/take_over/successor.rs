//! The old process's side.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::process::ExitStatus;

use anyhow::{Context, bail};
use meshgate_ingress::descriptors::DESCRIPTORS_MAX;
use meshgate_ingress::{Ending, Sockets};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info};

use super::line::{receive, send};
use super::{
    ANSWER_MAX, CONTROL, ControlSocket, DONE, ERROR, MORE, NEXT, SERVING, SOCKETS, START_MAX,
    TAKE_OVER,
};
use crate::cluster::bequeath;

/// Arguments that say how a process finds the one before it: not the next one's.
const OF_ONE_START: [&str; 2] = ["--take-over", "--take-over-fd="];

/// Hands the sockets to whoever comes next.
#[derive(Debug)]
pub(in super::super) struct Succession {
    sockets: Sockets,
    control: Option<ControlSocket>,
    ending: Ending,
    program: Program,
}

/// How this process was started, to do it again.
#[derive(Debug)]
pub(in super::super) struct Program {
    /// As it was called then: by now another file may be there, which is the point.
    path: PathBuf,
    /// SIGUSR2. Taken early, for it ends a process that does not expect it.
    signal: Signal,
}

impl Program {
    /// Must be made first of all.
    pub(in super::super) fn note() -> anyhow::Result<Self> {
        Ok(Self {
            path: std::env::current_exe().context("cannot tell where the program is")?,
            signal: signal(SignalKind::user_defined2()).context("cannot take SIGUSR2")?,
        })
    }

    /// Starts the program that is there now, with the other end of `stream`.
    fn start(&self, stream: &StdStream) -> anyhow::Result<Child> {
        let arguments = std::env::args_os().skip(1).filter(|argument| {
            let text = argument.to_string_lossy();
            !OF_ONE_START.iter().any(|one| match one.strip_suffix('=') {
                Some(_) => text.starts_with(one),
                None => text == *one,
            })
        });
        let descriptor = bequeath(stream)?;
        Command::new(&self.path)
            .args(arguments)
            .arg(format!("--take-over-fd={descriptor}"))
            .spawn()
            .with_context(|| format!("cannot start {}", self.path.display()))
    }
}

/// What a conversation came to, if nothing went wrong.
enum Outcome {
    HandedOver,
    /// The other end closed without a word.
    NotAsked,
}

impl Succession {
    pub(in super::super) fn new(
        sockets: Sockets,
        control: Option<ControlSocket>,
        ending: Ending,
        program: Program,
    ) -> Self {
        Self {
            sockets,
            control,
            ending,
            program,
        }
    }

    /// Returns when another process serves and this one has begun to drain. There must be no process before this one
    /// any more.
    pub(in super::super) async fn run(mut self) {
        self.control.iter_mut().for_each(ControlSocket::adopt);
        loop {
            let handed_over = tokio::select! {
                stream = accept(self.control.as_ref()) => self.hand_over(&stream).await,
                _ = self.program.signal.recv() => self.start_and_hand_over().await,
            };
            match handed_over {
                Ok(Outcome::HandedOver) => break,
                Ok(Outcome::NotAsked) => {}
                Err(error) => error!(
                    reason = format!("{error:#}"),
                    "the take-over failed; this process goes on"
                ),
            }
        }
        // Probes first: not ready is what the other process is not.
        self.ending.replaced.cancel();
        self.ending.shutdown.cancel();
    }

    async fn start_and_hand_over(&mut self) -> anyhow::Result<Outcome> {
        let (ours, theirs) = StdStream::pair().context("cannot make a pair of sockets")?;
        ours.set_nonblocking(true)
            .context("cannot use a pair of sockets")?;
        let stream = UnixStream::from_std(ours).context("cannot use a pair of sockets")?;
        let mut child = self.program.start(&theirs)?;
        drop(theirs);
        let program = self.program.path.display();
        info!(pid = child.id(), %program, "started the process that takes over");
        let error = match self.hand_over(&stream).await {
            Ok(Outcome::HandedOver) => return Ok(Outcome::HandedOver),
            Ok(Outcome::NotAsked) => anyhow::anyhow!("it did not ask for the sockets"),
            Err(error) => error,
        };
        match ended(&mut child).await {
            Ok(status) => Err(error).with_context(|| format!("the new process ended: {status}")),
            Err(unknown) => Err(error).context(format!("the new process: {unknown}")),
        }
    }

    /// One conversation; an error if this process is to go on.
    async fn hand_over(&mut self, stream: &UnixStream) -> anyhow::Result<Outcome> {
        match self.converse(stream).await {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                // It may be serving already, and then must hear that it may not; mostly it is gone.
                let _ = send(stream, &format!("{ERROR} {error:#}"), &[]).await;
                Err(error)
            }
        }
    }

    async fn converse(&mut self, stream: &UnixStream) -> anyhow::Result<Outcome> {
        match receive(stream, ANSWER_MAX).await?.text.as_str() {
            TAKE_OVER => {}
            // Somebody looked whether this process is alive.
            "" => return Ok(Outcome::NotAsked),
            other => bail!("{other:?} was said instead of {TAKE_OVER:?}"),
        }
        self.give(stream).await?;
        let answer = receive(stream, START_MAX).await?.text;
        let mut words = answer.split(' ');
        if words.next() != Some(SERVING) {
            bail!("the new process ended before it served");
        }
        send(stream, DONE, &[]).await?;
        if let Some(control) = &mut self.control
            && words.any(|kept| kept == CONTROL)
        {
            control.handed_over();
        }
        info!("another process serves now");
        Ok(Outcome::HandedOver)
    }

    /// Sends the sockets of this moment (listeners come and go), in as many messages as they need.
    async fn give(&self, stream: &UnixStream) -> anyhow::Result<()> {
        let listening = self.sockets.now().context("cannot hand over")?;
        let control = self.control.iter().map(|socket| (CONTROL, socket.as_fd()));
        let listening = listening
            .iter()
            .map(|(name, socket)| (*name, socket.as_fd()));
        let all: Vec<(&str, BorrowedFd<'_>)> = listening.chain(control).collect();
        let mut left = all.as_slice();
        while let Some((part, others)) = left.split_at_checked(DESCRIPTORS_MAX)
            && !others.is_empty()
        {
            tell(stream, MORE, part).await?;
            let answer = receive(stream, ANSWER_MAX).await?.text;
            if answer != NEXT {
                bail!("{answer:?} was said instead of {NEXT:?}");
            }
            left = others;
        }
        tell(stream, SOCKETS, left).await
    }
}

/// A word with names, and what they name.
async fn tell(
    stream: &UnixStream,
    word: &str,
    named: &[(&str, BorrowedFd<'_>)],
) -> anyhow::Result<()> {
    let (names, descriptors): (Vec<&str>, Vec<_>) = named.iter().copied().unzip();
    let line = format!("{word} {}", names.join(" "));
    send(stream, &line, &descriptors).await?;
    Ok(())
}

/// The next process at the control socket; never, without one.
async fn accept(control: Option<&ControlSocket>) -> UnixStream {
    let Some(control) = control else {
        return std::future::pending().await;
    };
    loop {
        match control.accept().await {
            Ok(stream) => return stream,
            Err(error) => {
                error!(%error, "the control socket");
                // Out of descriptors, most likely, and then again at once.
                tokio::time::sleep(super::ANSWER_MAX / 50).await;
            }
        }
    }
}

/// The end of a process that is not wanted any more: by itself, for it has heard so, or not.
async fn ended(child: &mut Child) -> std::io::Result<ExitStatus> {
    match tokio::time::timeout(ANSWER_MAX, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.kill().await?;
            child.wait().await
        }
    }
}
