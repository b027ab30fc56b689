//! Lines on standard output: the log of a container. Tests of gateways read them.

use std::fmt;
use std::io::Write as _;

/// Writes one line; whoever closed standard output does not want it.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
