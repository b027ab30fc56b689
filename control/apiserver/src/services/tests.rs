//! Allocation, step by step.

use super::*;

fn service(spec: Value) -> Value {
    json!({"spec": spec})
}

fn check(addresses: &Addresses, spec: Value, old: Option<&Value>, expected: Result<Value, &str>) {
    let mut got = service(spec);
    let outcome = addresses.assign(&mut got, old);
    match (outcome, expected) {
        (Ok(_), Ok(expected)) => {
            for (field, value) in expected.as_object().expect("an object of expected fields") {
                assert_eq!(&got["spec"][field], value, "{field} of {got}");
            }
        }
        (Err(errors), Err(expected)) => assert_eq!(errors[0].to_string(), expected),
        (outcome, expected) => panic!("{outcome:?}, not {expected:?}"),
    }
}

#[test]
fn addresses_are_taken_and_given_back() {
    let addresses = Addresses::new(Ipv4Addr::new(10, 96, 0, 0), 30);
    let fixed = json!({"clusterIP": "10.96.0.1"});
    check(
        &addresses,
        fixed.clone(),
        None,
        Ok(json!({"clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"]})),
    );
    addresses.follow("a", Some(&service(fixed.clone())));
    check(
        &addresses,
        fixed.clone(),
        None,
        Err(
            "spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: provided IP is already allocated",
        ),
    );
    check(
        &addresses,
        fixed.clone(),
        Some(&service(fixed.clone())),
        Ok(json!({"clusterIP": "10.96.0.1"})),
    );
    check(
        &addresses,
        json!({}),
        None,
        Ok(json!({"clusterIP": "10.96.0.2"})),
    );
    addresses.follow("b", Some(&service(json!({"clusterIP": "10.96.0.2"}))));
    check(
        &addresses,
        json!({}),
        None,
        Err("spec.clusterIPs: Invalid value: []: failed to allocate IP: the range is full"),
    );
    addresses.follow("a", None);
    check(
        &addresses,
        json!({}),
        None,
        Ok(json!({"clusterIP": "10.96.0.1"})),
    );
    check(
        &addresses,
        json!({"clusterIP": "None"}),
        None,
        Ok(json!({"clusterIPs": ["None"]})),
    );
    check(
        &addresses,
        json!({"clusterIP": "192.0.2.1"}),
        None,
        Err(
            "spec.clusterIPs: Invalid value: [\"192.0.2.1\"]: failed to allocate IP 192.0.2.1: the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/30",
        ),
    );
}

#[test]
fn node_ports_only_where_they_are_exposed() {
    let addresses = Addresses::new(Ipv4Addr::new(10, 96, 0, 0), 16);
    let fixed = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    check(
        &addresses,
        fixed.clone(),
        None,
        Ok(json!({"ports": [{"port": 80, "nodePort": 30080}]})),
    );
    addresses.follow("a", Some(&service(fixed.clone())));
    check(
        &addresses,
        fixed.clone(),
        None,
        Err("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"),
    );
    let old = service(fixed);
    check(
        &addresses,
        json!({"type": "NodePort", "ports": [{"port": 80}]}),
        Some(&old),
        Ok(json!({"ports": [{"port": 80, "nodePort": 30080}]})),
    );
    check(
        &addresses,
        json!({"type": "ClusterIP", "ports": [{"port": 80, "nodePort": 30080}]}),
        Some(&old),
        Ok(json!({"ports": [{"port": 80}]})),
    );
    check(
        &addresses,
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
        None,
        Err(
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
    );
}

#[test]
fn a_reservation_ends_with_its_write() {
    let addresses = Addresses::new(Ipv4Addr::new(10, 96, 0, 0), 30);
    let fixed = || service(json!({"clusterIP": "10.96.0.1"}));
    let held = addresses.assign(&mut fixed(), None).expect("it is free");
    assert!(addresses.assign(&mut fixed(), None).is_err());
    drop(held);
    assert!(addresses.assign(&mut fixed(), None).is_ok());
}
