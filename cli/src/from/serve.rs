//! The edge and what feeds it, in one process.

use std::process::ExitCode;

use anyhow::Context;
use meshgate_ingress::{Edge, Ending, Source, given};
use tokio_util::sync::CancellationToken;

use super::follow::Follower;
use crate::args::IngressArgs;
use crate::proxies::edge_options;
use crate::runtime;

pub(crate) fn serve(args: &IngressArgs) -> anyhow::Result<ExitCode> {
    // Files and probes need little; the engine brings the threads that serve.
    runtime::current_thread()?.block_on(run(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &IngressArgs) -> anyhow::Result<()> {
    let ending = Ending {
        shutdown: runtime::shutdown_on_signal()?,
        replaced: CancellationToken::new(),
    };
    // Before the sockets: who cannot be served is not let in.
    let mut follower = Follower::start(&args.from).await?;
    let (giver, given) = given();
    let edge = Edge::open(edge_options(args, Source::Given(given))).context("the edge")?;
    let feed = async {
        follower.give_first(&giver).await?;
        follower.run(&giver).await
    };
    let serve = edge.run(|| {}, ending);
    tokio::pin!(serve);
    tokio::select! {
        served = &mut serve => served.context("the edge"),
        // The edge ended first, and says why; or there is nothing to serve.
        fed = feed => match fed {
            Ok(()) => serve.await.context("the edge"),
            Err(error) => Err(error),
        },
    }
}
