//! Amounts of what nodes have and pods ask for.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use meshgate_api::client::{BadQuantity, Quantity};

/// What scoring assumes of a pod that asks for nothing: such pods spread too.
const ASSUMED_CPU_MILLI: i64 = 100;
const ASSUMED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts by resource. `pods` is not among them: a node counts its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Ephemeral storage, huge pages and extended resources, in their own units.
    pub others: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a `requests` or `allocatable` map, leaving `pods` out.
    pub(crate) fn read(amounts: &BTreeMap<String, WireQuantity>) -> Result<Self, BadQuantity> {
        let mut resources = Self::default();
        for (name, amount) in amounts {
            let amount = Quantity::parse(&amount.0)?;
            match name.as_str() {
                "cpu" => resources.cpu_milli = amount.milli(),
                "memory" => resources.memory_bytes = amount.units(),
                "pods" => {}
                _ => {
                    resources.others.insert(name.clone(), amount.units());
                }
            }
        }
        Ok(resources)
    }

    /// The same with the least that scoring assumes of a pod.
    pub(crate) fn assumed(&self) -> Self {
        let assume = |asked: i64, otherwise: i64| if asked == 0 { otherwise } else { asked };
        Self {
            cpu_milli: assume(self.cpu_milli, ASSUMED_CPU_MILLI),
            memory_bytes: assume(self.memory_bytes, ASSUMED_MEMORY_BYTES),
            others: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    pub(crate) fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
        self.others.retain(|_, amount| *amount != 0);
    }

    /// Raises each amount to at least that of `other`.
    pub(crate) fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, combine: impl Fn(i64, i64) -> i64) {
        self.cpu_milli = combine(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = combine(self.memory_bytes, other.memory_bytes);
        for (name, amount) in &other.others {
            let own = self.others.entry(name.clone()).or_default();
            *own = combine(*own, *amount);
        }
    }
}
