//! How spans are configured: by OpenTelemetry's own variables, and the few flags that win over them.

use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{MetadataKey, MetadataMap};

use super::collector::Collector;
use super::sampler::{Ratio, Sampler};

/// Where spans go, and which.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// Who takes them.
    pub collector: Collector,
    /// What each call says besides, such as a token.
    pub headers: MetadataMap,
    /// CA of the collector, with https; else those that the machine trusts.
    pub certificate: Option<PathBuf>,
    /// For one call.
    pub timeout: Duration,
    /// Which requests have spans.
    pub sampler: Sampler,
    /// Who tells: `service.name` and others.
    pub resource: Vec<(String, String)>,
    /// Spans that may wait, of each worker.
    pub queue_spans_max: usize,
    /// Spans of one call.
    pub batch_spans_max: usize,
    /// How long a span waits for company.
    pub delay: Duration,
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Who takes spans.
    pub collector: Option<Collector>,
    /// The share of those traces that begin here.
    pub ratio: Option<Ratio>,
}

impl TraceOptions {
    /// With OpenTelemetry's defaults.
    pub fn new(collector: Collector, service: &str) -> Self {
        Self {
            collector,
            headers: MetadataMap::new(),
            certificate: None,
            timeout: Duration::from_secs(10),
            sampler: Sampler::default(),
            resource: vec![("service.name".into(), service.into())],
            queue_spans_max: 2048,
            batch_spans_max: 512,
            delay: Duration::from_secs(5),
        }
    }

    /// From the flags and the variables, and what is wrong with the latter: OpenTelemetry wants that to be told and passed
    /// over. `None` when nobody asked for spans. `resource` is what is known of this process; the first is its service.
    pub fn read(
        flags: Flags,
        resource: &[(&str, &str)],
        variable: impl Fn(&str) -> Option<String>,
    ) -> (Option<Self>, Vec<String>) {
        let mut variables = Variables {
            read: &variable,
            wrong: Vec::new(),
        };
        let options = variables.options(flags, resource);
        (options, variables.wrong)
    }
}

struct Variables<'a> {
    read: &'a dyn Fn(&str) -> Option<String>,
    wrong: Vec<String>,
}

