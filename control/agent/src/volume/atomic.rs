//! Files that change all at once: readers see the old set or the new one.
//!
//! ```text
//! DIR/..2026_01_02_03_04_05.678/a   the files
//! DIR/..data → ..2026_…            replaced by a rename: the one step that counts
//! DIR/a → ..data/a                  what users open
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

use super::payload::Payload;

const DATA: &str = "..data";

/// Makes `dir` show exactly `payload`.
pub(super) fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, PermissionsExt::from_mode(0o755))?;
    let version = Timestamp::now()
        .strftime("..%Y_%m_%d_%H_%M_%S.%9f")
        .to_string();
    let before = fs::read_link(dir.join(DATA)).ok();
    fill(&dir.join(&version), payload, group)?;
    let half = dir.join("..data_tmp");
    let _ = fs::remove_file(&half);
    symlink(&version, &half)?;
    fs::rename(&half, dir.join(DATA))?;
    link_users(dir, payload)?;
    match before {
        Some(before) if before != Path::new(&version) => match fs::remove_dir_all(dir.join(before))
        {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn fill(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(dir)?;
    fs::set_permissions(dir, PermissionsExt::from_mode(0o755))?;
    for (name, file) in payload {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.content)?;
        let mut mode = file.mode;
        if let Some(group) = group {
            std::os::unix::fs::chown(&path, None, Some(group))?;
            // Whoever the owner is, the group may read what its volume holds.
            mode |= 0o440;
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
    }
    Ok(())
}

/// One link for each first part of a name; links of names that are gone go too.
fn link_users(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload
        .keys()
        .filter_map(|name| match Path::new(name).components().next() {
            Some(Component::Normal(first)) => first.to_str(),
            _ => None,
        })
        .collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !wanted.contains(name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::payload::PayloadFile;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(name, text)| {
                let file = PayloadFile {
                    content: text.as_bytes().to_vec(),
                    mode: 0o640,
                };
                ((*name).to_owned(), file)
            })
            .collect()
    }

    #[test]
    fn sets_replace_each_other() {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join("v");
        write(
            &dir,
            &payload(&[("a", "1"), ("d/x", "2"), ("d/y", "3")]),
            None,
        )
        .expect("written");
        assert_eq!(fs::read_to_string(dir.join("d/x")).expect("a file"), "2");
        let open = fs::File::open(dir.join("a")).expect("open");
        write(&dir, &payload(&[("a", "9"), ("b", "4")]), None).expect("written");
        assert_eq!(io::read_to_string(open).expect("still readable"), "1");
        assert_eq!(fs::read_to_string(dir.join("a")).expect("a file"), "9");
        assert!(!dir.join("d").exists());
        let mode = fs::metadata(dir.join("b"))
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        // One version, its link and two users.
        assert_eq!(fs::read_dir(&dir).expect("a folder").count(), 4);
    }
}
