//! Node ports of Services.

use meshgate_schema::FieldError;
use rand::Rng as _;
use serde_json::{Map, Value};

use super::{PICKS_MAX, Reservation, State};

/// As in Kubernetes by default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// From here on ports are picked: the lower ones stay for those that people choose (KEP-3668).
const PICKED_FROM: u16 = 30086;

/// The node ports of a Service.
pub(super) fn of(service: &Value) -> Vec<u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let numbers = ports.filter_map(|port| port["nodePort"].as_u64());
    numbers
        .filter_map(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .collect()
}

/// Completes the `nodePort`s of a Service that has such, and removes them from one that has not.
pub(super) fn assign(
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
    let ports = service
        .get_mut("spec")
        .and_then(|spec| spec.get_mut("ports"))
        .and_then(Value::as_array_mut);
    for (at, port) in ports.into_iter().flatten().enumerate() {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        if !exposed {
            port.shift_remove("nodePort");
            continue;
        }
        let field = format!("spec.ports[{at}].nodePort");
        match port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) {
            0 => match kept(port, old).or_else(|| pick(state, reservation)) {
                Some(number) => {
                    port.insert("nodePort".into(), number.into());
                }
                None => errors.push(FieldError::invalid(
                    field,
                    0,
                    "failed to allocate a nodePort: range is full",
                )),
            },
            number
                if old.is_some_and(|old| of(old).iter().any(|own| u64::from(*own) == number)) => {}
            number => errors.extend(claim(state, reservation, &field, number)),
        }
    }
}

/// The number that the same port of the stored Service has.
fn kept(port: &Map<String, Value>, old: Option<&Value>) -> Option<u16> {
    let ports = old?["spec"]["ports"].as_array()?;
    let same = ports.iter().find(|old| {
        old.get("port") == port.get("port") && old.get("protocol") == port.get("protocol")
    })?;
    let number = u16::try_from(same["nodePort"].as_u64()?).ok()?;
    (number > 0).then_some(number)
}

/// Takes the number that a client chose.
fn claim(
    state: &mut State,
    reservation: &mut Reservation,
    field: &str,
    number: u64,
) -> Option<FieldError> {
    let Some(port) = u16::try_from(number)
        .ok()
        .filter(|port| NODE_PORTS.contains(port))
    else {
        let detail = format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            NODE_PORTS.start(),
            NODE_PORTS.end()
        );
        return Some(FieldError::invalid(field, number, detail));
    };
    if state.ports.contains(&port) || state.pending_ports.contains(&port) {
        let detail = "provided port is already allocated";
        return Some(FieldError::invalid(field, number, detail));
    }
    take(state, reservation, port);
    None
}

fn pick(state: &mut State, reservation: &mut Reservation) -> Option<u16> {
    let free = |port: &u16| !state.ports.contains(port) && !state.pending_ports.contains(port);
    let mut rng = rand::rng();
    let picked = (0..PICKS_MAX)
        .map(|_| rng.random_range(PICKED_FROM..=*NODE_PORTS.end()))
        .find(free);
    let port = picked.or_else(|| NODE_PORTS.into_iter().find(free))?;
    take(state, reservation, port);
    Some(port)
}

fn take(state: &mut State, reservation: &mut Reservation, port: u16) {
    state.pending_ports.insert(port);
    reservation.ports.push(port);
}
