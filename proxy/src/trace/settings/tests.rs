use super::*;

/// What comes of those variables: the collector, the sampler, the resource; and which of them are wrong.
fn check(variables: &[(&str, &str)], expected: &str, wrong: &[&str]) {
    let read = |name: &str| {
        let found = variables.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let (options, said) = TraceOptions::read(Flags::default(), &[("service.name", "edge")], read);
    let shown = options.map_or_else(
        || "off".to_owned(),
        |options| {
            let resource = options.resource.iter();
            let resource: Vec<_> = resource
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            format!("{} {}", options.collector, resource.join(" "))
        },
    );
    assert_eq!(shown, expected, "{variables:?}");
    let names: Vec<&str> = said
        .iter()
        .filter_map(|text| text.split(": ").next())
        .collect();
    assert_eq!(names, wrong, "{variables:?}: {said:?}");
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");

#[test]
fn who_is_told() {
    check(&[], "off", &[]);
    check(&[ENDPOINT], "http://c:4317/ service.name=edge", &[]);
    check(
        &[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t:1"),
        ],
        "https://t:1/ service.name=edge",
        &[],
    );
    check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], "off", &[]);
    check(
        &[("OTEL_TRACES_EXPORTER", "otlp")],
        "http://localhost:4317/ service.name=edge",
        &[],
    );
    check(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], "off", &[]);
    check(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")], "off", &[]);
    check(
        &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")],
        "off",
        &["OTEL_TRACES_EXPORTER"],
    );
    check(
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317")],
        "off",
        &["OTEL_EXPORTER_OTLP_ENDPOINT"],
    );
    check(
        &[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
        "off",
        &["OTEL_EXPORTER_OTLP_PROTOCOL"],
    );
    check(
        &[ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")],
        "http://c:4317/ service.name=edge",
        &[],
    );
}

#[test]
fn who_tells() {
    check(
        &[
            ENDPOINT,
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "a=1, service.name=x,b=%C3%A4%2C",
            ),
        ],
        "http://c:4317/ a=1 service.name=x b=ä,",
        &[],
    );
    check(
        &[
            ENDPOINT,
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x"),
            ("OTEL_SERVICE_NAME", "shop"),
        ],
        "http://c:4317/ service.name=shop",
        &[],
    );
    for wrong in ["a", "=1", "a=%", "a=%zz", "a=%ff"] {
        check(
            &[ENDPOINT, ("OTEL_RESOURCE_ATTRIBUTES", wrong)],
            "http://c:4317/ service.name=edge",
            &["OTEL_RESOURCE_ATTRIBUTES"],
        );
    }
}

#[test]
fn the_rest() {
    let set = [
        ENDPOINT,
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "Authorization=Bearer%20x,bad name=1",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "7"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
    ];
    let read = |flags| {
        TraceOptions::read(flags, &[], |name| {
            let found = set.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    let (options, wrong) = read(Flags::default());
    let options = options.unwrap();
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert_eq!(options.headers.get("authorization").unwrap(), "Bearer x");
    assert_eq!(options.timeout, Duration::from_secs(10));
    assert_eq!(options.delay, Duration::from_millis(100));
    assert_eq!((options.queue_spans_max, options.batch_spans_max), (7, 7));
    let half: Ratio = "0.5".parse().unwrap();
    let sampler = |parent_based, root| Sampler { parent_based, root };
    assert_eq!(options.sampler, sampler(false, half));
    // Flags win.
    let flags = Flags {
        collector: "http://other:1".parse().ok(),
        ratio: Some(Ratio::NONE),
    };
    let options = read(flags).0.unwrap();
    assert_eq!(options.sampler, sampler(true, Ratio::NONE));
    assert_eq!(options.collector.to_string(), "http://other:1/");
}

#[test]
fn what_is_not_known_is_told_and_passed_over() {
    check(
        &[
            ENDPOINT,
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ],
        "http://c:4317/ service.name=edge",
        &[
            "OTEL_TRACES_SAMPLER_ARG",
            "OTEL_TRACES_SAMPLER",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
        ],
    );
}
