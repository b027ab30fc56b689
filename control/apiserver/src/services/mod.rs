//! Addresses of Services: which cluster IPs and node ports are taken.
//!
//! What is taken follows from the stored Services alone (the store tells of every write before it is acknowledged),
//! so nothing leaks; a write under way holds a reservation that ends with it.

mod ports;

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshgate_schema::FieldError;
use rand::Rng as _;
use serde_json::{Value, json};

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
            let (addresses, ports) = (cluster_ips(service), ports::of(service));
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
        ports::assign(&mut state, &mut reservation, service, old, &mut errors);
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

#[cfg(test)]
mod tests;
