//! Media types: what a client accepts, and what it sent.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use meshgate_schema::{Failure, Media};

pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const AVAILABLE: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf, \
     application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

/// Into which view of an object an answer is turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The object or list itself.
    Whole,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `PartialObjectMetadata` or its list.
    Metadata,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) encoding: Media,
    pub(crate) shape: Shape,
    /// Indented, for people.
    pub(crate) pretty: bool,
}

impl Format {
    /// What failures fall back to when the client accepts nothing that we have.
    pub(crate) const JSON: Format = Format {
        encoding: Media::Json,
        shape: Shape::Whole,
        pretty: false,
    };

    pub(crate) fn content_type(self) -> &'static str {
        match self.encoding {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => PROTOBUF,
        }
    }
}

/// One clause of an Accept header.
struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// Thousandths.
    quality: u16,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Clause<'a> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut parameters: Vec<(&str, &str)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let mut quality = 1000;
        parameters.retain(|(name, value)| {
            if *name == "q" {
                // A weight that is no number counts as the highest.
                let weight: f32 = value.parse().unwrap_or(1.0);
                quality = (weight.clamp(0.0, 1.0) * 1000.0).round() as u16;
            }
            *name != "q"
        });
        Clause {
            media,
            parameters,
            quality,
        }
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        let found = self.parameters.iter().find(|(n, _)| *n == name);
        found.map(|(_, value)| *value)
    }

    fn encoding(&self, protobuf: bool) -> Option<Media> {
        match self.media {
            "application/json" | "*/*" | "application/*" => Some(Media::Json),
            "application/yaml" => Some(Media::Yaml),
            PROTOBUF if protobuf => Some(Media::Protobuf),
            _ => None,
        }
    }

    fn shape(&self) -> Option<Shape> {
        let Some(view) = self.parameter("as") else {
            return Some(Shape::Whole);
        };
        let ours = self.parameter("g") == Some("meta.k8s.io");
        match (view, self.parameter("v")) {
            ("Table", Some("v1" | "v1beta1")) if ours => Some(Shape::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", Some("v1" | "v1beta1"))
                if ours =>
            {
                Some(Shape::Metadata)
            }
            _ => None,
        }
    }
}

/// The clauses of the Accept header, the client's favourite first.
fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut clauses: Vec<Clause<'_>> = values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
        .map(Clause::parse)
        .filter(|clause| clause.quality > 0)
        .collect();
    clauses.sort_by_key(|clause| std::cmp::Reverse(clause.quality));
    clauses
}

/// Chooses the format of an answer; `protobuf`: whether the kind has that form.
pub(crate) fn negotiate(
    headers: &HeaderMap,
    pretty: Option<&str>,
    protobuf: bool,
) -> Result<Format, Failure> {
    let pretty = match pretty {
        Some(value) => !matches!(value, "false" | "0"),
        None => is_for_people(headers),
    };
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Format {
            pretty,
            ..Format::JSON
        });
    }
    let chosen = clauses.iter().find_map(|clause| {
        let encoding = clause.encoding(protobuf)?;
        let shape = clause.shape()?;
        Some(Format {
            encoding,
            shape,
            pretty,
        })
    });
    chosen.ok_or_else(|| {
        Failure::not_acceptable(format!(
            "406: Not Acceptable\n\nAvailable representations: {AVAILABLE}"
        ))
    })
}

/// Browsers and curl show answers to people.
fn is_for_people(headers: &HeaderMap) -> bool {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|start| agent.starts_with(start))
}

/// Which discovery document a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// One list per group version.
    Legacy,
    /// Everything in one document of `apidiscovery.k8s.io/v2`; its beta version is gone since 1.36.
    V2,
}

/// The client's favourite among the discovery documents we have.
pub(crate) fn discovery(headers: &HeaderMap) -> Discovery {
    let choice = clauses(headers).into_iter().find_map(|clause| {
        clause.encoding(false)?;
        match (
            clause.parameter("as"),
            clause.parameter("g"),
            clause.parameter("v"),
        ) {
            (None, _, _) => Some(Discovery::Legacy),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                Some(Discovery::V2)
            }
            _ => None,
        }
    });
    choice.unwrap_or(Discovery::Legacy)
}

/// Whether the client would take this exact media type before JSON.
pub(crate) fn prefers(headers: &HeaderMap, media: &str) -> bool {
    let first = clauses(headers)
        .into_iter()
        .find(|clause| clause.media == media || clause.encoding(false).is_some());
    first.is_some_and(|clause| clause.media == media)
}

/// The media type of a request's body, without parameters; empty if it has none.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// How a request's body is written; JSON if it does not say.
pub(crate) fn body_media(headers: &HeaderMap) -> Result<Media, Failure> {
    match content_type(headers) {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        PROTOBUF => Ok(Media::Protobuf),
        _ => Err(Failure::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, protobuf: bool, expected: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header value"));
        let got = match negotiate(&headers, None, protobuf) {
            Ok(format) => format!("{:?} {:?}", format.encoding, format.shape),
            Err(failure) => failure.code.to_string(),
        };
        assert_eq!(got, expected, "{accept}");
    }

    #[test]
    fn accepts() {
        check("application/json", true, "Json Whole");
        check("text/csv", true, "406");
        check(
            "text/html,application/json;q=0.9,*/*;q=0.8",
            true,
            "Json Whole",
        );
        check(
            "application/vnd.kubernetes.protobuf,application/json",
            true,
            "Protobuf Whole",
        );
        check(
            "application/vnd.kubernetes.protobuf,application/json",
            false,
            "Json Whole",
        );
        check("application/vnd.kubernetes.protobuf", false, "406");
        check(
            "application/json;q=0.1,application/yaml",
            true,
            "Yaml Whole",
        );
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            true,
            "Json Table",
        );
        check(
            "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
            true,
            "Json Whole",
        );
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            true,
            "Json Metadata",
        );
        check("application/json;q=0", true, "Json Whole");
    }
}
