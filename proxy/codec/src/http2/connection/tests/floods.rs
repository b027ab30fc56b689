//! Frames without end.

use super::*;

/// How many frames of a flood are taken.
fn flood(start: &str, words: impl Fn(u32) -> String) -> u32 {
    let mut end = End::new(Role::Server);
    end.step("settings");
    for step in start.split(';').filter(|step| !step.is_empty()) {
        end.step(step.trim());
    }
    for round in 0..100_000 {
        for step in words(2 * round + 1).split(';') {
            match end.step(step.trim()).as_str() {
                "broken ENHANCE_YOUR_CALM" => return round,
                other => assert!(!other.starts_with("broken"), "{other}"),
            }
        }
    }
    panic!("never ends");
}

#[test]
fn floods_end() {
    for (start, words) in [
        ("", "ping"),
        ("", "pong"),
        ("", "settings 4=5"),
        ("ack", "ack"),
        ("", "priority 1 0"),
        ("", "window 0 1"),
        ("", "unknown 0"),
        ("", "leaves 1 0"),
        ("head 1 post", "data 1 0"),
        ("head 1 post", "window 1 1"),
        ("head 1 post", "reset 1 8"),
        ("head 1 post; !reset 1", "reset 1 8"),
        ("head 1 get end; !answer 1 end", "window 1 0"),
    ] {
        let taken = flood(start, |_| words.into());
        assert!((900..1100).contains(&taken), "{words}: {taken}");
    }
    let rapid = flood("", |id| format!("head {id} get end; reset {id} 8"));
    assert_eq!(rapid, 499);
    for provoke in [
        "window ID 0",
        "window ID 2147483647",
        "priority ID ID",
        "head ID trailers",
    ] {
        let taken = flood("", |id| {
            format!("head {id} post; {}", provoke.replace("ID", &id.to_string()))
        });
        assert_eq!(taken, 100, "{provoke}");
    }
    assert_eq!(flood("", |id| format!("head {id} upper end")), 100);
    assert_eq!(
        flood("", |id| format!("head {id} get end; data {id} 1")),
        100
    );
    assert_eq!(flood("head 1 post; reset 1 8", |_| "data 1 1".into()), 100);
}

/// A request that brings two frames of nothing with each answer is no flood.
#[test]
fn asking_earns_patience() {
    let mut end = End::new(Role::Client);
    end.step("settings");
    for round in 0..5_000 {
        let stream = 2 * round + 1;
        end.step("!ask end");
        end.step("ping");
        assert_eq!(end.step("window 0 1"), "room");
        assert_eq!(
            end.step(&format!("head {stream} ok end")),
            format!("response {stream} 200 end")
        );
    }
}

/// What a proxy's clients give up is not the proxy's flood; other floods are.
#[test]
fn who_speaks_for_many_may_give_up_what_they_do() {
    let config = Config {
        speaks_for_many: true,
        ..CONFIG
    };
    let mut end = End::with(Role::Server, config);
    end.step("settings");
    for round in 0..5_000 {
        let id = 2 * round + 1;
        end.step(&format!("head {id} get end"));
        let given_up = end.step(&format!("reset {id} 8"));
        assert_eq!(given_up, format!("reset {id} CANCEL by peer"));
    }
    let pings = (0..5_000).take_while(|_| end.step("ping") == ">pong");
    assert_eq!(pings.count(), 1000);
}
