//! What to do next with a pod's containers: pure rules of init containers, sidecars and restarts.

/// Which part a container plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next starts.
    Init,
    /// An init container that stays: started in order, restarted always, stopped last.
    Sidecar,
    /// What the pod is for.
    Main,
}

/// When a container that ended runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    pub(crate) fn of_pod(policy: Option<&str>) -> Restart {
        match policy {
            Some("Never") => Restart::Never,
            Some("OnFailure") => Restart::OnFailure,
            _ => Restart::Always,
        }
    }

    fn again(self, succeeded: bool) -> bool {
        match self {
            Restart::Always => true,
            Restart::OnFailure => !succeeded,
            Restart::Never => false,
        }
    }
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Now {
    /// It has not run (in this sandbox).
    Waiting,
    /// It runs; `started` once its startup probe has passed.
    Running { started: bool },
    /// It ended.
    Ended { succeeded: bool },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Start these; nothing when all that should run does.
    Start(Vec<usize>),
    /// Nothing will run again: stop what still does, sidecars last, and the pod is over.
    Finish,
}

/// Decides. `containers` are in the pod's order, init containers first; `initialized` once the init containers were
/// through in this sandbox.
pub(crate) fn plan(
    containers: &[(Role, Now)],
    restart: Restart,
    initialized: bool,
) -> (Plan, bool) {
    let mut start = Vec::new();
    let mut ready_for_mains = true;
    for (at, (role, now)) in containers.iter().enumerate() {
        match (role, now) {
            (Role::Main, _) => {}
            (Role::Sidecar, Now::Running { started: true }) => {}
            (Role::Sidecar, Now::Running { started: false }) => {
                if !initialized {
                    ready_for_mains = false;
                    break;
                }
            }
            (Role::Sidecar, _) => {
                start.push(at);
                if !initialized {
                    ready_for_mains = false;
                    break;
                }
            }
            // Once is enough.
            (Role::Init, _) if initialized => {}
            (Role::Init, Now::Ended { succeeded: true }) => {}
            (Role::Init, Now::Ended { succeeded: false }) if restart == Restart::Never => {
                return (Plan::Finish, initialized);
            }
            (Role::Init, now) => {
                if !matches!(now, Now::Running { .. }) {
                    start.push(at);
                }
                ready_for_mains = false;
                break;
            }
        }
    }
    if !ready_for_mains {
        return (Plan::Start(start), false);
    }
    let mains = || {
        containers
            .iter()
            .enumerate()
            .filter(|(_, (role, _))| *role == Role::Main)
    };
    let over = |now: &Now| matches!(now, Now::Ended { succeeded } if !restart.again(*succeeded));
    if mains().all(|(_, (_, now))| over(now)) {
        return (Plan::Finish, true);
    }
    start.extend(mains().filter_map(|(at, (_, now))| match now {
        Now::Waiting => Some(at),
        Now::Ended { .. } if !over(now) => Some(at),
        _ => None,
    }));
    (Plan::Start(start), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `i` init, `s` sidecar, `m` main; `.` waiting, `~` running but not started, `+` running, `0` succeeded, `1` failed.
    fn check(containers: &str, restart: Restart, initialized: bool, wanted: &str) {
        let parsed: Vec<(Role, Now)> = containers
            .split(' ')
            .map(|word| {
                let mut chars = word.chars();
                let role = match chars.next() {
                    Some('i') => Role::Init,
                    Some('s') => Role::Sidecar,
                    _ => Role::Main,
                };
                let now = match chars.next() {
                    Some('~') => Now::Running { started: false },
                    Some('+') => Now::Running { started: true },
                    Some('0') => Now::Ended { succeeded: true },
                    Some('1') => Now::Ended { succeeded: false },
                    _ => Now::Waiting,
                };
                (role, now)
            })
            .collect();
        let shown = match plan(&parsed, restart, initialized) {
            (Plan::Finish, _) => "finish".to_owned(),
            (Plan::Start(start), initialized) => {
                let mark = if initialized { "!" } else { "" };
                let list: Vec<String> = start.iter().map(usize::to_string).collect();
                format!("{}{mark}", list.join(","))
            }
        };
        assert_eq!(shown, wanted, "{containers} {restart:?}");
    }

    #[test]
    fn containers_start_in_order() {
        use Restart::{Always, Never, OnFailure};
        check("m. m.", Always, false, "0,1!");
        check("i. i. m.", Always, false, "0");
        check("i+ i. m.", Always, false, "");
        check("i0 i. m.", Always, false, "1");
        check("i1 i. m.", Always, false, "0");
        check("i1 i. m.", Never, false, "finish");
        check("i0 i0 m.", Always, false, "2!");
        check("s. m.", Always, false, "0");
        check("s~ m.", Always, false, "");
        check("s+ m.", Always, false, "1!");
        check("s+ i. m.", Always, false, "1");
        check("s1 i0 m.", Always, false, "0");
        check("s1 m+", Always, true, "0!");
        check("s~ m+ m1", Always, true, "2!");
        check("s1 m1", Always, true, "0,1!");
        check("s+ m0", OnFailure, true, "finish");
        check("s+ m1", OnFailure, true, "1!");
        check("m0 m1", Never, true, "finish");
        check("m0 m+", Never, true, "!");
        check("m0", Always, true, "0!");
    }
}
