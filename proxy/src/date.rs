//! The time of day as answers and records say it: the larger part is written once a second, not once an answer.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use meshgate_codec::{Fields, Known};

use crate::headers::set;

/// Says the time of an answer that does not say it (RFC 9110 §6.6.1).
pub(crate) fn tell(fields: &mut Fields) {
    if !fields.contains(Known::Date) {
        with_now(|now| set(fields, Known::Date, now));
    }
}

fn with_now<T>(call: impl FnOnce(&[u8]) -> T) -> T {
    thread_local! {
        static LATEST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    // Before 1970 every answer is from 1970.
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    LATEST.with_borrow_mut(|(second, text)| {
        if *second != seconds || text.is_empty() {
            *second = seconds;
            *text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
        }
        call(text.as_bytes())
    })
}

/// Writes the time in UTC with microseconds, as RFC 3339 has it.
pub(crate) fn write_timestamp(out: &mut Vec<u8>) {
    thread_local! {
        static LATEST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    LATEST.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            *second = since.as_secs();
            let whole = i64::try_from(*second).unwrap_or(i64::MAX);
            let written = jiff::Timestamp::from_second(whole).unwrap_or_default();
            *text = written.to_string();
            text.truncate(text.trim_end_matches('Z').len());
        }
        out.extend_from_slice(text.as_bytes());
    });
    let mut fraction = *b".000000Z";
    let mut micros = since.subsec_micros();
    for digit in fraction[1..7].iter_mut().rev() {
        *digit = b'0' + (micros % 10) as u8;
        micros /= 10;
    }
    out.extend_from_slice(&fraction);
}
