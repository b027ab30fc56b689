//! Texts into documents, each with the place where it is written. Pure.

use serde_json::Value;

/// One document of a file.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// Where in its file a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Of its first line, from 1.
    pub(super) line: usize,
    /// From 1; empty documents do not count.
    pub(super) number: usize,
}

/// A document that cannot be read.
#[derive(Debug, PartialEq)]
pub(super) struct Unreadable {
    pub(super) at: Position,
    pub(super) why: String,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Yaml,
    Json,
}

/// The documents of a text, in order. Of JSON nothing is read after an error: nobody knows where the next one begins.
pub(super) fn documents(syntax: Syntax, text: &str) -> Vec<Result<Document, Unreadable>> {
    match syntax {
        Syntax::Yaml => yaml(text),
        Syntax::Json => json(text),
    }
}

fn yaml(text: &str) -> Vec<Result<Document, Unreadable>> {
    let pieces = pieces(text).into_iter().filter_map(|piece| {
        let lines = piece.text.lines().take_while(|line| !has_content(line));
        let blank = lines.count();
        (blank < piece.text.lines().count()).then_some((piece.line + blank, piece))
    });
    pieces
        .enumerate()
        .map(|(index, (line, piece))| {
            let at = Position {
                line,
                number: index + 1,
            };
            match parse(piece.text) {
                Ok(value) => Ok(Document { at, value }),
                Err(_) => Err(Unreadable {
                    at,
                    why: complaint(&piece),
                }),
            }
        })
        .collect()
}

/// By way of YAML's own values: they do not take a key twice.
fn parse(text: &str) -> Result<Value, String> {
    let value: serde_norway::Value =
        serde_norway::from_str(text).map_err(|error| error.to_string())?;
    serde_json::to_value(value).map_err(|error| error.to_string())
}

/// What is wrong with a piece, with the lines of the whole file: those before it are blank to the parser.
fn complaint(piece: &Piece<'_>) -> String {
    let padded = "\n".repeat(piece.line - 1) + piece.text;
    parse(&padded).err().unwrap_or_default()
}

struct Piece<'t> {
    /// Its first line, from 1.
    line: usize,
    text: &'t str,
}

/// `---` and `...` at the start of a line end a document wherever they are (YAML 1.2, c-forbidden).
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut from, mut first, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line) && offset > from {
            pieces.push(Piece {
                line: first,
                text: &text[from..offset],
            });
            (from, first) = (offset, index + 1);
        }
        offset += line.len();
    }
    pieces.push(Piece {
        line: first,
        text: &text[from..],
    });
    pieces
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---").or(line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t']))
}

/// Neither blank, comment, directive nor a marker alone.
fn has_content(line: &str) -> bool {
    let rest = if is_marker(line) { &line[3..] } else { line };
    let rest = rest.trim_start_matches('\u{feff}').trim();
    !rest.is_empty() && !rest.starts_with('#') && !line.starts_with('%')
}

fn json(text: &str) -> Vec<Result<Document, Unreadable>> {
    let mut documents = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    loop {
        let from = values.byte_offset();
        let blank = text[from..].len() - text[from..].trim_start().len();
        let at = Position {
            line: 1 + text[..from + blank].matches('\n').count(),
            number: documents.len() + 1,
        };
        match values.next() {
            None => return documents,
            Some(Ok(value)) => documents.push(Ok(Document { at, value })),
            Some(Err(error)) => {
                let why = error.to_string();
                documents.push(Err(Unreadable { at, why }));
                return documents;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents as `LINE/NUMBER VALUE`, or what is wrong with them.
    #[track_caller]
    fn check(syntax: Syntax, text: &str, expected: &[&str]) {
        let shown: Vec<String> = documents(syntax, text)
            .into_iter()
            .map(|document| match document {
                Ok(Document { at, value }) => format!("{}/{} {value}", at.line, at.number),
                Err(Unreadable { at, why }) => format!("{}/{} ! {why}", at.line, at.number),
            })
            .collect();
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn documents_have_lines_and_numbers() {
        check(Syntax::Yaml, "", &[]);
        check(Syntax::Yaml, "# nothing\n---\n---\n# here\n", &[]);
        check(Syntax::Yaml, "a: 1\n", &["1/1 {\"a\":1}"]);
        check(
            Syntax::Yaml,
            "%YAML 1.2\n---\n# first\na: 1\n---\n\n--- {b: 2}\n...\n--- # third\n\nc: |\n  ---\n  x\n",
            &[
                "4/1 {\"a\":1}",
                "7/2 {\"b\":2}",
                "11/3 {\"c\":\"---\\nx\\n\"}",
            ],
        );
        check(
            Syntax::Json,
            " {\"a\": 1}\n\n{\"b\": 2}\n",
            &["1/1 {\"a\":1}", "3/2 {\"b\":2}"],
        );
    }

    #[test]
    fn errors_have_the_lines_of_the_file() {
        check(
            Syntax::Yaml,
            "a: 1\n---\nb: 2\nc: [\n---\nd: 1\nd: 2\n---\ne: 5\n",
            &[
                "1/1 {\"a\":1}",
                "3/2 ! did not find expected node content at line 5 column 1, while parsing a flow node",
                "6/3 ! duplicate entry with key \"d\" at line 6 column 1",
                "9/4 {\"e\":5}",
            ],
        );
        check(
            Syntax::Json,
            "{}\n{\"a\": }",
            &["1/1 {}", "2/2 ! expected value at line 2 column 7"],
        );
    }
}
