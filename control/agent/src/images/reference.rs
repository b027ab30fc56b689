//! Names of images: `web`, `ghcr.io/team/web:1.2`, `web@sha256:…`.

use std::fmt;

/// Registry of names that have none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Longest name accepted, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// An image's name, complete with registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Registry and path, `docker.io/library/web`.
    pub repository: String,
    /// Which of the repository's images.
    pub version: Version,
}

/// How one image of a repository is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// By a name that may move.
    Tag(String),
    /// By content, `sha256:…`.
    Digest(String),
}

/// The text is no image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an image name")]
pub struct BadReference(pub String);

impl Reference {
    /// Reads a name as people write it. A digest wins over a tag beside it.
    pub fn parse(text: &str) -> Result<Reference, BadReference> {
        Self::read(text).ok_or_else(|| BadReference(text.to_owned()))
    }

    fn read(text: &str) -> Option<Reference> {
        if text.len() > NAME_BYTES_MAX {
            return None;
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let path_start = name.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match name[path_start..].rfind(':') {
            Some(colon) => (
                &name[..path_start + colon],
                Some(&name[path_start + colon + 1..]),
            ),
            None => (name, None),
        };
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(is_digest(digest).then(|| digest.to_owned())?),
            (None, Some(tag)) => Version::Tag(is_tag(tag).then(|| tag.to_owned())?),
            (None, None) => Version::Tag("latest".to_owned()),
        };
        Some(Reference {
            repository: complete(repository)?,
            version,
        })
    }

    /// The repository with `digest`, as container statuses show it.
    pub fn at(&self, digest: &str) -> String {
        format!("{}@{digest}", self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Version::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

/// Adds the registry that is meant where none is named.
fn complete(repository: &str) -> Option<String> {
    let (registry, path) = match repository.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first != first.to_lowercase() =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, repository),
    };
    let registry = if registry == "index.docker.io" {
        DEFAULT_REGISTRY
    } else {
        registry
    };
    let proper = registry.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && !registry.ends_with(':');
    if !proper || !registry.bytes().all(is_registry_byte) || !path.split('/').all(is_path_part) {
        return None;
    }
    Some(if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("{registry}/library/{path}")
    } else {
        format!("{registry}/{path}")
    })
}

fn is_registry_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
}

fn is_path_part(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && part.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Only SHA-256: it is what everybody uses, and each further kind would be one more way to name one content.
pub(super) fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, complete: &str) {
        let shown = Reference::parse(text).map_or_else(|_| "bad".to_owned(), |r| r.to_string());
        assert_eq!(shown, complete, "{text}");
    }

    #[test]
    fn names_are_completed() {
        check("web", "docker.io/library/web:latest");
        check("web:1.2", "docker.io/library/web:1.2");
        check("meshgate/meshgate", "docker.io/meshgate/meshgate:latest");
        check("docker.io/web", "docker.io/library/web:latest");
        check("index.docker.io/web", "docker.io/library/web:latest");
        check("localhost/web", "localhost/web:latest");
        check("localhost:5000/a/b:x", "localhost:5000/a/b:x");
        check("ghcr.io/a/b", "ghcr.io/a/b:latest");
        let digest = format!("sha256:{}", "a".repeat(64));
        check(
            &format!("web:1@{digest}"),
            &format!("docker.io/library/web@{digest}"),
        );
        for bad in [
            "",
            ":",
            "web:",
            "Web",
            "a//b",
            "../a",
            "a/../b",
            "web@sha256:12",
            "a b",
            "web:/x",
            "web@",
            "-a",
            "host.io/",
        ] {
            check(bad, "bad");
        }
    }
}
