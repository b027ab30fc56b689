//! The processes of a cluster, found from the host: descendants of its keeper.

use std::collections::{BTreeMap, HashMap};

/// A component's process, by its id on the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) role: Role,
}

/// What a process does; proxies are known by the pod they run in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role {
    Control,
    Agent {
        node: String,
    },
    Edge {
        namespace: String,
        pod: String,
        node: Option<String>,
    },
    Sidecar {
        namespace: String,
        pod: String,
        node: Option<String>,
    },
}

/// Components among the descendants of `keeper`, by process id. Processes that end meanwhile are left out.
pub(super) fn below(keeper: i32) -> Vec<Process> {
    let parents = parents();
    let mut found: Vec<Process> = parents
        .keys()
        .filter(|pid| descends(**pid, keeper, &parents))
        .filter_map(|pid| {
            let arguments = zero_separated(*pid, "cmdline")?;
            let environment = zero_separated(*pid, "environ").unwrap_or_default();
            Some(Process {
                pid: *pid,
                role: role(&arguments, &environment)?,
            })
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn parents() -> HashMap<i32, i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parent_of(&stat)?))
        })
        .collect()
}

/// The fourth field; the second is a name in parentheses that may hold anything.
fn parent_of(stat: &str) -> Option<i32> {
    stat[stat.rfind(')')? + 1..]
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn descends(pid: i32, from: i32, parents: &HashMap<i32, i32>) -> bool {
    let mut at = pid;
    // A chain is no longer than there are processes, also when ids were reused while they were read.
    for _ in 0..parents.len() {
        match parents.get(&at) {
            Some(parent) if *parent == from => return true,
            Some(parent) => at = *parent,
            None => return false,
        }
    }
    false
}

fn zero_separated(pid: i32, file: &str) -> Option<Vec<String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).ok()?;
    let parts = bytes
        .split(|b| *b == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned());
    Some(parts.collect())
}

fn role(arguments: &[String], environment: &[String]) -> Option<Role> {
    let environment: BTreeMap<&str, &str> = environment
        .iter()
        .filter_map(|e| e.split_once('='))
        .collect();
    let pod = || {
        let of = |name: &str| environment.get(name).map(|v| (*v).to_owned());
        Some((of("POD_NAMESPACE")?, of("POD_NAME")?, of("NODE_NAME")))
    };
    let flag = |name: &str| {
        arguments
            .iter()
            .find_map(|a| Some(a.strip_prefix(name)?.to_owned()))
    };
    match arguments.get(1)?.as_str() {
        "control" => Some(Role::Control),
        "node" => Some(Role::Agent {
            node: flag("--name=")?,
        }),
        "ingress" => pod().map(|(namespace, pod, node)| Role::Edge {
            namespace,
            pod,
            node,
        }),
        "sidecar" => pod().map(|(namespace, pod, node)| Role::Sidecar {
            namespace,
            pod,
            node,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn roles() {
        let pod = strings(&["POD_NAME=a", "POD_NAMESPACE=shop", "NODE_NAME=node-0"]);
        let check = |arguments: &[&str], environment: &[String], wanted: Option<Role>| {
            assert_eq!(
                role(&strings(arguments), environment),
                wanted,
                "{arguments:?}"
            );
        };
        check(
            &["/proc/self/exe", "control", "--data-dir=/x"],
            &[],
            Some(Role::Control),
        );
        check(
            &["m", "node", "--name=node-2"],
            &[],
            Some(Role::Agent {
                node: "node-2".into(),
            }),
        );
        let (namespace, name, node) =
            ("shop".to_owned(), "a".to_owned(), Some("node-0".to_owned()));
        check(
            &["/meshgate", "sidecar"],
            &pod,
            Some(Role::Sidecar {
                namespace,
                pod: name,
                node,
            }),
        );
        check(&["/meshgate", "echo"], &pod, None);
        check(&["/meshgate", "sidecar"], &[], None);
        check(&["m"], &[], None);
    }

    #[test]
    fn parents_of_strange_names() {
        assert_eq!(parent_of("12 (a) b) S 7 12 12"), Some(7));
        assert_eq!(parent_of("nonsense"), None);
    }

    #[test]
    fn this_process_is_below_its_parent() {
        let parents = parents();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(descends(own, parents[&own], &parents));
        assert!(!descends(own, own, &parents));
    }
}
