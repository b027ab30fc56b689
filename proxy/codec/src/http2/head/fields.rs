//! The fields of a head, judged and counted one by one as they are decoded.

use super::{BadHead, Malformed};
use crate::fields::{Fields, Known, KnownSet};
use crate::http1::{HeadLimits, OverLimit};
use crate::http2::hpack::{Decoded, Kind, Pseudo, size};

/// A head of which ever more comes in.
pub(super) struct Reading<'l> {
    limits: &'l HeadLimits,
    fields: Fields,
    /// As RFC 9113 §6.5.2 counts.
    bytes: usize,
    /// Crumbs of cookies are joined (RFC 9113 §8.2.3).
    joins_cookies: bool,
    /// The first reason to refuse the head. Nothing is kept from there on.
    bad: Option<BadHead>,
}

/// HTTP/2 has frames for what they say (RFC 9113 §8.2.2).
const FORBIDDEN: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
]);
/// What most fields are not.
const SPECIAL: KnownSet = FORBIDDEN.and(KnownSet::of(&[Known::Te, Known::Cookie]));

/// How much is made ready, so that most fit without growing.
#[derive(Clone, Copy)]
pub(super) struct Room {
    lines: usize,
    fields: usize,
}

/// Of a head, with what is added to it later.
pub(super) const HEAD: Room = Room {
    lines: 1024,
    fields: 20,
};
/// Of trailers, such as those of gRPC.
pub(super) const TRAILERS: Room = Room {
    lines: 128,
    fields: 4,
};

impl<'l> Reading<'l> {
    pub(super) fn new(limits: &'l HeadLimits, room: Room, joins_cookies: bool) -> Self {
        Self {
            limits,
            fields: Fields::with_room(room.lines, room.fields),
            bytes: 0,
            joins_cookies,
            bad: None,
        }
    }

    /// Takes a field; whether a pseudo-field belongs here says `pseudo`.
    #[inline]
    pub(super) fn take(
        &mut self,
        field: Decoded<'_>,
        pseudo: impl FnOnce(Pseudo, &[u8]) -> Result<(), BadHead>,
    ) {
        if self.bad.is_none()
            && let Err(bad) = self.judge(field, pseudo)
        {
            self.bad = Some(bad);
            self.fields = Fields::default();
        }
    }

    /// The fields of a head that is not refused.
    pub(super) fn finish(self) -> Result<Fields, BadHead> {
        let mut fields = self.fields;
        match self.bad {
            Some(bad) => return Err(bad),
            None if self.joins_cookies && fields.contains(Known::Cookie) => {
                join_cookies(&mut fields, self.limits)?;
            }
            None => {}
        }
        Ok(fields)
    }

    fn judge(
        &mut self,
        field: Decoded<'_>,
        pseudo: impl FnOnce(Pseudo, &[u8]) -> Result<(), BadHead>,
    ) -> Result<(), BadHead> {
        self.bytes += size(field.name_length, field.value_length());
        if self.bytes > self.limits.head_bytes_max {
            return Err(OverLimit::Head.into());
        }
        let known = match field.kind {
            Kind::Pseudo(kind) => {
                if !self.fields.is_empty() {
                    return Err(Malformed::LatePseudo.into());
                }
                return pseudo(kind, field.value());
            }
            Kind::Malformed if field.name().first() == Some(&b':') => {
                return Err(Malformed::Pseudo.into());
            }
            Kind::Malformed => return Err(Malformed::FieldName.into()),
            Kind::Known(known) => Some(known),
            Kind::Other => None,
        };
        if !field.clean {
            return Err(Malformed::FieldValue.into());
        }
        match known {
            Some(known) if SPECIAL.has(known) => self.special(known, field),
            _ => self.append(known, field),
        }
    }

    fn special(&mut self, known: Known, field: Decoded<'_>) -> Result<(), BadHead> {
        match known {
            Known::Te if field.value().eq_ignore_ascii_case(b"trailers") => {}
            Known::Te => return Err(Malformed::Te.into()),
            // Crumbs usually follow one another.
            Known::Cookie if self.joins_cookies => {
                let joined = self.fields.lengthen_last(known, b"; ", field.value());
                if joined.map_err(|_| OverLimit::Field)? {
                    return Ok(());
                }
            }
            Known::Cookie => {}
            _ => return Err(Malformed::ConnectionField.into()),
        }
        self.append(Some(known), field)
    }

    #[inline]
    fn append(&mut self, known: Option<Known>, field: Decoded<'_>) -> Result<(), BadHead> {
        // Without the end of the line.
        if field.line.len() - 2 > self.limits.field_bytes_max {
            return Err(OverLimit::Field.into());
        }
        if self.fields.len() >= self.limits.fields_max {
            return Err(OverLimit::Fields.into());
        }
        self.fields
            .append_whole(field.line, field.name_length, known, field.never_indexed)?;
        Ok(())
    }
}

/// Joins what came in pieces, and judges what joining made.
fn join_cookies(fields: &mut Fields, limits: &HeadLimits) -> Result<(), BadHead> {
    if fields.count(Known::Cookie) > 1 {
        let crumbs: Vec<&[u8]> = fields.all(Known::Cookie).collect();
        let joined = crumbs.join(&b"; "[..]);
        fields.set(Known::Cookie, &joined)?;
    }
    let length = fields.get(Known::Cookie).map_or(0, <[u8]>::len);
    match "cookie: ".len() + length > limits.field_bytes_max {
        true => Err(OverLimit::Field.into()),
        false => Ok(()),
    }
}
