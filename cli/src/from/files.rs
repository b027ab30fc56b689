//! Which files there are, and what to watch to hear of every change of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

/// More files than anybody writes: the path is probably not the one that was meant.
const FILES_MAX: usize = 20_000;
/// Largest file, in bytes: ten times the largest object of a cluster, for many of them in one.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// As the kernel follows.
const LINKS_MAX: usize = 40;

/// A file that was read.
#[derive(Debug)]
pub(super) struct Text {
    /// As a person would name it: below the path that was given.
    pub(super) path: PathBuf,
    pub(super) content: Result<String, String>,
}

/// What is told of what is read, before it is read: then no change is missed.
pub(super) trait Watcher {
    /// All files of a folder.
    fn folder(&mut self, folder: &Path);
    /// One name in a folder.
    fn name(&mut self, folder: &Path, name: &OsStr);
}

/// Reads the files of all paths, each once, in order of their paths.
pub(super) fn read(paths: &[PathBuf], watcher: &mut impl Watcher) -> Vec<Text> {
    let mut walk = Walk {
        watcher,
        seen: BTreeSet::new(),
        texts: Vec::new(),
    };
    for path in paths {
        if let Err(error) = walk.named(path) {
            walk.failed(path, &error);
        }
    }
    walk.texts.sort_by(|a, b| a.path.cmp(&b.path));
    walk.texts
}

struct Walk<'w, W> {
    watcher: &'w mut W,
    /// Where files and folders really are.
    seen: BTreeSet<PathBuf>,
    texts: Vec<Text>,
}

impl<W: Watcher> Walk<'_, W> {
    /// A path that was given: a folder, or a file of any name.
    fn named(&mut self, path: &Path) -> io::Result<()> {
        let real = self.resolve(path)?;
        match real.is_dir() {
            true => self.folder(path, real),
            false => self.file(path, real),
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path, real: PathBuf) {
        self.watcher.folder(&real);
        if !self.seen.insert(real.clone()) {
            return;
        }
        let entries = std::fs::read_dir(&real).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.failed(path, &error),
        };
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            // Kubernetes' `..data` and the versions behind it, editors' own files.
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            self.entry(&path.join(&name), (!link).then(|| real.join(&name)));
        }
    }

    /// Something in a folder; `real` unless it is a link.
    fn entry(&mut self, path: &Path, real: Option<PathBuf>) {
        let real = match real.map_or_else(|| self.resolve(path), Ok) {
            Ok(real) => real,
            // Deleted since it was listed, or a link to nowhere: not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.failed(path, &error),
        };
        if real.is_dir() {
            self.folder(path, real);
        } else if is_manifest(path) {
            self.file(path, real);
        }
    }

    fn file(&mut self, path: &Path, real: PathBuf) {
        if let (Some(folder), Some(name)) = (real.parent(), real.file_name()) {
            self.watcher.name(folder, name);
        }
        if !self.seen.insert(real.clone()) {
            return;
        }
        let content = if self.texts.len() >= FILES_MAX {
            Err(format!(
                "more than {FILES_MAX} files: is the path the one that was meant?"
            ))
        } else {
            content(&real)
        };
        // Gone since it was listed.
        if let Some(content) = content.transpose() {
            self.texts.push(Text {
                path: path.to_owned(),
                content,
            });
        }
    }

    fn failed(&mut self, path: &Path, error: &io::Error) {
        self.texts.push(Text {
            path: path.to_owned(),
            content: Err(format!("cannot be read: {error}")),
        });
    }

    /// Where a path leads, with every link on the way watched: whichever is exchanged is noticed.
    fn resolve(&mut self, path: &Path) -> io::Result<PathBuf> {
        let mut real = PathBuf::new();
        let mut rest = std::path::absolute(path)?;
        let mut links = 0;
        'again: loop {
            let parts: Vec<_> = rest
                .components()
                .map(|c| c.as_os_str().to_owned())
                .collect();
            for (index, part) in parts.iter().enumerate() {
                match Path::new(part).components().next() {
                    Some(Component::CurDir) => continue,
                    Some(Component::ParentDir) => {
                        real.pop();
                        continue;
                    }
                    _ => {}
                }
                let step = real.join(part);
                match std::fs::symlink_metadata(&step) {
                    Ok(found) if found.is_symlink() => {}
                    Ok(_) => {
                        real = step;
                        continue;
                    }
                    Err(error) => {
                        self.watcher.name(&real, part);
                        return Err(error);
                    }
                }
                self.watcher.name(&real, part);
                links += 1;
                if links > LINKS_MAX {
                    return Err(io::Error::other("too many links, one behind the other"));
                }
                let target = std::fs::read_link(&step)?;
                rest = parts[index + 1..]
                    .iter()
                    .fold(target, |path, part| path.join(part));
                continue 'again;
            }
            return Ok(real);
        }
    }
}