impl Variables<'_> {
    fn options(&mut self, flags: Flags, resource: &[(&str, &str)]) -> Option<TraceOptions> {
        let collector = match flags.collector {
            Some(collector) => collector,
            None => self.collector()?,
        };
        let mut options = TraceOptions::new(collector, "");
        options.resource = self.resource(resource);
        options.sampler = match flags.ratio {
            Some(root) => Sampler {
                parent_based: true,
                root,
            },
            None => self.sampler(),
        };
        if let Some(headers) = self.either("HEADERS") {
            self.headers(&headers, &mut options.headers);
        }
        options.certificate = self.either("CERTIFICATE").map(PathBuf::from);
        if self
            .either("COMPRESSION")
            .is_some_and(|name| name != "none")
        {
            self.ignored("OTEL_EXPORTER_OTLP_COMPRESSION", "nothing is compressed");
        }
        self.milliseconds("OTEL_EXPORTER_OTLP_TIMEOUT", &mut options.timeout);
        self.milliseconds("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", &mut options.timeout);
        self.milliseconds("OTEL_BSP_SCHEDULE_DELAY", &mut options.delay);
        self.above_zero("OTEL_BSP_MAX_QUEUE_SIZE", &mut options.queue_spans_max);
        self.above_zero(
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            &mut options.batch_spans_max,
        );
        options.batch_spans_max = options.batch_spans_max.min(options.queue_spans_max);
        Some(options)
    }

    /// Empty is as good as not set.
    fn read(&self, name: &str) -> Option<String> {
        (self.read)(name).filter(|value| !value.trim().is_empty())
    }

    /// A variable of the exporter's: that for traces before that for everything.
    fn either(&self, name: &str) -> Option<String> {
        self.read(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
            .or_else(|| self.read(&format!("OTEL_EXPORTER_OTLP_{name}")))
    }

    fn ignored(&mut self, name: &str, why: &str) {
        self.wrong.push(format!("{name}: {why}"));
    }

    /// Who takes spans, if somebody asked for them.
    fn collector(&mut self) -> Option<Collector> {
        if self
            .read("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
        {
            return None;
        }
        let exporter = self.read("OTEL_TRACES_EXPORTER");
        let asked = match exporter.as_deref() {
            None => false,
            Some("otlp") => true,
            Some("none") => return None,
            Some(other) => {
                self.ignored(
                    "OTEL_TRACES_EXPORTER",
                    &format!("{other:?} is not known, but otlp and none are"),
                );
                return None;
            }
        };
        let address = self.either("ENDPOINT");
        let address = address.or_else(|| asked.then(|| "http://localhost:4317".into()))?;
        if let Some(protocol) = self
            .either("PROTOCOL")
            .filter(|protocol| protocol != "grpc")
        {
            let why =
                format!("{protocol:?} is not spoken, but grpc is (port 4317 as a rule): no spans");
            self.ignored("OTEL_EXPORTER_OTLP_PROTOCOL", &why);
            return None;
        }
        let parsed = address.trim().parse();
        parsed
            .map_err(|error| {
                self.ignored("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("{error}: no spans"))
            })
            .ok()
    }

    /// What is known, and what is said of it: the latter wins, and OTEL_SERVICE_NAME over all.
    fn resource(&mut self, known: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut attributes: Vec<(String, String)> = Vec::new();
        let mut set = |name: &str, value: &str| {
            attributes.retain(|(other, _)| other != name);
            attributes.push((name.into(), value.into()));
        };
        known.iter().for_each(|(name, value)| set(name, value));
        let said = self.read("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        match pairs(&said) {
            Some(pairs) => pairs.iter().for_each(|(name, value)| set(name, value)),
            None => self.ignored(
                "OTEL_RESOURCE_ATTRIBUTES",
                "it must be name=value,name=value",
            ),
        }
        if let Some(service) = self.read("OTEL_SERVICE_NAME") {
            set("service.name", service.trim());
        }
        attributes
    }

    fn sampler(&mut self) -> Sampler {
        let name = self.read("OTEL_TRACES_SAMPLER");
        let argument = self.read("OTEL_TRACES_SAMPLER_ARG").and_then(|text| {
            let parsed = text.trim().parse();
            parsed
                .map_err(|why: String| self.ignored("OTEL_TRACES_SAMPLER_ARG", &why))
                .ok()
        });
        let Some(name) = name else {
            return Sampler::default();
        };
        Sampler::named(name.trim(), argument).unwrap_or_else(|| {
            let why = format!("{name:?} is not known; parentbased_always_on is taken");
            self.ignored("OTEL_TRACES_SAMPLER", &why);
            Sampler::default()
        })
    }

    fn headers(&mut self, said: &str, headers: &mut MetadataMap) {
        const NAME: &str = "OTEL_EXPORTER_OTLP_HEADERS";
        let Some(pairs) = pairs(said) else {
            return self.ignored(NAME, "it must be name=value,name=value");
        };
        for (name, value) in pairs {
            let key = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            match (key, value.parse()) {
                (Ok(key), Ok(value)) => _ = headers.insert(key, value),
                // Its value may be a secret.
                _ => self.ignored(NAME, &format!("{name:?} is no field of HTTP")),
            }
        }
    }

    fn milliseconds(&mut self, name: &str, to: &mut Duration) {
        let mut number = 0;
        self.above_zero(name, &mut number);
        if number > 0 {
            *to = Duration::from_millis(number as u64);
        }
    }

    fn above_zero(&mut self, name: &str, to: &mut usize) {
        let Some(text) = self.read(name) else { return };
        match text.trim().parse() {
            Ok(number) if number > 0 => *to = number,
            _ => self.ignored(name, &format!("{text:?} is no number above zero")),
        }
    }
}

/// `name=value,name=value`, where values may be percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then_some(())?;
        Some((name.to_owned(), decoded(value.trim())?))
    };
    parts.map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
