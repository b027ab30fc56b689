//! Texts into what an edge enforces: only what changed is read, compiled and handed on. Pure.
//!
//! A set of files with an error in it is refused whole: half of a change may be worse than none, and a file that is
//! being written may look like a deletion of what follows. What is in force stays until the whole set is right.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use meshgate_api::push::Refusal;
use meshgate_proxy::push::resource::{Body, Changes, Kind};
use meshgate_push::offline::{
    EdgeKind, Manifest, ObjectId, Offline, Resource, ResourceId, Severity,
};

use super::document::{Document, Syntax, Unreadable, documents};
use super::files::Text;
use super::object::{Read, Schemas, Wrong, items};
use super::place::{Fault, Place};

/// The files as last read, what is compiled of them, and what of that is not in force yet.
#[derive(Debug)]
pub(super) struct Configuration {
    schemas: Schemas,
    files: HashMap<PathBuf, File>,
    offline: Offline,
    /// What the compiler knows.
    compiled: BTreeMap<ObjectId, Written>,
    pending: BTreeMap<ResourceId, Option<Resource>>,
}

/// A file and what was read from it.
#[derive(Debug)]
struct File {
    content: Result<String, String>,
    objects: Vec<Written>,
    /// Kinds of objects that are of no concern.
    others: Vec<String>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

/// An object and where it is written.
#[derive(Debug, Clone)]
struct Written {
    manifest: Arc<Manifest>,
    place: Place,
}

/// What a valid set of files came to.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) warnings: BTreeSet<Fault>,
    pub(super) summary: Summary,
}

/// How much there is.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) files: usize,
    pub(super) objects: BTreeMap<&'static str, usize>,
    pub(super) others: BTreeMap<String, usize>,
    /// Objects that differ from the last time.
    pub(super) changed: usize,
}

impl Configuration {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            schemas: Schemas::new()?,
            files: HashMap::new(),
            offline: Offline::new(),
            compiled: BTreeMap::new(),
            pending: BTreeMap::new(),
        })
    }

    /// Takes the files as they are now. What is to be handed on afterwards is [`changes`](Self::changes).
    pub(super) fn take(&mut self, texts: Vec<Text>) -> Result<Accepted, BTreeSet<Fault>> {
        self.read(texts);
        let (objects, faults) = self.objects();
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut summary = self.summary(&objects);
        summary.changed = self.compile(objects);
        let mut faults = BTreeSet::new();
        let mut warnings: BTreeSet<Fault> = self
            .files
            .values()
            .flat_map(|file| file.warnings.iter().cloned())
            .collect();
        for finding in self.offline.findings() {
            let what = format!("{}: {}", finding.reason, finding.message);
            let fault = self.fault(&finding.id, what);
            match finding.severity {
                Severity::Invalid => faults.insert(fault),
                Severity::Warning => warnings.insert(fault),
            };
        }
        match faults.is_empty() {
            true => Ok(Accepted { warnings, summary }),
            false => Err(faults),
        }
    }

    /// What is not in force yet.
    pub(super) fn changes(&self, generation: u64) -> Changes {
        let mut changes = Changes {
            generation,
            ..Changes::default()
        };
        for (id, resource) in &self.pending {
            let name = id.name.to_string();
            match resource {
                Some(resource) => changes.updated.push((name, body(resource.clone()))),
                None => changes.removed.push((kind(id.kind), name)),
            }
        }
        changes
    }

    /// All of [`changes`](Self::changes) is in force.
    pub(super) fn enforced(&mut self) {
        self.pending.clear();
    }

    /// What an edge's refusals mean for those who wrote the files.
    pub(super) fn refused(&self, refusals: &[Refusal]) -> BTreeSet<Fault> {
        let fault = |refusal: &Refusal| {
            let what = format!("{} cannot be served: {}", refusal.resource, refusal.reason);
            match self.author(refusal) {
                Some(written) => Fault::of(&written.place, written.manifest.id(), what),
                None => Fault::general(what),
            }
        };
        refusals.iter().map(fault).collect()
    }

    /// The object that a refused resource comes from.
    fn author(&self, refusal: &Refusal) -> Option<&Written> {
        let id = |kind: &'static str, name: &str| {
            let (namespace, name) = name.split_once('/')?;
            Some(ObjectId {
                kind,
                namespace: namespace.into(),
                name: name.into(),
            })
        };
        let (name, reason) = (refusal.resource.as_str(), refusal.reason.as_str());
        let is_refused = |id: &&ResourceId| &*id.name == name;
        let resource = self.pending.get(self.pending.keys().find(is_refused)?)?;
        let author = match resource.as_ref()? {
            Resource::Certificate(_) => id("Secret", name)?,
            Resource::Service(service) if reason.starts_with("policy") => {
                id("BackendPolicy", &service.policy.as_ref()?.origin)?
            }
            Resource::Service(_) => id("Service", name.rsplit_once(':')?.0)?,
            Resource::EdgeHost(host) => {
                let index = reason.strip_prefix("rules[")?.split_once(']')?.0;
                let rule = host.rules.get(index.parse::<usize>().ok()?)?;
                id("Ingress", rule.origin.strip_prefix("ingress/")?)?
            }
        };
        self.compiled.get(&author)
    }

    fn fault(&self, id: &ObjectId, what: String) -> Fault {
        match self.compiled.get(id) {
            Some(written) => Fault::of(&written.place, id, what),
            None => Fault::general(format!("{id}: {what}")),
        }
    }

    /// Reads what differs from the last time.
    fn read(&mut self, texts: Vec<Text>) {
        let present: HashSet<&PathBuf> = texts.iter().map(|text| &text.path).collect();
        self.files.retain(|path, _| present.contains(path));
        for Text { path, content } in texts {
            let known = self.files.get(&path);
            if known.is_none_or(|known| known.content != content) {
                let file = File::read(&path, content, &self.schemas);
                self.files.insert(path, file);
            }
        }
    }

    /// All objects of all files, or everything that is wrong with them.
    fn objects(&self) -> (BTreeMap<ObjectId, Written>, BTreeSet<Fault>) {
        let mut faults = BTreeSet::new();
        let mut objects: BTreeMap<ObjectId, Written> = BTreeMap::new();
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_key(|(path, _)| *path);
        for (_, file) in files {
            faults.extend(file.faults.iter().cloned());
            for written in &file.objects {
                match objects.entry(written.manifest.id().clone()) {
                    Entry::Vacant(free) => drop(free.insert(written.clone())),
                    Entry::Occupied(taken) => {
                        let other = &taken.get().place;
                        let what = format!("is written twice: also in {other}");
                        faults.insert(Fault::of(&written.place, taken.key(), what));
                    }
                }
            }
        }
        (objects, faults)
    }

    /// Tells the compiler what differs from what it knows; how many objects do.
    fn compile(&mut self, objects: BTreeMap<ObjectId, Written>) -> usize {
        let mut changed = 0;
        for id in self.compiled.keys().filter(|id| !objects.contains_key(id)) {
            self.offline.delete(id);
            changed += 1;
        }
        for (id, written) in &objects {
            let same = self.compiled.get(id).is_some_and(|known| {
                Arc::ptr_eq(&known.manifest, &written.manifest)
                    || known.manifest == written.manifest
            });
            if !same {
                self.offline.apply(&written.manifest);
                changed += 1;
            }
        }
        self.compiled = objects;
        self.pending.extend(self.offline.compile());
        changed
    }

    fn summary(&self, objects: &BTreeMap<ObjectId, Written>) -> Summary {
        let mut summary = Summary {
            files: self.files.len(),
            ..Summary::default()
        };
        for id in objects.keys() {
            *summary.objects.entry(id.kind).or_default() += 1;
        }
        for kind in self.files.values().flat_map(|file| &file.others) {
            *summary.others.entry(kind.clone()).or_default() += 1;
        }
        summary
    }
}

