//! Regular expressions of rules.

use std::hash::{Hash, Hasher};

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

/// A regular expression, compiled. It matches a text as a whole or not at all.
///
/// Its syntax is that of the `regex` crate, without backtracking: time grows with text times expression and no faster.
/// Classes such as `\d` and `\w`, `.` and `(?i)` know ASCII only, as RE2's do; `(?u)` asks for Unicode.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    whole: Regex,
}

/// Why a text is no regular expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternProblem {
    /// More than can be read.
    #[error("the regular expression is {0} bytes long, more than {PATTERN_MAX_BYTES}")]
    TooLong(usize),
    /// Repeats too much.
    #[error(
        "the regular expression takes more than {COMPILED_MAX_BYTES} bytes when compiled: repeat less of it"
    )]
    TooLarge,
    /// Not understood.
    #[error("no regular expression: {0}")]
    Syntax(String),
}

/// As long as a path of Gateway API.
const PATTERN_MAX_BYTES: usize = 1024;
/// Enough for hundreds of alternatives; a text is never held against more states than fit.
const COMPILED_MAX_BYTES: usize = 64 * 1024;
/// What each thread may remember of texts that it saw, for each expression.
const CACHE_MAX_BYTES: usize = 128 * 1024;

impl Pattern {
    /// Compiles an expression.
    pub fn new(text: &str) -> Result<Self, PatternProblem> {
        if text.len() > PATTERN_MAX_BYTES {
            return Err(PatternProblem::TooLong(text.len()));
        }
        // First alone: `a)|(b` must not become one by what is put around it.
        compiled(text)?;
        Ok(Self {
            whole: compiled(&format!(r"\A(?:{text})\z"))?,
            text: text.into(),
        })
    }

    /// As configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.whole.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

fn compiled(text: &str) -> Result<Regex, PatternProblem> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(COMPILED_MAX_BYTES)
        .dfa_size_limit(CACHE_MAX_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => PatternProblem::TooLarge,
            other => PatternProblem::Syntax(reason(&other.to_string())),
        })
}

/// The library draws where the error is, over several lines; its last line says what it is.
fn reason(drawn: &str) -> String {
    let last = drawn.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Pattern, PatternProblem};

    fn check(pattern: &str, text: &str, expected: bool) {
        let compiled = Pattern::new(pattern).unwrap();
        assert_eq!(
            compiled.matches(text.as_bytes()),
            expected,
            "{pattern} against {text:?}"
        );
    }

    #[test]
    fn the_whole_text_matches_or_nothing() {
        check("/v[0-9]+/.*", "/v2/things", true);
        check("/v[0-9]+", "/v2/things", false);
        check("v2", "/v2", false);
        check("a|ab", "ab", true);
        check("a|b", "ab", false);
        check("(?m)a$", "a\nb", false);
        check("(?i)gold", "GOLD", true);
        check("", "", true);
        check(".*", "\u{e4}", true);
        check(r"\d", "\u{663}", false);
        check(r"(?u)\d", "\u{663}", true);
    }

    #[test]
    fn what_is_no_expression_or_too_large_a_one_is_refused() {
        let refused = |text: &str| Pattern::new(text).unwrap_err();
        assert_eq!(
            refused("(a"),
            PatternProblem::Syntax("unclosed group".into())
        );
        assert!(matches!(refused("a)|(b"), PatternProblem::Syntax(_)));
        assert!(matches!(refused("(?x)a #"), PatternProblem::Syntax(_)));
        assert_eq!(refused("(?:abcdefgh){1000}{9}"), PatternProblem::TooLarge);
        assert_eq!(refused(&"a".repeat(1025)), PatternProblem::TooLong(1025));
    }
}
