//! Who a container runs as and what it may do, from pod, container and image.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::container::spec::{Rights, User};

/// Why a container cannot run as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecurityError {
    #[error("container has runAsNonRoot and image will run as root")]
    RootRefused,
    #[error("the image's user {0:?} is not in its /etc/passwd")]
    UnknownUser(String),
    #[error(
        "user {0} is not mapped in this user namespace: run the cluster as root, or let the pod run as user 0"
    )]
    NotMapped(i64),
}

/// The users that exist for us: all for the machine's root, else those of /proc/self/uid_map.
#[derive(Debug, Clone)]
pub(crate) struct MappedIds {
    ranges: Vec<(u64, u64)>,
}

impl MappedIds {
    pub(crate) fn of_this_process() -> MappedIds {
        Self::parse(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
    }

    fn parse(map: &str) -> MappedIds {
        let ranges = map
            .lines()
            .filter_map(|line| {
                let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
                let (inside, _, count) =
                    (numbers.next()?.ok()?, numbers.next(), numbers.next()?.ok()?);
                Some((inside, inside + count))
            })
            .collect();
        MappedIds { ranges }
    }

    fn contains(&self, id: u32) -> bool {
        self.ranges
            .iter()
            .any(|(from, to)| (*from..*to).contains(&u64::from(id)))
    }
}

/// Decides the user. `layers` are the image's, lowest first: names are looked up in them.
pub(crate) fn user(
    pod: &PodSpec,
    container: &Container,
    image_user: &str,
    layers: &[PathBuf],
    mapped: &MappedIds,
) -> Result<User, SecurityError> {
    let of_pod = pod.security_context.as_ref();
    let own = container.security_context.as_ref();
    let run_as = own
        .and_then(|context| context.run_as_user)
        .or_else(|| of_pod.and_then(|context| context.run_as_user));
    let run_as_group = own
        .and_then(|context| context.run_as_group)
        .or_else(|| of_pod.and_then(|context| context.run_as_group));
    let mut user = match run_as {
        Some(uid) => {
            let uid = u32::try_from(uid).map_err(|_| SecurityError::NotMapped(uid))?;
            let gid = passwd(layers)
                .find_map(|entry| (entry.uid == uid).then_some(entry.gid))
                .unwrap_or(0);
            User {
                uid,
                gid,
                groups: Vec::new(),
            }
        }
        None => from_image(image_user, layers)?,
    };
    if let Some(gid) = run_as_group {
        user.gid = u32::try_from(gid).map_err(|_| SecurityError::NotMapped(gid))?;
    }
    let non_root = own
        .and_then(|context| context.run_as_non_root)
        .or_else(|| of_pod.and_then(|context| context.run_as_non_root));
    if non_root == Some(true) && user.uid == 0 {
        return Err(SecurityError::RootRefused);
    }
    let groups = of_pod.into_iter().flat_map(|context| {
        let extra = context.supplemental_groups.iter().flatten();
        extra.chain(&context.fs_group).copied()
    });
    user.groups = groups
        .filter_map(|group| u32::try_from(group).ok())
        .collect();
    for id in [user.uid, user.gid] {
        if !mapped.contains(id) {
            return Err(SecurityError::NotMapped(i64::from(id)));
        }
    }
    // Groups only give access; those that do not exist here give none.
    user.groups.retain(|group| mapped.contains(*group));
    Ok(user)
}

/// `user`, `uid`, `user:group`, `uid:gid`.
fn from_image(text: &str, layers: &[PathBuf]) -> Result<User, SecurityError> {
    let unknown = || SecurityError::UnknownUser(text.to_owned());
    let (name, group) = match text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (text, None),
    };
    let mut user = match (name, name.parse::<u32>()) {
        ("", _) => User::default(),
        (_, Ok(uid)) => User {
            uid,
            gid: passwd(layers)
                .find_map(|entry| (entry.uid == uid).then_some(entry.gid))
                .unwrap_or(0),
            groups: Vec::new(),
        },
        (name, Err(_)) => passwd(layers)
            .find(|entry| entry.name == name)
            .map(|entry| User {
                uid: entry.uid,
                gid: entry.gid,
                groups: Vec::new(),
            })
            .ok_or_else(unknown)?,
    };
    match group {
        None | Some("") => {}
        Some(group) => {
            user.gid = match group.parse() {
                Ok(gid) => gid,
                Err(_) => group_id(layers, group).ok_or_else(unknown)?,
            }
        }
    }
    Ok(user)
}

struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
}

fn passwd(layers: &[PathBuf]) -> impl Iterator<Item = PasswdEntry> {
    topmost(layers, "etc/passwd")
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(PasswdEntry { name, uid, gid })
        })
        .collect::<Vec<_>>()
        .into_iter()
}

fn group_id(layers: &[PathBuf], name: &str) -> Option<u32> {
    topmost(layers, "etc/group").lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The file as the highest layer that has it has it. Links are not followed: they would lead into the node.
fn topmost(layers: &[PathBuf], path: &str) -> String {
    for layer in layers.iter().rev() {
        let file: &Path = &layer.join(path);
        if fs::symlink_metadata(file).is_ok_and(|meta| meta.is_file()) {
            return fs::read_to_string(file).unwrap_or_default();
        }
    }
    String::new()
}

/// Decides the rights.
pub(crate) fn rights(container: &Container, rootless: bool) -> Rights {
    let Some(context) = &container.security_context else {
        return Rights::default();
    };
    let privileged = context.privileged.unwrap_or(false);
    let capabilities = context.capabilities.clone().unwrap_or_default();
    Rights {
        // In a user namespace "everything" is what its root may do; the rest the kernel refuses.
        privileged,
        readonly_rootfs: context.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: context.allow_privilege_escalation == Some(false) && !privileged,
        add: capabilities.add.unwrap_or_default(),
        drop: if rootless && privileged {
            Vec::new()
        } else {
            capabilities.drop.unwrap_or_default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/:/bin/sh\nweb:x:101:102::/:/bin/sh\n";

    fn check(context: serde_json::Value, image: &str, map: &str, wanted: &str) {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("etc")).expect("a folder");
        fs::write(dir.path().join("etc/passwd"), PASSWD).expect("a file");
        fs::write(dir.path().join("etc/group"), "root:x:0:\nstaff:x:50:web\n").expect("a file");
        let pod: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{"name": "c"}], "securityContext": context}))
        .expect("a spec");
        let layers = [dir.path().to_owned()];
        let mapped = MappedIds::parse(map);
        let shown = match user(&pod, &pod.containers[0], image, &layers, &mapped) {
            Ok(user) => format!("{}:{} {:?}", user.uid, user.gid, user.groups),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, wanted, "{context} {image:?}");
    }

    #[test]
    fn users_are_found() {
        let all = "0 0 4294967295";
        let none = serde_json::json!({});
        check(none.clone(), "", all, "0:0 []");
        check(none.clone(), "web", all, "101:102 []");
        check(none.clone(), "web:staff", all, "101:50 []");
        check(none.clone(), "101", all, "101:102 []");
        check(none.clone(), "7:8", all, "7:8 []");
        check(
            none.clone(),
            "nobody",
            all,
            "the image's user \"nobody\" is not in its /etc/passwd",
        );
        check(
            serde_json::json!({"runAsUser": 1000}),
            "web",
            all,
            "1000:0 []",
        );
        check(
            serde_json::json!({"runAsUser": 101, "runAsGroup": 9, "fsGroup": 5, "supplementalGroups": [6]}),
            "",
            all,
            "101:9 [6, 5]",
        );
        check(
            serde_json::json!({"runAsNonRoot": true}),
            "",
            all,
            "container has runAsNonRoot and image will run as root",
        );
        let alone = "0 1000 1";
        check(none.clone(), "", alone, "0:0 []");
        check(serde_json::json!({"fsGroup": 5}), "", alone, "0:0 []");
        check(
            serde_json::json!({"runAsUser": 1337}),
            "",
            alone,
            "user 1337 is not mapped in this user namespace: run the cluster as root, or let the pod run as user 0",
        );
    }
}
