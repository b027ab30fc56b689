//! Whole stores: images of every form in, and hostile or damaged ones refused with nothing left behind.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::*;

/// An entry of a layer.
enum Item<'a> {
    File(&'a str, &'a str),
    Mode(&'a str, u32),
    Dir(&'a str),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
    Device(&'a str, u32, u32),
}

fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        let (path, content, link) = match item {
            Item::File(path, content) => (path, *content, None),
            Item::Mode(path, mode) => {
                header.set_mode(*mode);
                (path, "x", None)
            }
            Item::Dir(path) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                (path, "", None)
            }
            Item::Symlink(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                (path, "", Some(*target))
            }
            Item::Hardlink(path, target) => {
                header.set_entry_type(tar::EntryType::Link);
                (path, "", Some(*target))
            }
            Item::Device(path, major, minor) => {
                header.set_entry_type(tar::EntryType::Char);
                header.set_device_major(*major).expect("fits");
                header.set_device_minor(*minor).expect("fits");
                (path, "", None)
            }
        };
        header.set_size(content.len() as u64);
        // Written as bytes: the safe way refuses the names that hostile archives have.
        set_bytes(&mut header.as_gnu_mut().expect("gnu").name, path);
        if let Some(link) = link {
            set_bytes(&mut header.as_gnu_mut().expect("gnu").linkname, link);
        }
        header.set_cksum();
        tar.append(&header, content.as_bytes()).expect("appended");
    }
    tar.into_inner().expect("finished")
}

fn set_bytes(field: &mut [u8], text: &str) {
    field[..text.len()].copy_from_slice(text.as_bytes());
}

#[derive(Clone, Copy)]
enum Packed {
    Plain,
    Gzip,
    Zstd,
}

fn pack(bytes: &[u8], how: Packed) -> Vec<u8> {
    match how {
        Packed::Plain => bytes.to_vec(),
        Packed::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(bytes).expect("packed");
            writer.finish().expect("packed")
        }
        Packed::Zstd => zstd::encode_all(bytes, 1).expect("packed"),
    }
}

/// An OCI layout in a folder.
struct Oci {
    dir: PathBuf,
}

impl Oci {
    fn blob(&self, bytes: &[u8]) -> String {
        let digest = load::digest_of(bytes);
        let path = self.dir.join("blobs/sha256").join(&digest[7..]);
        fs::write(path, bytes).expect("written");
        digest
    }

    fn write(dir: &Path, layers: &[(Vec<u8>, Packed)], annotations: serde_json::Value) -> Oci {
        let oci = Oci {
            dir: dir.to_owned(),
        };
        fs::create_dir_all(dir.join("blobs/sha256")).expect("a folder");
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|(bytes, _)| load::digest_of(bytes))
            .collect();
        let blobs: Vec<serde_json::Value> = layers
            .iter()
            .map(|(bytes, how)| json!({"digest": oci.blob(&pack(bytes, *how)), "mediaType": "layer"}))
            .collect();
        let config = json!({
            "config": {"Entrypoint": ["/run"], "Cmd": null, "Env": ["A=1"], "User": "7"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = oci.blob(config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "config": {"digest": config}, "layers": blobs});
        let manifest = oci.blob(manifest.to_string().as_bytes());
        let index = json!({"schemaVersion": 2, "manifests": [
            {"digest": manifest, "annotations": annotations,
             "platform": {"os": "linux", "architecture": archive::architecture()}},
            {"digest": manifest, "platform": {"os": "unknown", "architecture": "unknown"}},
        ]});
        fs::write(dir.join("index.json"), index.to_string()).expect("written");
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
        oci
    }

    fn archive(&self, to: &Path, how: Packed) {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir_all(".", &self.dir).expect("appended");
        let bytes = tar.into_inner().expect("finished");
        fs::write(to, pack(&bytes, how)).expect("written");
    }
}

fn store() -> (TempDir, ImageStore) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = ImageStore::open(&dir.path().join("images")).expect("a store");
    (dir, store)
}

fn names(images: &[ImageSummary]) -> Vec<&str> {
    images.iter().map(|image| image.name.as_str()).collect()
}

