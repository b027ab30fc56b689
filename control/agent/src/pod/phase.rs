//! The phase of a pod, by the kubelet's rules.

use super::plan::{Now, Restart, Role};

/// What `status.phase` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }

    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

/// A container as the rules see it: `has_ended` also when it waits to be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) role: Role,
    pub(crate) now: Now,
    /// How its last run ended, if it ran before.
    pub(crate) last_succeeded: Option<bool>,
}

/// Decides. `over`: nothing of the pod will be started any more.
pub(crate) fn phase(containers: &[Seen], restart: Restart, initialized: bool, over: bool) -> Phase {
    let of = |role: Role| containers.iter().filter(move |seen| seen.role == role);
    let ended = |seen: &Seen| match seen.now {
        Now::Ended { succeeded } => Some(succeeded),
        Now::Waiting => seen.last_succeeded,
        Now::Running { .. } => None,
    };
    let init_failed = of(Role::Init).any(|seen| ended(seen) == Some(false));
    if init_failed && (restart == Restart::Never || over) {
        return Phase::Failed;
    }
    let running = containers
        .iter()
        .filter(|seen| seen.role != Role::Init && matches!(seen.now, Now::Running { .. }))
        .count();
    let mains_never_ran =
        of(Role::Main).any(|seen| seen.now == Now::Waiting && seen.last_succeeded.is_none());
    if over {
        if running > 0 {
            return Phase::Running;
        }
        let all_well = of(Role::Main).all(|seen| ended(seen) == Some(true));
        return if all_well {
            Phase::Succeeded
        } else {
            Phase::Failed
        };
    }
    if !initialized || mains_never_ran {
        return Phase::Pending;
    }
    Phase::Running
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in `plan`; `b0`/`b1` waits after a run that succeeded or failed.
    fn check(containers: &str, restart: Restart, initialized: bool, over: bool, wanted: Phase) {
        let parsed: Vec<Seen> = containers
            .split(' ')
            .map(|word| {
                let bytes = word.as_bytes();
                let role = match bytes[0] {
                    b'i' => Role::Init,
                    b's' => Role::Sidecar,
                    _ => Role::Main,
                };
                let (now, last_succeeded) = match &word[1..] {
                    "+" => (Now::Running { started: true }, None),
                    "0" => (Now::Ended { succeeded: true }, None),
                    "1" => (Now::Ended { succeeded: false }, None),
                    "b0" => (Now::Waiting, Some(true)),
                    "b1" => (Now::Waiting, Some(false)),
                    _ => (Now::Waiting, None),
                };
                Seen {
                    role,
                    now,
                    last_succeeded,
                }
            })
            .collect();
        assert_eq!(
            phase(&parsed, restart, initialized, over),
            wanted,
            "{containers} {restart:?}"
        );
    }

    #[test]
    fn phases() {
        use Phase::{Failed, Pending, Running, Succeeded};
        use Restart::{Always, Never, OnFailure};
        check("m.", Always, true, false, Pending);
        check("m+", Always, true, false, Running);
        check("m+ m.", Always, true, false, Pending);
        check("m+ mb1", Always, true, false, Running);
        check("mb1", Always, true, false, Running);
        check("m1", Always, true, false, Running);
        check("i+ m.", Always, false, false, Pending);
        check("i1 m.", Never, false, true, Failed);
        check("ib1 m.", Always, false, false, Pending);
        check("s+ m.", Always, true, false, Pending);
        check("s+ m0", OnFailure, true, true, Running);
        check("s0 m0", OnFailure, true, true, Succeeded);
        check("s1 m0", Never, true, true, Succeeded);
        check("m0 m0", Never, true, true, Succeeded);
        check("m0 m1", Never, true, true, Failed);
        check("m.", Never, false, true, Failed);
    }
}
