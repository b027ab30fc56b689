//! Go's net/http, in a process of its own that is started once (`fuzz/readers/go`).

use std::env;
use std::io::{self, Read as _, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::reading::{Field, Read, Reading};

/// Names the program.
const VARIABLE: &str = "MESHGATE_GO_READER";

struct Program {
    /// Ends when its input does.
    _child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

static PROGRAM: OnceLock<Option<Mutex<Program>>> = OnceLock::new();

fn program() -> Option<&'static Mutex<Program>> {
    let started = PROGRAM.get_or_init(|| env::var_os(VARIABLE).map(|path| Mutex::new(start(path))));
    started.as_ref()
}

fn start(path: std::ffi::OsString) -> Program {
    let mut child = Command::new(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{VARIABLE}={path:?} does not start: {error}"));
    let (to, from) = (child.stdin.take(), child.stdout.take());
    Program {
        _child: child,
        to: to.expect("it was asked for"),
        from: from.expect("it was asked for"),
    }
}

pub(super) fn is_there() -> bool {
    program().is_some()
}

/// Says so at once when the program is not there, instead of trying everything without it.
pub fn require() {
    assert!(
        is_there(),
        "{VARIABLE} must name the built fuzz/readers/go: see fuzz/README.md"
    );
}

pub(super) fn read(text: &[u8]) -> Read {
    let program = program().expect("asked only when it is there");
    let mut program = program.lock().unwrap_or_else(PoisonError::into_inner);
    program
        .read(text)
        .unwrap_or_else(|error| panic!("{VARIABLE} broke off at {}: {error}", text.escape_ascii()))
}

impl Program {
    fn read(&mut self, text: &[u8]) -> io::Result<Read> {
        self.to.write_all(&length(text.len()))?;
        self.to.write_all(text)?;
        self.to.flush()?;
        let refused = self.number()? != 0;
        let count = self.number()?;
        let readings = (0..count).map(|_| self.reading());
        let readings = readings.collect::<io::Result<Vec<_>>>()?;
        Ok(match refused && readings.is_empty() {
            true => Read::Refused,
            false => Read::Requests(readings),
        })
    }

    fn reading(&mut self) -> io::Result<Reading> {
        let (method, target, host) = (self.text()?, self.text()?, self.text()?);
        let mut fields = Vec::new();
        for _ in 0..self.number()? {
            let (name, value) = (self.text()?, self.bytes()?);
            fields.push(Field { name, value });
        }
        let body = self.bytes()?;
        Ok(Reading::new(
            &method,
            &target,
            &host,
            fields.into_iter(),
            body,
        ))
    }

    fn number(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4];
        self.from.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes) as usize)
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.number()?];
        self.from.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn text(&mut self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes)
        .expect("no input is so long")
        .to_be_bytes()
}