fn find(store: &ImageStore, name: &str) -> Option<Image> {
    store
        .find(&Reference::parse(name).expect("a name"))
        .expect("readable")
}

#[test]
fn every_form_is_loaded() {
    let (dir, store) = store();
    let base = layer(&[
        Item::Dir("etc"),
        Item::File("etc/name", "base"),
        Item::File("run", "#!"),
    ]);
    let top = layer(&[Item::File("etc/name", "top")]);
    let layers = [(base, Packed::Gzip), (top.clone(), Packed::Zstd)];
    let oci = Oci::write(
        &dir.path().join("shop"),
        &layers,
        json!({"org.opencontainers.image.ref.name": "1.0"}),
    );
    // A folder: its name and the tag.
    let loaded = store.load(&oci.dir).expect("loaded");
    assert_eq!(names(&loaded), ["docker.io/library/shop:1.0"]);
    let image = find(&store, "shop:1.0").expect("found");
    assert_eq!(image.config.entrypoint, ["/run"]);
    assert_eq!(image.config.user, "7");
    assert_eq!(image.layers.len(), 2);
    let file = |at: usize| {
        fs::read_to_string(store.layers_dir().join(&image.layers[at]).join("etc/name"))
            .expect("a file")
    };
    assert_eq!((file(0), file(1)), ("base".to_owned(), "top".to_owned()));
    let by_digest = image.id.rsplit('@').next().expect("a digest");
    assert!(find(&store, &format!("shop@{by_digest}")).is_some());
    assert!(find(&store, "shop:2.0").is_none());
    // Archives, packed and not; a full name in the annotation.
    let oci = Oci::write(
        &dir.path().join("other"),
        &[(top, Packed::Plain)],
        json!({"io.containerd.image.name": "ghcr.io/team/web:2"}),
    );
    for (how, name) in [
        (Packed::Plain, "a.tar"),
        (Packed::Gzip, "a.tar.gz"),
        (Packed::Zstd, "a.tar.zst"),
    ] {
        let file = dir.path().join(name);
        oci.archive(&file, how);
        assert_eq!(
            names(&store.load(&file).expect("loaded")),
            ["ghcr.io/team/web:2"]
        );
    }
    let all = store.list().expect("readable");
    assert_eq!(
        names(&all),
        ["docker.io/library/shop:1.0", "ghcr.io/team/web:2"]
    );
    assert_eq!(fs::read_dir(store.tmp_dir()).expect("a folder").count(), 0);
}

#[test]
fn docker_archives_are_loaded() {
    let (dir, store) = store();
    let content = layer(&[Item::File("run", "#!")]);
    let config =
        json!({"config": {"Cmd": ["/run"]}, "rootfs": {"diff_ids": [load::digest_of(&content)]}});
    let config = config.to_string();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["web:1", "web:latest"], "Layers": ["l/layer.tar"]}]);
    let manifest = manifest.to_string();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("c.json", config.as_bytes()),
        ("l/layer.tar", &content),
        ("manifest.json", manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).expect("appended");
    }
    let file = dir.path().join("saved.tar");
    fs::write(&file, tar.into_inner().expect("finished")).expect("written");
    let loaded = store.load(&file).expect("loaded");
    assert_eq!(
        names(&loaded),
        ["docker.io/library/web:1", "docker.io/library/web:latest"]
    );
    assert_eq!(find(&store, "web").expect("found").config.cmd, ["/run"]);
}

#[test]
fn a_name_moves_to_the_newer_image() {
    let (dir, store) = store();
    for content in ["old", "new"] {
        let oci = Oci::write(
            &dir.path().join(content).join("web"),
            &[(layer(&[Item::File("f", content)]), Packed::Plain)],
            json!({}),
        );
        store.load(&oci.dir).expect("loaded");
    }
    assert_eq!(store.list().expect("readable").len(), 1);
    let image = find(&store, "web").expect("found");
    let file = store.layers_dir().join(&image.layers[0]).join("f");
    assert_eq!(fs::read_to_string(file).expect("a file"), "new");
}

