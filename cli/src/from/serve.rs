//! The edge, what feeds it, and who comes after it, in one process.

use std::process::ExitCode;

use anyhow::Context;
use meshgate_ingress::{Edge, Ending, Source, given};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::follow::Follower;
use super::take_over::{ControlSocket, Predecessor, Program, Succession};
use crate::args::{IngressArgs, Listens};
use crate::proxies::edge_options;
use crate::{resident, runtime};

pub(crate) fn serve(args: &IngressArgs, listens: &Listens) -> anyhow::Result<ExitCode> {
    // Files and probes need little; the engine brings the threads that serve.
    runtime::current_thread()?.block_on(run(args, listens))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &IngressArgs, listens: &Listens) -> anyhow::Result<()> {
    let program = Program::note()?;
    let ending = Ending {
        shutdown: runtime::shutdown_on_signal()?,
        replaced: CancellationToken::new(),
    };
    resident::trim_when_settled();
    let mut predecessor = Predecessor::find(args, listens).await?;
    // Before the sockets: who cannot be served is not let in.
    let mut follower = Follower::start(&args.from).await?;
    let (giver, given) = given();
    let mut options = edge_options(args, listens, Source::Given(given));
    if let Some(predecessor) = predecessor.as_mut() {
        predecessor.give(&mut options);
    }
    let edge = Edge::open(options).context("the edge")?;
    let control = control(args, listens, predecessor.as_mut())?;
    let sockets = edge.sockets().context("the edge")?;
    let succession = Succession::new(sockets, control, ending.clone(), program);
    let (told, serving) = oneshot::channel();
    let feed = async {
        follower.give_first(&giver).await?;
        follower.run(&giver).await;
        Ok(())
    };
    let hand_on = async {
        if serving.await.is_err() {
            return Ok(());
        }
        if let Some(predecessor) = predecessor {
            predecessor.relieve().await?;
        }
        // Its descriptors go with it: only then does nobody listen any more.
        ending.shutdown.run_until_cancelled(succession.run()).await;
        anyhow::Ok(())
    };
    let is_serving = || {
        // Nobody hears it only when all of this ends.
        let _ = told.send(());
    };
    let serve = edge.run(is_serving, ending.clone());
    tokio::pin!(serve);
    tokio::select! {
        served = &mut serve => served.context("the edge"),
        // The edge ends by itself when it is fed no more; when something failed, because of that.
        ended = async { tokio::try_join!(feed, hand_on) } => {
            if ended.is_err() {
                ending.shutdown.cancel();
            }
            serve.await.context("the edge")?;
            ended.map(drop)
        }
    }
}

fn control(
    args: &IngressArgs,
    listens: &Listens,
    predecessor: Option<&mut Predecessor>,
) -> anyhow::Result<Option<ControlSocket>> {
    let given = args.control_socket.as_deref();
    if let Some(predecessor) = predecessor
        && let Some(socket) = predecessor.control(given, listens.first)?
    {
        return Ok(Some(socket));
    }
    ControlSocket::open(given, listens.first)
}
