//! `/livez`, `/readyz`, `/healthz`: plain "ok", a list with `?verbose`, and each check by its own path.

use http::Response;
use meshgate_store::Health;

use crate::http::answer;
use crate::http::body::Body;
use crate::http::query::Query;
use crate::server::Server;

/// One thing that must be well.
struct Check {
    name: &'static str,
    passes: fn(&Server) -> bool,
    /// Only readiness looks at it.
    ready_only: bool,
}

const CHECKS: [Check; 4] = [
    Check {
        name: "ping",
        passes: |_| true,
        ready_only: false,
    },
    // Named after Kubernetes' store, as monitoring asks for it by that name.
    Check {
        name: "etcd",
        passes: |server| server.store.health() == Health::Writable,
        ready_only: false,
    },
    // The state behind requests follows the store inside each commit: it is never behind.
    Check {
        name: "informer-sync",
        passes: |_| true,
        ready_only: true,
    },
    Check {
        name: "shutdown",
        passes: |server| !server.shutdown.is_cancelled(),
        ready_only: true,
    },
];

/// The answer of a health path; `None` if it is none.
pub(crate) fn answer(server: &Server, path: &str, query: &Query) -> Option<Response<Body>> {
    let (endpoint, check) = match path.strip_prefix('/')?.split_once('/') {
        Some((endpoint, check)) => (endpoint, Some(check)),
        None => (path.strip_prefix('/')?, None),
    };
    if !matches!(endpoint, "livez" | "readyz" | "healthz") {
        return None;
    }
    let checks = CHECKS
        .iter()
        .filter(|check| endpoint == "readyz" || !check.ready_only);
    match check {
        None => Some(all(server, endpoint, checks, query)),
        Some(name) => match checks.into_iter().find(|check| check.name == name) {
            Some(check) if (check.passes)(server) => Some(plain(200, "ok")),
            Some(_) => Some(plain(500, "internal server error: reason withheld\n")),
            None => Some(answer::no_such_page()),
        },
    }
}

fn plain(code: u16, text: &str) -> Response<Body> {
    answer::bytes(code, "text/plain; charset=utf-8", text.to_owned())
}

fn all<'a>(
    server: &Server,
    endpoint: &str,
    checks: impl Iterator<Item = &'a Check>,
    query: &Query,
) -> Response<Body> {
    let mut lines = String::new();
    let mut healthy = true;
    for check in checks {
        let name = check.name;
        if query.all("exclude").any(|excluded| excluded == name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if (check.passes)(server) {
            lines.push_str(&format!("[+]{name} ok\n"));
        } else {
            healthy = false;
            lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    match (healthy, query.all("verbose").next().is_some()) {
        (true, false) => answer::text(200, "ok"),
        (true, true) => answer::text(200, format!("{lines}{endpoint} check passed\n")),
        (false, _) => answer::text(500, format!("{lines}{endpoint} check failed\n")),
    }
}
