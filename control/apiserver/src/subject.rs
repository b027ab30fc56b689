//! What a request is about, as far as its head says.

use http::Method;
use meshgate_schema::Failure;

use crate::dispatch::{Verb, is_long_running};
use crate::http::path::{self, ResourcePath, Target};
use crate::http::query::Query;
use crate::metrics::RequestLabels;

/// For routing and for counting.
pub(crate) struct Subject {
    pub(crate) target: Result<Target, Failure>,
    pub(crate) query: Query,
    pub(crate) verb: Option<Verb>,
    method: Method,
    pub(crate) long_running: bool,
    /// Whether its kind is served; requests for others are counted without names, or anyone could make series.
    pub(crate) known: bool,
}

impl Subject {
    pub(crate) fn of(method: &Method, path: &str, query: Option<&str>) -> Subject {
        let query = Query::parse(query);
        let target = path::parse(path);
        let verb = match &target {
            Ok(Target::Resource(path)) => verb(method, path, &query),
            _ => None,
        };
        let long_running = match (&target, verb) {
            (Ok(Target::Resource(path)), Some(verb)) => is_long_running(verb, &path.subresource),
            _ => false,
        };
        Subject {
            target,
            query,
            verb,
            method: method.clone(),
            long_running,
            known: false,
        }
    }

    pub(crate) fn labels(&self, code: u16) -> RequestLabels {
        let path = match &self.target {
            Ok(Target::Resource(path)) if self.known => path.clone(),
            _ => ResourcePath::default(),
        };
        let scope = match (&path, self.known) {
            (_, false) => "",
            (path, _) if !path.name.is_empty() => "resource",
            (path, _) if !path.namespace.is_empty() => "namespace",
            _ => "cluster",
        };
        RequestLabels {
            verb: self.verb_label(),
            dry_run: if self.query.find("dryRun").is_some() {
                "All"
            } else {
                ""
            },
            group: path.group,
            version: path.version,
            resource: path.resource,
            subresource: path.subresource,
            scope,
            component: "apiserver",
            code,
        }
    }

    fn verb_label(&self) -> &'static str {
        match self.verb {
            Some(Verb::List) => "LIST",
            Some(Verb::Watch) => "WATCH",
            Some(Verb::DeleteCollection) => "DELETECOLLECTION",
            _ => match self.method {
                Method::GET => "GET",
                Method::POST => "POST",
                Method::PUT => "PUT",
                Method::PATCH => "PATCH",
                Method::DELETE => "DELETE",
                _ => "other",
            },
        }
    }
}

fn verb(method: &Method, path: &ResourcePath, query: &Query) -> Option<Verb> {
    Some(match *method {
        Method::GET if path.watch => Verb::Watch,
        Method::GET if !path.name.is_empty() => Verb::Get,
        Method::GET if query.is_set("watch") => Verb::Watch,
        Method::GET => Verb::List,
        Method::POST => Verb::Create,
        Method::PUT => Verb::Update,
        Method::PATCH => Verb::Patch,
        Method::DELETE if path.name.is_empty() => Verb::DeleteCollection,
        Method::DELETE => Verb::Delete,
        _ => return None,
    })
}
