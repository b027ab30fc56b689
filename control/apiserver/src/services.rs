//! Addresses of Services: which cluster IPs and node ports are taken.
//!
//! What is taken follows from the stored Services alone (the store tells of every write before it is acknowledged),
//! so nothing leaks; a write under way holds a reservation that ends with it.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshgate_schema::FieldError;
use rand::Rng as _;
use serde_json::{Value, json};

/// Node ports, as in Kubernetes by default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// Random picks before the range is searched in order.
const PICKS_MAX: usize = 32;

/// The allocator; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    first: u32,
    last: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Taken by stored Services, by key: to free exactly what a Service held.
    held: HashMap<Box<str>, (Vec<Ipv4Addr>, Vec<u16>)>,
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<u16>,
    /// Reserved by writes under way.
    pending_addresses: HashSet<Ipv4Addr>,
    pending_ports: HashSet<u16>,
}

/// What a write took and has not stored yet.
#[derive(Debug)]
pub(crate) struct Reservation {
    state: Arc<Mutex<State>>,
    addresses: Vec<Ipv4Addr>,
    ports: Vec<u16>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        for address in &self.addresses {
            state.pending_addresses.remove(address);
        }
        for port in &self.ports {
            state.pending_ports.remove(port);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Addresses {
    /// All addresses of a network but its first (network) and last (broadcast).
    pub(crate) fn new(network: Ipv4Addr, prefix_len: u8) -> Addresses {
        let host_bits = 32 - u32::from(prefix_len.min(30));
        let base = u32::from(network) & (u32::MAX << host_bits);
        Addresses {
            first: base + 1,
            last: base + ((1_u32 << host_bits) - 2),
            state: Arc::default(),
        }
    }

    /// Takes in a stored Service, or its deletion.
    pub(crate) fn follow(&self, key: &str, service: Option<&Value>) {
        let mut state = lock(&self.state);
        if let Some((addresses, ports)) = state.held.remove(key) {
            for address in addresses {
                state.addresses.remove(&address);
            }
            for port in ports {
                state.ports.remove(&port);
            }
        }
        if let Some(service) = service {
            let (addresses, ports) = (cluster_ips(service), node_ports(service));
            state.addresses.extend(&addresses);
            state.ports.extend(&ports);
            state.held.insert(key.into(), (addresses, ports));
        }
    }

    /// Completes a Service's `clusterIP(s)` and `nodePort`s; `old` is what is stored, if it is.
    ///
    /// The reservation must live until the write has been stored or given up.
    pub(crate) fn assign(
        &self,
        service: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reservation, Vec<FieldError>> {
        let mut reservation = Reservation {
            state: Arc::clone(&self.state),
            addresses: Vec::new(),
            ports: Vec::new(),
        };
        let mut state = lock(&self.state);
        let mut errors = Vec::new();
        if is_external_name(service) {
            release(service);
            return Ok(reservation);
        }
        self.assign_address(&mut state, &mut reservation, service, old, &mut errors);
        assign_ports(&mut state, &mut reservation, service, old, &mut errors);
        drop(state);
        if errors.is_empty() {
            Ok(reservation)
        } else {
            Err(errors)
        }
    }

    fn assign_address(
        &self,
        state: &mut State,
        reservation: &mut Reservation,
        service: &mut Value,
        old: Option<&Value>,
        errors: &mut Vec<FieldError>,
    ) {
        let wanted = wanted_address(service);
        let before = old.map(wanted_address).unwrap_or_default();
        let address = match wanted.as_str() {
            // Left out in an update: the address stays.
            "" if !before.is_empty() => before,
            "" => match self.pick(state) {
                Some(address) => {
                    take(state, reservation, address);
                    address.to_string()
                }
                None => {
                    errors.push(FieldError::invalid(
                        "spec.clusterIPs",
                        json!([]),
                        "failed to allocate IP: the range is full",
                    ));
                    return;
                }
            },
            "None" => wanted,
            same if same == before => wanted,
            other => match self.claim(state, other) {
                Ok(address) => {
                    take(state, reservation, address);
                    wanted
                }
                Err(problem) => {
                    errors.push(FieldError::invalid(
                        "spec.clusterIPs",
                        json!([wanted]),
                        problem,
                    ));
                    return;
                }
            },
        };
        write_address(service, &address);
    }

    fn claim(&self, state: &State, text: &str) -> Result<Ipv4Addr, String> {
        let address: Ipv4Addr = text
            .parse()
            .map_err(|_| "must be a valid IPv4 address, or \"None\"".to_owned())?;
        let number = u32::from(address);
        if number < self.first || number > self.last {
            return Err(format!(
                "failed to allocate IP {address}: the provided IP is not in the valid range. \
                 The range of valid IPs is {}",
                self.network()
            ));
        }
        if state.addresses.contains(&address) || state.pending_addresses.contains(&address) {
            return Err(format!(
                "failed to allocate IP {address}: provided IP is already allocated"
            ));
        }
        Ok(address)
    }

    fn network(&self) -> String {
        let bits = (self.last - self.first + 2).trailing_ones();
        format!("{}/{}", Ipv4Addr::from(self.first - 1), 32 - bits)
    }

    /// A free address from the upper part, so that the lower one stays for addresses that people choose.
    fn pick(&self, state: &State) -> Option<Ipv4Addr> {
        let free = |address: &Ipv4Addr| {
            !state.addresses.contains(address) && !state.pending_addresses.contains(address)
        };
        let low = self.first
            + ((self.last - self.first) / 16)
                .clamp(1, 256)
                .min(self.last - self.first);
        let mut rng = rand::rng();
        let picked = (0..PICKS_MAX)
            .map(|_| Ipv4Addr::from(rng.random_range(low..=self.last)))
            .find(free);
        picked.or_else(|| {
            (low..=self.last)
                .chain(self.first..low)
                .map(Ipv4Addr::from)
                .find(free)
        })
    }
}

fn take(state: &mut State, reservation: &mut Reservation, address: Ipv4Addr) {
    state.pending_addresses.insert(address);
    reservation.addresses.push(address);
}

fn assign_ports(
    state: &mut State,
    reservation: &mut Reservation,
    service: &mut Value,
    old: Option<&Value>,
    errors: &mut Vec<FieldError>,
) {
    let exposed = matches!(
        service["spec"]["type"].as_str(),
        Some("NodePort" | "LoadBalancer")
    );
    let before: Vec<u16> = old.map(node_ports).unwrap_or_default();
    let old_ports = old
        .and_then(|old| old["spec"]["ports"].as_array())
        .cloned()
        .unwrap_or_default();
    let Some(ports) = service
        .get_mut("spec")
        .and_then(|spec| spec.get_mut("ports"))
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    for (at, port) in ports.iter_mut().enumerate() {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        if !exposed {
            port.remove("nodePort");
            continue;
        }
        let field = format!("spec.ports[{at}].nodePort");
        match port
            .get("nodePort")
            .and_then(Value::as_u64)
            .unwrap_or_default()
        {
            0 => {
                // The same port of the stored Service keeps its number.
                let same = old_ports.iter().find(|old| {
                    old["port"] == port["port"] && old.get("protocol") == port.get("protocol")
                });
                let kept = same
                    .and_then(|old| old["nodePort"].as_u64())
                    .filter(|number| *number > 0);
                let Some(number) = kept.or_else(|| pick_port(state, reservation).map(u64::from))
                else {
                    errors.push(FieldError::invalid(
                        field,
                        0,
                        "failed to allocate a nodePort: range is full",
                    ));
                    continue;
                };
                port.insert("nodePort".into(), number.into());
            }
            number => match u16::try_from(number) {
                Ok(number) if before.contains(&number) => {}
                Ok(number) if !NODE_PORTS.contains(&number) => {
                    errors.push(out_of_range(field, number.into()))
                }
                Ok(number)
                    if state.ports.contains(&number) || state.pending_ports.contains(&number) =>
                {
                    errors.push(FieldError::invalid(
                        field,
                        number,
                        "provided port is already allocated",
                    ));
                }
                Ok(number) => {
                    state.pending_ports.insert(number);
                    reservation.ports.push(number);
                }
                Err(_) => errors.push(out_of_range(field, number)),
            },
        }
    }
}

fn out_of_range(field: String, number: u64) -> FieldError {
    let detail = format!(
        "provided port is not in the valid range. The range of valid ports is {}-{}",
        NODE_PORTS.start(),
        NODE_PORTS.end()
    );
    FieldError::invalid(field, number, detail)
}

fn pick_port(state: &mut State, reservation: &mut Reservation) -> Option<u16> {
    let free = |port: &u16| !state.ports.contains(port) && !state.pending_ports.contains(port);
    let mut rng = rand::rng();
    let picked = (0..PICKS_MAX)
        .map(|_| rng.random_range(NODE_PORTS))
        .find(free);
    let port = picked.or_else(|| NODE_PORTS.into_iter().find(free))?;
    state.pending_ports.insert(port);
    reservation.ports.push(port);
    Some(port)
}

fn is_external_name(service: &Value) -> bool {
    service["spec"]["type"] == "ExternalName"
}

/// An ExternalName Service has no address; one that becomes such gives its own up.
fn release(service: &mut Value) {
    if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(field);
        }
    }
}

/// `clusterIP`, or the first of `clusterIPs`.
fn wanted_address(service: &Value) -> String {
    let spec = &service["spec"];
    let single = spec["clusterIP"].as_str().filter(|text| !text.is_empty());
    single
        .or_else(|| spec["clusterIPs"][0].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn write_address(service: &mut Value, address: &str) {
    let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    spec.insert("clusterIP".into(), address.into());
    spec.insert("clusterIPs".into(), json!([address]));
    // Headless without a selector may name families of its own; everything else is IPv4 here.
    spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    spec.entry("ipFamilyPolicy")
        .or_insert_with(|| json!("SingleStack"));
}

fn cluster_ips(service: &Value) -> Vec<Ipv4Addr> {
    wanted_address(service).parse().into_iter().collect()
}

fn node_ports(service: &Value) -> Vec<u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let numbers = ports.filter_map(|port| port["nodePort"].as_u64());
    numbers
        .filter_map(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        json!({"spec": spec})
    }

    fn check(
        addresses: &Addresses,
        spec: Value,
        old: Option<&Value>,
        expected: Result<Value, &str>,
    ) {
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
}
