//! The OCI runtime configuration of a container, as a value: everything was decided before.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Capabilities of a container that asks for nothing, as container runtimes have them.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// All that a kernel of today knows.
const ALL_CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// What a container must not see of the kernel.
const MASKED_PATHS: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];

/// What it must not change.
const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A container, every question answered.
#[derive(Debug, Clone)]
pub(crate) struct ContainerSpec {
    pub(crate) args: Vec<String>,
    /// `NAME=value`.
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) user: User,
    /// By path; `None` is the node's own.
    pub(crate) network: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    pub(crate) uts: Option<PathBuf>,
    /// In the order they are mounted.
    pub(crate) mounts: Vec<Mount>,
    pub(crate) rights: Rights,
    /// From the root of each hierarchy.
    pub(crate) cgroup: String,
    /// `None` where the machine has no controllers for us.
    pub(crate) resources: Option<Resources>,
    /// Root is not the machine's root: some users do not exist.
    pub(crate) rootless: bool,
}

/// Who a container's processes are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// What they may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) privileged: bool,
    pub(crate) readonly_rootfs: bool,
    pub(crate) no_new_privileges: bool,
    /// As in a pod: `NET_ADMIN`, `ALL`.
    pub(crate) add: Vec<String>,
    pub(crate) drop: Vec<String>,
}

/// A file or folder of the node in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) readonly: bool,
    /// Mounts that appear at the source later are seen too.
    pub(crate) follows: bool,
}

/// Limits of the control group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    /// Weight among others when the CPU is short.
    pub(crate) cpu_shares: u64,
    /// Microseconds per [`CPU_PERIOD_US`].
    pub(crate) cpu_quota_us: Option<i64>,
    pub(crate) memory_bytes: Option<i64>,
}

/// Length of a quota's period.
pub(crate) const CPU_PERIOD_US: i64 = 100_000;
/// The kernel's least weight.
const CPU_SHARES_MIN: u64 = 2;
/// The kernel's greatest weight.
const CPU_SHARES_MAX: u64 = 262_144;
/// The kernel takes no smaller quota.
const CPU_QUOTA_MIN_US: i64 = 1000;

impl Resources {
    /// From thousandths of a CPU and bytes, as the kubelet computes them.
    pub(crate) fn new(
        request_milli: i64,
        limit_milli: Option<i64>,
        memory_bytes: Option<i64>,
    ) -> Resources {
        let shares = u64::try_from(request_milli).unwrap_or(0) * 1024 / 1000;
        Resources {
            cpu_shares: shares.clamp(CPU_SHARES_MIN, CPU_SHARES_MAX),
            cpu_quota_us: limit_milli
                .filter(|milli| *milli > 0)
                .map(|milli| (milli * CPU_PERIOD_US / 1000).max(CPU_QUOTA_MIN_US)),
            memory_bytes: memory_bytes.filter(|bytes| *bytes > 0),
        }
    }

    fn json(self) -> Value {
        let mut cpu = json!({"shares": self.cpu_shares});
        if let Some(quota) = self.cpu_quota_us {
            cpu["quota"] = json!(quota);
            cpu["period"] = json!(CPU_PERIOD_US);
        }
        let mut resources = json!({"cpu": cpu});
        if let Some(bytes) = self.memory_bytes {
            resources["memory"] = json!({"limit": bytes, "swap": bytes});
        }
        resources
    }
}

impl Rights {
    /// The capabilities that remain, each with its prefix.
    fn capabilities(&self) -> Vec<String> {
        let names = |list: &[String]| -> Vec<String> {
            list.iter()
                .map(|name| name.to_uppercase().trim_start_matches("CAP_").to_owned())
                .collect()
        };
        let (add, drop) = (names(&self.add), names(&self.drop));
        let everything = self.privileged || add.iter().any(|name| name == "ALL");
        let nothing = !self.privileged && drop.iter().any(|name| name == "ALL");
        ALL_CAPABILITIES
            .iter()
            .filter(|name| {
                let added = everything || add.iter().any(|added| added == *name);
                let kept = DEFAULT_CAPABILITIES.contains(name) && !nothing;
                let dropped = !self.privileged && drop.iter().any(|dropped| dropped == *name);
                // What is both added and dropped is dropped, unless everything is dropped: then adding is meant.
                (added || kept) && !dropped
            })
            .map(|name| format!("CAP_{name}"))
            .collect()
    }
}

impl ContainerSpec {
    /// The document that the runtime reads.
    pub(crate) fn to_json(&self) -> Value {
        let mut linux = json!({
            "cgroupsPath": self.cgroup,
            "namespaces": self.namespaces(),
        });
        let mut resources = match self.resources {
            Some(resources) => resources.json(),
            None => json!({}),
        };
        if !self.rights.privileged {
            linux["maskedPaths"] = json!(MASKED_PATHS);
            linux["readonlyPaths"] = json!(READONLY_PATHS);
            resources["devices"] = json!([{"allow": false, "access": "rwm"}]);
        }
        // Without the machine's root there are no device rules, and limits only where they were delegated.
        if self.resources.is_some() {
            linux["resources"] = resources;
        }
        json!({
            "ociVersion": "1.2.0",
            "process": self.process(),
            "root": {"path": "rootfs", "readonly": self.rights.readonly_rootfs},
            "mounts": self.all_mounts(),
            "linux": linux,
        })
    }