impl File {
    fn read(path: &Path, content: Result<String, String>, schemas: &Schemas) -> Self {
        let mut file = Self {
            content: Err(String::new()),
            objects: Vec::new(),
            others: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
        };
        match &content {
            Ok(text) => file.documents(path, text, schemas),
            Err(why) => file.faults.push(Fault::file(path, why)),
        }
        file.content = content;
        file
    }

    fn documents(&mut self, path: &Path, text: &str, schemas: &Schemas) {
        let name: Arc<Path> = path.into();
        let place = |at, item| Place {
            file: name.clone(),
            at,
            item,
        };
        let json = path
            .extension()
            .is_some_and(|extension| extension == "json");
        let syntax = if json { Syntax::Json } else { Syntax::Yaml };
        for document in documents(syntax, text) {
            match document {
                Ok(Document { at, value }) => {
                    for (item, value) in items(value) {
                        self.object(place(at, item), schemas.read(value));
                    }
                }
                Err(Unreadable { at, why }) => {
                    self.faults.push(Fault::document(&place(at, None), why));
                }
            }
        }
    }

    fn object(&mut self, place: Place, read: Read) {
        match read {
            Read::Object(manifest, warnings) => {
                let warning = |what| Fault::of(&place, manifest.id(), what);
                self.warnings.extend(warnings.into_iter().map(warning));
                let manifest = Arc::from(manifest);
                self.objects.push(Written { manifest, place });
            }
            Read::Other(kind) => self.others.push(kind),
            Read::Wrong(Wrong { subject, problems }) => {
                let fault = |problem| match &subject {
                    Some(subject) => Fault::of(&place, subject, problem),
                    None => Fault::document(&place, problem),
                };
                self.faults.extend(problems.iter().map(fault));
            }
        }
    }
}

fn kind(kind: EdgeKind) -> Kind {
    match kind {
        EdgeKind::Certificate => Kind::Certificate,
        EdgeKind::Service => Kind::Service,
        EdgeKind::EdgeHost => Kind::EdgeHost,
    }
}

fn body(resource: Resource) -> Body {
    match resource {
        Resource::Certificate(certificate) => Body::Certificate(certificate),
        Resource::Service(service) => Body::Service(service),
        Resource::EdgeHost(host) => Body::EdgeHost(host),
    }
}

#[cfg(test)]
mod tests;