/// By its name.
pub(super) fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    matches!(extension, Some("yaml" | "yml" | "json"))
}

/// None when it is gone.
fn content(path: &Path) -> Result<Option<String>, String> {
    let read = || {
        if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        std::fs::read_to_string(path)
    };
    match read() {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Notes what would be watched.
    #[derive(Default)]
    struct Notes(BTreeSet<String>);

    impl Watcher for Notes {
        fn folder(&mut self, folder: &Path) {
            self.0.insert(format!("{}/*", folder.display()));
        }

        fn name(&mut self, folder: &Path, name: &OsStr) {
            self.0.insert(folder.join(name).display().to_string());
        }
    }

    /// Makes `files`, `name -> target` ones as links, and reads the folder or what is `named` in it: `PATH=CONTENT` of
    /// all files and what is watched, relative to the folder.
    #[track_caller]
    fn check(files: &[&str], named: &str, expected: &[&str], watched: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for file in files {
            let (name, target) = file.split_once(" -> ").unwrap_or((file, ""));
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match target {
                "" => std::fs::write(path, name).unwrap(),
                target => symlink(target, path).unwrap(),
            }
        }
        let mut notes = Notes::default();
        let relative = |text: &str| text.replace(&format!("{}/", root.display()), "");
        let texts = read(&[root.join(named)], &mut notes);
        let shown = texts.iter().map(|text| {
            let content = text.content.as_ref().unwrap_or_else(|error| error);
            relative(&format!("{}={content}", text.path.display()))
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        let notes: Vec<String> = notes.0.iter().map(|note| relative(note)).collect();
        assert_eq!(notes, watched);
    }

    #[test]
    fn a_folder_is_read_with_all_below_it() {
        check(
            &[
                "b.yml",
                "a.json",
                "x/c.yaml",
                "x/notes.txt",
                ".hidden.yaml",
                ".git/d.yaml",
            ],
            "",
            &["a.json=a.json", "b.yml=b.yml", "x/c.yaml=x/c.yaml"],
            &["*", "a.json", "b.yml", "x/*", "x/c.yaml"],
        );
    }

    #[test]
    fn a_volume_of_kubernetes_is_read_once_and_its_swap_noticed() {
        check(
            &["..v1/a.yaml", "..data -> ..v1", "a.yaml -> ..data/a.yaml"],
            "",
            &["a.yaml=..v1/a.yaml"],
            &["*", "..data", "..v1/a.yaml", "a.yaml"],
        );
    }

    #[test]
    fn a_file_may_have_any_name_and_must_be_there() {
        check(
            &["current -> v1", "v1/conf"],
            "current/conf",
            &["current/conf=v1/conf"],
            &["current", "v1/conf"],
        );
        check(
            &["a.yaml"],
            "missing",
            &["missing=cannot be read: No such file or directory (os error 2)"],
            &["missing"],
        );
        check(
            &["a.yaml", "loop -> .", "self.yaml -> self.yaml"],
            "",
            &[
                "a.yaml=a.yaml",
                "self.yaml=cannot be read: too many links, one behind the other",
            ],
            &["*", "a.yaml", "loop", "self.yaml"],
        );
    }
}