    fn process(&self) -> Value {
        let capabilities = self.rights.capabilities();
        let none: [&str; 0] = [];
        let mut user = json!({"uid": self.user.uid, "gid": self.user.gid});
        if !self.user.groups.is_empty() {
            user["additionalGids"] = json!(self.user.groups);
        }
        let mut process = json!({
            "terminal": false,
            "user": user,
            "args": self.args,
            "env": self.env,
            "cwd": self.cwd,
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
                "inheritable": none,
                "ambient": none,
            },
        });
        if self.rights.no_new_privileges {
            process["noNewPrivileges"] = json!(true);
        }
        process
    }

    fn namespaces(&self) -> Value {
        let mut namespaces = vec![json!({"type": "pid"}), json!({"type": "mount"})];
        for (kind, path) in [
            ("network", &self.network),
            ("ipc", &self.ipc),
            ("uts", &self.uts),
        ] {
            if let Some(path) = path {
                namespaces.push(json!({"type": kind, "path": path}));
            }
        }
        Value::from(namespaces)
    }

    fn all_mounts(&self) -> Vec<Value> {
        let sys_mode = if self.rights.privileged { "rw" } else { "ro" };
        // Group 5 is `tty`; without the machine's root it does not exist.
        let pts_group: &[&str] = if self.rootless { &[] } else { &["gid=5"] };
        let pts = [
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
            ],
            pts_group,
        ]
        .concat();
        let mut mounts = vec![
            kernel("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            kernel(
                "/dev",
                "tmpfs",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            kernel("/dev/pts", "devpts", &pts),
            kernel("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            kernel("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys_mode]),
        ];
        let mut own: Vec<&Mount> = self.mounts.iter().collect();
        // Outer folders first, or they would hide the inner ones.
        own.sort_by_key(|mount| Path::new(&mount.target).components().count());
        mounts.extend(own.into_iter().map(Mount::json));
        mounts
    }
}

fn kernel(target: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": kind, "source": kind, "options": options})
}

impl Mount {
    fn json(&self) -> Value {
        let mut mount = Map::new();
        mount.insert("destination".to_owned(), json!(self.target));
        mount.insert("type".to_owned(), json!("bind"));
        mount.insert("source".to_owned(), json!(self.source));
        let mut options = vec!["rbind", if self.follows { "rslave" } else { "rprivate" }];
        options.push(if self.readonly { "ro" } else { "rw" });
        mount.insert("options".to_owned(), json!(options));
        Value::Object(mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let rights = Rights {
            add: owned(add),
            drop: owned(drop),
            ..Rights::default()
        };
        rights.capabilities()
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        assert_eq!(capabilities(&[], &[]).len(), DEFAULT_CAPABILITIES.len());
        assert_eq!(capabilities(&["NET_ADMIN"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(
            capabilities(&["CAP_NET_ADMIN"], &["all"]),
            ["CAP_NET_ADMIN"]
        );
        assert_eq!(capabilities(&["ALL"], &[]).len(), ALL_CAPABILITIES.len());
        assert!(!capabilities(&[], &["KILL"]).contains(&"CAP_KILL".to_owned()));
        let all_but_one = capabilities(&["ALL"], &["SYS_TIME"]);
        assert_eq!(all_but_one.len(), ALL_CAPABILITIES.len() - 1);
    }

    #[test]
    fn limits_are_the_kubelets() {
        let check = |request, limit, shares, quota| {
            let resources = Resources::new(request, limit, None);
            assert_eq!(
                (resources.cpu_shares, resources.cpu_quota_us),
                (shares, quota)
            );
        };
        check(0, None, 2, None);
        check(100, None, 102, None);
        check(1000, Some(1500), 1024, Some(150_000));
        check(1, Some(1), 2, Some(1000));
        check(i64::from(u32::MAX), None, CPU_SHARES_MAX, None);
    }

    #[test]
    fn mounts_are_ordered_by_depth() {
        let mount = |target: &str| Mount {
            source: "/x".into(),
            target: target.to_owned(),
            readonly: false,
            follows: false,
        };
        let spec = ContainerSpec {
            args: vec!["/a".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: User::default(),
            network: None,
            ipc: None,
            uts: None,
            mounts: vec![mount("/a/b/c"), mount("/a"), mount("/a/b")],
            rights: Rights::default(),
            cgroup: "/x".to_owned(),
            resources: None,
            rootless: false,
        };
        let document = spec.to_json();
        let targets: Vec<&str> = document["mounts"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|mount| mount["destination"].as_str())
            .skip(5)
            .collect();
        assert_eq!(targets, ["/a", "/a/b", "/a/b/c"]);
    }
}
