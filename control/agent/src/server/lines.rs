//! Lines of container logs: read, chosen, shown.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::shim::log_files;

/// Bytes read at once while looking for the start of a tail.
const BLOCK_BYTES: u64 = 16 << 10;

/// Which lines are wanted and how they are shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Lines from this time on, in the log's own form of times.
    pub(super) since: Option<String>,
    pub(super) timestamps: bool,
}

/// Shows one line of a log file, without its newline; `fresh` tells whether it starts a line of output, and is kept for
/// the next.
pub(super) fn show(line: &[u8], wanted: &Wanted, fresh: &mut bool, out: &mut Vec<u8>) {
    let Some((time, whole, text)) = parse(line) else {
        return;
    };
    if wanted
        .since
        .as_deref()
        .is_some_and(|since| time < since.as_bytes())
    {
        return;
    }
    if wanted.timestamps && *fresh {
        out.extend_from_slice(time);
        out.push(b' ');
    }
    out.extend_from_slice(text);
    if whole {
        out.push(b'\n');
    }
    *fresh = whole;
}

/// Time, whether the line of output ends here, and its text.
fn parse(line: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (time, _stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((time, tag != b"P", text))
}

/// The files of a log, oldest first.
pub(super) fn files(log: &Path) -> Vec<PathBuf> {
    let mut files = log_files(log);
    files.push(log.to_owned());
    files
}

/// Where reading starts for the last `lines`: a file of `files` and an offset in it.
pub(super) fn tail_start(files: &[PathBuf], lines: u64) -> io::Result<(usize, u64)> {
    let mut left = lines;
    for (at, path) in files.iter().enumerate().rev() {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if left == 0 {
            let end = file.metadata()?.len();
            return Ok((at, end));
        }
        match last_lines(&mut file, left)? {
            Found::Start(offset) => return Ok((at, offset)),
            Found::Only(count) => left -= count,
        }
    }
    Ok((0, 0))
}

enum Found {
    /// The wanted lines begin here.
    Start(u64),
    /// The file has only so many.
    Only(u64),
}

fn last_lines(file: &mut File, lines: u64) -> io::Result<Found> {
    let end = file.metadata()?.len();
    let mut count = 0;
    let mut at = end;
    while at > 0 {
        let size = BLOCK_BYTES.min(at);
        at -= size;
        file.seek(SeekFrom::Start(at))?;
        let mut block = vec![0; usize::try_from(size).unwrap_or_default()];
        file.read_exact(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            let offset = at + index as u64;
            // The newline at the very end ends the last line, it does not start one.
            if *byte == b'\n' && offset + 1 < end {
                count += 1;
                if count == lines {
                    return Ok(Found::Start(offset + 1));
                }
            }
        }
    }
    Ok(if end == 0 {
        Found::Only(0)
    } else if count + 1 == lines {
        Found::Start(0)
    } else {
        Found::Only(count + 1)
    })
}

/// The end of a log's text: what a container that said nothing about its end is quoted with.
pub(crate) fn tail(log: &Path, bytes_max: usize) -> String {
    let content = fs::read(log).unwrap_or_default();
    let mut out = Vec::new();
    let mut fresh = true;
    // Twice as much of the file as of the text: lines carry times.
    let from = content.len().saturating_sub(bytes_max * 2);
    for line in content[from..].split(|byte| *byte == b'\n') {
        show(line, &Wanted::default(), &mut fresh, &mut out);
    }
    let from = out.len().saturating_sub(bytes_max);
    String::from_utf8_lossy(&out[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown() {
        let check = |lines: &[&str], wanted: Wanted, text: &str| {
            let (mut out, mut fresh) = (Vec::new(), true);
            for line in lines {
                show(line.as_bytes(), &wanted, &mut fresh, &mut out);
            }
            assert_eq!(String::from_utf8_lossy(&out), text);
        };
        let lines = [
            "T1 stdout F a b",
            "T2 stderr P x",
            "T3 stderr F y",
            "T4 stdout F ",
            "damaged",
        ];
        check(&lines, Wanted::default(), "a b\nxy\n\n");
        let timestamps = Wanted {
            timestamps: true,
            ..Wanted::default()
        };
        check(&lines, timestamps, "T1 a b\nT2 xy\nT4 \n");
        let since = Wanted {
            since: Some("T3".to_owned()),
            ..Wanted::default()
        };
        check(&lines, since, "y\n\n");
    }

    #[test]
    fn tails_reach_over_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let old = dir.path().join("0.log.1");
        let new = dir.path().join("0.log");
        fs::write(&old, "1\n2\n3\n").expect("written");
        fs::write(&new, "4\n5\n").expect("written");
        let files = [old, new];
        for (lines, start) in [
            (0, (1, 4)),
            (1, (1, 2)),
            (2, (1, 0)),
            (3, (0, 4)),
            (5, (0, 0)),
            (9, (0, 0)),
        ] {
            assert_eq!(
                tail_start(&files, lines).expect("readable"),
                start,
                "{lines}"
            );
        }
    }
}
