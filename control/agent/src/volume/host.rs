//! hostPath: files and folders of the node itself.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Checks, or makes, what `kind` promises.
pub(super) fn prepare(path: &str, kind: &str) -> Result<PathBuf, String> {
    let at = Path::new(path);
    let told = |error: std::io::Error| format!("hostPath {path}: {error}");
    match kind {
        "DirectoryOrCreate" => fs::create_dir_all(at).map_err(told)?,
        "FileOrCreate" => {
            // Its folder must be there, as in Kubernetes.
            fs::File::options()
                .create(true)
                .append(true)
                .open(at)
                .map_err(told)?;
        }
        // Nothing is promised; a container cannot mount nothing, so a missing path becomes a folder.
        "" if !at.exists() => fs::create_dir_all(at).map_err(told)?,
        _ => {}
    }
    let file = match fs::metadata(at) {
        Ok(meta) => meta.file_type(),
        Err(_) => return Err(format!("hostPath type check failed: {path} does not exist")),
    };
    let fits = match kind {
        "" => true,
        "Directory" | "DirectoryOrCreate" => file.is_dir(),
        "File" | "FileOrCreate" => file.is_file(),
        "Socket" => file.is_socket(),
        "CharDevice" => file.is_char_device(),
        "BlockDevice" => file.is_block_device(),
        _ => return Err(format!("hostPath type {kind:?} is unknown")),
    };
    match fits {
        true => Ok(at.to_owned()),
        false => Err(format!(
            "hostPath type check failed: {path} is not a {kind}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_checked() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let _socket = std::os::unix::net::UnixListener::bind(at("sock")).expect("a socket");
        assert!(prepare(&at("sock"), "Socket").is_ok());
        assert!(prepare(&at("sock"), "File").is_err());
        assert!(prepare(&at("none"), "Directory").is_err());
        assert!(prepare(&at("made/deep"), "DirectoryOrCreate").is_ok());
        assert!(prepare(&at("file"), "FileOrCreate").is_ok());
        assert!(prepare(&at("file"), "Directory").is_err());
        assert!(prepare(&at("any"), "").is_ok());
        assert!(prepare(&at("any"), "Nonsense").is_err());
    }
}
