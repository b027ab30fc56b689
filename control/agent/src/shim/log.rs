//! The container's log in the CRI's form: `TIME stdout|stderr F|P TEXT`, one line of output each; P marks a line that
//! goes on in the next. Rotated by size.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// A file is rotated when it has this size, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 10 << 20;
/// Files kept, the current one among them.
pub(super) const FILES_MAX: usize = 5;
/// A line longer than this is split, in bytes: the CRI's limit.
const LINE_BYTES_MAX: usize = 16 << 10;

/// One of the container's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// An open log.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    written: u64,
    /// Started lines of stdout and stderr.
    started: [Vec<u8>; 2],
    out: Vec<u8>,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Log> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = append(path)?;
        Ok(Log {
            path: path.to_owned(),
            written: file.metadata()?.len(),
            file,
            started: Default::default(),
            out: Vec::new(),
        })
    }

    /// Takes output as it came. Errors are swallowed: a full disk must not stop the container.
    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let time = timestamp(Timestamp::now());
        let started = &mut self.started[stream as usize];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while started.len() + text.len() > LINE_BYTES_MAX {
                let (head, tail) = text.split_at(LINE_BYTES_MAX - started.len());
                started.extend_from_slice(head);
                line(&mut self.out, &time, stream, 'P', started);
                started.clear();
                text = tail;
            }
            if ended && started.is_empty() {
                line(&mut self.out, &time, stream, 'F', text);
                continue;
            }
            started.extend_from_slice(text);
            if ended {
                line(&mut self.out, &time, stream, 'F', started);
                started.clear();
            }
        }
        self.flush();
    }

    /// The stream has ended: a started line is all there will be of it.
    pub(super) fn end(&mut self, stream: Stream) {
        let started = std::mem::take(&mut self.started[stream as usize]);
        if !started.is_empty() {
            let time = timestamp(Timestamp::now());
            line(&mut self.out, &time, stream, 'F', &started);
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        if self.written > 0 && self.written + self.out.len() as u64 > FILE_BYTES_MAX {
            self.rotate();
        }
        if self.file.write_all(&self.out).is_ok() {
            self.written += self.out.len() as u64;
        }
        self.out.clear();
        // A burst must not keep its memory: there is one shim for each container.
        self.out.shrink_to(LINE_BYTES_MAX);
    }

    /// Where a step fails, logging goes on in the current file and the next output tries again.
    fn rotate(&mut self) {
        let suffix = Timestamp::now().strftime("%Y%m%d-%H%M%S.%6f").to_string();
        let mut aside = self.path.as_os_str().to_owned();
        aside.push(".");
        aside.push(suffix);
        if fs::rename(&self.path, &aside).is_err() {
            return;
        }
        if let Ok(file) = append(&self.path) {
            self.file = file;
            self.written = 0;
        }
        let rotated = rotated(&self.path);
        for old in rotated.iter().rev().skip(FILES_MAX - 1) {
            let _ = fs::remove_file(old);
        }
    }
}

/// Files that were rotated away, oldest first.
pub(crate) fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with(&prefix))
        })
        .map(|entry| entry.path())
        .collect();
    // The suffix is a time, so names sort by age.
    files.sort();
    files
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

fn line(out: &mut Vec<u8>, time: &str, stream: Stream, tag: char, text: &[u8]) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{time} {} {tag} ", stream.name());
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// RFC 3339 with all nine digits, so that lines sort.
fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(writes: &[(Stream, &str)], lines: &[&str]) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        let mut log = Log::open(&path).expect("a log");
        for (stream, text) in writes {
            log.write(*stream, text.as_bytes());
        }
        log.end(Stream::Stdout);
        log.end(Stream::Stderr);
        let text = fs::read_to_string(&path).expect("the log");
        let shown: Vec<&str> = text
            .lines()
            .map(|line| line.split_once(' ').expect("a time").1)
            .collect();
        assert_eq!(shown, lines);
    }

    #[test]
    fn output_becomes_lines() {
        use Stream::{Stderr, Stdout};
        check(&[(Stdout, "a\nb\n")], &["stdout F a", "stdout F b"]);
        check(&[(Stdout, "a"), (Stdout, "b\n")], &["stdout F ab"]);
        check(
            &[(Stdout, "a"), (Stderr, "x\n"), (Stdout, "b")],
            &["stderr F x", "stdout F ab"],
        );
        check(&[(Stdout, "\n\n")], &["stdout F ", "stdout F "]);
        let long = "x".repeat(LINE_BYTES_MAX + 3);
        let head = format!("stdout P {}", "x".repeat(LINE_BYTES_MAX));
        check(&[(Stdout, &format!("{long}\n"))], &[&head, "stdout F xxx"]);
    }

    #[test]
    fn files_are_rotated_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        let mut log = Log::open(&path).expect("a log");
        let line = format!("{}\n", "x".repeat(8 << 10)).repeat(128);
        for _ in 0..80 {
            log.write(Stream::Stdout, line.as_bytes());
        }
        assert_eq!(rotated(&path).len(), FILES_MAX - 1);
        let size = fs::metadata(&path).expect("the log").len();
        assert!(size <= FILE_BYTES_MAX, "{size}");
    }
}
