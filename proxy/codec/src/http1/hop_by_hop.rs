//! What concerns one connection only, and what may not come behind a body.

use thiserror::Error;

use crate::fields::{Field, Fields, Known, KnownSet, Name, elements};

/// What was learned from fields that are gone.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stripped {
    /// `TE: trailers`: the peer reads trailers.
    pub takes_trailers: bool,
}

/// `Connection` has more than 64 options. Each costs a look at all fields, and nobody has a use for that many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("too many connection options")]
pub struct TooManyOptions;

const OPTIONS_MAX: usize = 64;

/// Never forwarded (RFC 9110 §7.6.1).
pub(crate) const HOP_BY_HOP: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// What a peer cannot have removed by naming it in `Connection`: removing these would change what the next server
/// believes about the message or its sender.
const PROTECTED: KnownSet = KnownSet::of(&[
    Known::Authorization,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentLength,
    Known::ContentRange,
    Known::ContentType,
    Known::Cookie,
    Known::Forwarded,
    Known::Host,
    Known::MeshgateDest,
    Known::MeshgateReason,
    Known::SetCookie,
    Known::Traceparent,
    Known::Tracestate,
    Known::XForwardedClientCert,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedProto,
    Known::XRealIp,
    Known::XRequestId,
]);

/// Whole families are protected, those of tomorrow as well.
const PROTECTED_PREFIXES: [&[u8]; 3] = [b"content-", b"meshgate-", b"x-forwarded-"];

/// What trailers may not say: it was decided from the head (RFC 9110 §6.5.1).
const NOT_BEHIND: KnownSet = HOP_BY_HOP.and(PROTECTED).and(KnownSet::of(&[
    Known::Age,
    Known::Date,
    Known::Expect,
    Known::Expires,
    Known::IfMatch,
    Known::IfModifiedSince,
    Known::IfNoneMatch,
    Known::IfRange,
    Known::IfUnmodifiedSince,
    Known::Location,
    Known::MaxForwards,
    Known::Pragma,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::Range,
    Known::RetryAfter,
    Known::Trailer,
    Known::Vary,
    Known::Via,
    Known::WwwAuthenticate,
]));

/// Removes what concerns one connection only, and what `Connection` names. Whoever needs `Upgrade` reads it before.
pub fn strip_hop_by_hop(fields: &mut Fields) -> Result<Stripped, TooManyOptions> {
    let present = fields.present();
    if !present.meets(HOP_BY_HOP) {
        return Ok(Stripped::default());
    }
    let stripped = Stripped {
        takes_trailers: present.has(Known::Te) && fields.has_token(Known::Te, "trailers"),
    };
    let (known, others) = named(fields)?;
    fields.remove_all(HOP_BY_HOP.and(known));
    for name in others {
        fields.remove(name.as_str());
    }
    Ok(stripped)
}

/// What `Connection` names and may: known names, and others that are there. Usually there are none of these.
fn named(fields: &Fields) -> Result<(KnownSet, Vec<String>), TooManyOptions> {
    let mut known = KnownSet::EMPTY;
    let mut others = Vec::new();
    let options = fields.all(Known::Connection).flat_map(elements);
    for (index, option) in options.enumerate() {
        if index >= OPTIONS_MAX {
            return Err(TooManyOptions);
        }
        let Ok(text) = std::str::from_utf8(option) else {
            continue;
        };
        match Name::from(text) {
            Name::Known(name) if PROTECTED.has(name) => {}
            Name::Known(name) => known.insert(name),
            other if fields.contains(other) && !is_protected(option) => {
                others.push(text.to_owned());
            }
            Name::Other(_) => {}
        }
    }
    Ok((known, others))
}

/// Removes what trailers may not say.
pub fn clean_trailers(trailers: &mut Fields) {
    trailers.retain(|Field { name, known, .. }| match known {
        Some(known) => !NOT_BEHIND.has(known),
        None => !is_protected(name),
    });
}

fn is_protected(name: &[u8]) -> bool {
    PROTECTED_PREFIXES.iter().any(|prefix| {
        name.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        let mut fields = Fields::default();
        for line in text.split('|') {
            let (name, value) = line.split_once('=').expect("name=value");
            fields.append(name, value.as_bytes()).expect(line);
        }
        fields
    }

    fn names(fields: &Fields) -> String {
        let names: Vec<_> = fields
            .iter()
            .map(|field| String::from_utf8_lossy(field.name).into_owned())
            .collect();
        names.join(" ")
    }

    fn check(text: &str, left: &str, takes_trailers: bool) {
        let mut fields = fields(text);
        let stripped = strip_hop_by_hop(&mut fields);
        assert_eq!(stripped, Ok(Stripped { takes_trailers }), "{text}");
        assert_eq!(names(&fields), left, "{text}");
    }

    #[test]
    fn connection_fields_go_but_protected_ones_stay() {
        check("a=1|host=b", "a host", false);
        check(
            "connection=close, X-Secret, x-forwarded-for, AUTHORIZATION|x-secret=1|x-forwarded-for=1.1.1.1|\
             authorization=x|transfer-encoding=chunked|te=Trailers|keep-alive=timeout=5|X-SECRET=2",
            "x-forwarded-for authorization",
            true,
        );
        check(
            "connection=via|connection=,, accept ,|via=1|accept=2|a=3",
            "a",
            false,
        );
        check(
            "connection=keep-alive|upgrade=x|http2-settings=y|proxy-connection=z|trailer=t",
            "trailer",
            false,
        );
        check("te=gzip, trailers;q=1", "", false);
        let kept = "host=1|content-length=1|content-language=1|meshgate-other=1|x-forwarded-proto=1|x-forwarded-new=1|\
                    cookie=1|forwarded=1|traceparent=1";
        let listed = kept.replace("=1|", ",").replace("=1", "");
        check(
            &format!("{kept}|connection={listed}"),
            &listed.replace(',', " "),
            false,
        );
    }

    #[test]
    fn options_have_a_limit() {
        let mut many = fields(&format!("connection={}", "a,".repeat(64)));
        assert!(strip_hop_by_hop(&mut many).is_ok());
        let mut more = fields(&format!("connection={}|connection=b", "a,".repeat(64)));
        assert_eq!(strip_hop_by_hop(&mut more), Err(TooManyOptions));
    }

    #[test]
    fn trailers_tell_nothing_that_was_decided() {
        let mut trailers = fields(
            "Grpc-Status=0|content-length=1|Transfer-Encoding=x|HOST=x|authorization=x|cookie=x|set-cookie=x|trailer=x|te=x|\
             connection=x|content-encoding=x|content-type=x|content-range=x|content-other=x|forwarded=x|x-forwarded-for=x|\
             x-forwarded-new=x|x-real-ip=x|x-request-id=x|meshgate-dest=x|meshgate-other=x|cache-control=x|expect=x|\
             max-forwards=x|if-match=x|etag=x|x-forwarded-client-cert=x|traceparent=x|www-authenticate=x|x-own=y",
        );
        clean_trailers(&mut trailers);
        assert_eq!(names(&trailers), "grpc-status etag x-own");
    }
}