#[test]
fn layers_become_what_overlayfs_reads() {
    let (dir, store) = store();
    let content = layer(&[
        Item::Dir("d"),
        Item::File("d/.wh.gone", ""),
        Item::File("d/.wh..wh..opq", ""),
        Item::Mode("set", 0o4755),
        Item::Symlink("link", "/etc/passwd"),
        Item::Hardlink("hard", "set"),
        Item::File("./deep/er/file", "x"),
        Item::File("twice", "1"),
        Item::File("twice", "2"),
        // To overlayfs a whiteout; only names may say that.
        Item::Device("dev", 0, 0),
    ]);
    let oci = Oci::write(
        &dir.path().join("web"),
        &[(content, Packed::Plain)],
        json!({}),
    );
    store.load(&oci.dir).expect("loaded");
    let image = find(&store, "web").expect("found");
    let at = |name: &str| store.layers_dir().join(&image.layers[0]).join(name);
    let gone = fs::symlink_metadata(at("d/gone")).expect("a whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 1];
    rustix::fs::getxattr(at("d"), "user.overlay.opaque", &mut value).expect("opaque");
    assert_eq!(&value, b"y");
    assert_eq!(
        fs::metadata(at("set"))
            .expect("a file")
            .permissions()
            .mode()
            & 0o7777,
        0o4755
    );
    assert_eq!(
        fs::read_link(at("link")).expect("a link"),
        Path::new("/etc/passwd")
    );
    assert_eq!(
        fs::metadata(at("hard")).expect("a file").ino(),
        fs::metadata(at("set")).expect("a file").ino()
    );
    assert_eq!(fs::read_to_string(at("deep/er/file")).expect("a file"), "x");
    assert_eq!(fs::read_to_string(at("twice")).expect("a file"), "2");
    assert!(fs::symlink_metadata(at("dev")).is_err());
}

/// Loads a layer that must be refused; the store stays empty, and nothing appears beside it.
fn check_refused(items: &[Item<'_>], why: &str) {
    let (dir, store) = store();
    let oci = Oci::write(
        &dir.path().join("web"),
        &[(layer(items), Packed::Plain)],
        json!({}),
    );
    let error = store.load(&oci.dir).expect_err("refused");
    let text = crate::shim::chain(&error);
    assert!(text.contains(why), "{text}");
    assert_eq!(store.list().expect("readable"), []);
    assert_eq!(
        fs::read_dir(store.layers_dir()).expect("a folder").count(),
        0
    );
    assert_eq!(fs::read_dir(store.tmp_dir()).expect("a folder").count(), 0);
    let beside: Vec<_> = fs::read_dir(dir.path())
        .expect("a folder")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
}

#[test]
fn layers_that_lead_outside_are_refused() {
    check_refused(&[Item::File("../evil", "x")], "leads outside");
    check_refused(&[Item::File("a/../../evil", "x")], "leads outside");
    check_refused(
        &[Item::Hardlink("a", "../../web/index.json")],
        "leads outside",
    );
    check_refused(&[Item::Hardlink("a", "none")], "cannot unpack \"a\"");
    check_refused(&[Item::File(".wh...", "")], "whiteout of nothing");
}

#[test]
fn links_are_followed_inside_only() {
    let (dir, store) = store();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    let target = outside.to_string_lossy().into_owned();
    let content = layer(&[
        Item::Symlink("way", &target),
        Item::Symlink("up", "../../../../../.."),
        Item::File("up/inside", "x"),
    ]);
    let oci = Oci::write(
        &dir.path().join("web"),
        &[(content, Packed::Plain)],
        json!({}),
    );
    store.load(&oci.dir).expect("loaded");
    let image = find(&store, "web").expect("found");
    // `up` leads to the layer's own root, however far up it goes.
    assert!(
        store
            .layers_dir()
            .join(&image.layers[0])
            .join("inside")
            .exists()
    );
    let content = layer(&[Item::Symlink("way", &target), Item::File("way/evil", "x")]);
    let oci = Oci::write(
        &dir.path().join("two"),
        &[(content, Packed::Plain)],
        json!({}),
    );
    // The link's target does not exist inside, so there is nowhere to write.
    let _ = store.load(&oci.dir);
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0);
}

#[test]
fn damaged_images_are_refused() {
    let content = || layer(&[Item::File("f", "content")]);
    let check = |damage: &dyn Fn(&Oci), why: &str| {
        let (dir, store) = store();
        let oci = Oci::write(
            &dir.path().join("web"),
            &[(content(), Packed::Gzip)],
            json!({}),
        );
        damage(&oci);
        let error = store.load(&oci.dir).expect_err("refused");
        let text = crate::shim::chain(&error);
        assert!(text.contains(why), "{text}");
        assert_eq!(store.list().expect("readable"), []);
        assert_eq!(
            fs::read_dir(store.layers_dir()).expect("a folder").count(),
            0
        );
    };
    let packed = pack(&content(), Packed::Gzip);
    let path = |oci: &Oci| {
        oci.dir
            .join("blobs/sha256")
            .join(&load::digest_of(&packed)[7..])
    };
    check(
        &|oci| fs::remove_file(path(oci)).expect("removed"),
        "opening layer",
    );
    check(
        &|oci| fs::write(path(oci), &packed[..packed.len() / 2]).expect("cut"),
        "layer",
    );
    let other = pack(&layer(&[Item::File("f", "something else")]), Packed::Gzip);
    check(
        &|oci| fs::write(path(oci), &other).expect("swapped"),
        "is damaged",
    );
    check(
        &|oci| fs::write(oci.dir.join("index.json"), "{").expect("cut"),
        "is not a valid OCI index",
    );
    check(
        &|oci| fs::write(oci.dir.join("index.json"), r#"{"manifests":[]}"#).expect("emptied"),
        "holds no image for linux/",
    );
    check(
        &|oci| {
            fs::remove_file(oci.dir.join("index.json")).expect("removed");
            fs::remove_file(oci.dir.join("oci-layout")).expect("removed");
        },
        "neither an OCI layout",
    );
}

#[test]
fn what_is_no_archive_is_refused() {
    let (dir, store) = store();
    let file = dir.path().join("noise.tar");
    fs::write(
        &file,
        "this is not an archive, however long it may be".repeat(100),
    )
    .expect("written");
    let error = crate::shim::chain(&store.load(&file).expect_err("refused"));
    assert!(error.contains("not an image archive"), "{error}");
    let error = crate::shim::chain(&store.load(&dir.path().join("none")).expect_err("refused"));
    assert!(error.contains("opening"), "{error}");
    // An archive that writes through a link of its own.
    let bytes = layer(&[Item::Symlink("a", "/tmp"), Item::File("../../evil", "x")]);
    fs::write(&file, bytes).expect("written");
    let error = crate::shim::chain(&store.load(&file).expect_err("refused"));
    assert!(error.contains("leads outside"), "{error}");
}

#[test]
fn the_own_image_follows_the_binary() {
    let (dir, store) = store();
    let binary = dir.path().join("binary");
    fs::write(&binary, "one").expect("written");
    let first = OwnImage::ensure(&store, &binary).expect("made").image();
    assert_eq!(
        OwnImage::ensure(&store, &binary).expect("made").image().id,
        first.id
    );
    assert!(OwnImage::is_named(
        &Reference::parse("meshgate/meshgate:any").expect("a name")
    ));
    assert!(!OwnImage::is_named(
        &Reference::parse("meshgate/other").expect("a name")
    ));
    let held = fs::File::open(store.layers_dir().join(&first.layers[0])).expect("a layer");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockShared).expect("locked");
    fs::remove_file(&binary).expect("removed");
    fs::write(&binary, "number two").expect("written");
    let second = OwnImage::ensure(&store, &binary).expect("made").image();
    assert_ne!(first.id, second.id);
    assert!(
        store.layers_dir().join(&first.layers[0]).exists(),
        "it is in use"
    );
    drop(held);
    OwnImage::ensure(&store, &binary).expect("made");
    assert!(!store.layers_dir().join(&first.layers[0]).exists());
    let copy = store.layers_dir().join(&second.layers[0]).join("meshgate");
    assert_eq!(fs::read_to_string(copy).expect("the binary"), "number two");
}
