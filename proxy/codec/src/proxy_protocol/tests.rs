//! Headers as texts and bytes, in any parts.

use proptest::prelude::*;

use super::crc32c::crc32c;
use super::*;

/// Ever more of the input; every way must end the same way, and no sooner than it may.
fn verdict(input: &[u8]) -> Result<Parsed, BadHeader> {
    let whole = parse(input);
    let first = (0..=input.len())
        .map(|end| parse(&input[..end]))
        .find(|parsed| *parsed != Ok(Parsed::Partial));
    assert_eq!(
        first.unwrap_or(Ok(Parsed::Partial)),
        whole,
        "{}",
        input.escape_ascii()
    );
    whole
}

/// `source destination`, or what is told instead; then what is left of the input.
fn show(parsed: Result<Parsed, BadHeader>, length: usize) -> Result<String, BadHeader> {
    Ok(match parsed? {
        Parsed::Partial => "partial".to_owned(),
        Parsed::Header { consumed, origin } => {
            let left = length - consumed;
            match origin {
                Origin::Proxy => format!("proxy +{left}"),
                Origin::Untold => format!("untold +{left}"),
                Origin::Client {
                    transport,
                    source,
                    destination,
                } => format!("{transport:?} {source} {destination} +{left}"),
            }
        }
    })
}

fn check(input: impl AsRef<[u8]>, expected: Result<&str, BadHeader>) {
    let input = input.as_ref();
    let found = show(verdict(input), input.len());
    assert_eq!(
        found.as_deref(),
        expected.as_ref().map(|s| *s),
        "{}",
        input.escape_ascii()
    );
}

#[test]
fn version_1_is_one_exact_line() {
    check(
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 65535\r\nGET",
        Ok("Stream 1.2.3.4:9 5.6.7.8:65535 +3"),
    );
    check(
        "PROXY TCP6 ::1 fe80::2 0 1\r\n",
        Ok("Stream [::1]:0 [fe80::2]:1 +0"),
    );
    check("PROXY UNKNOWN\r\n", Ok("untold +0"));
    check("PROXY UNKNOWN ffff::1 whatever\r\nx", Ok("untold +1"));
    for partial in ["", "P", "PROXY", "PROXY TCP4 1.2.3.4", "PROXY UNKNOWN\r"] {
        check(partial, Ok("partial"));
    }
    for bad in [
        "TCP4 1.2.3.4 5.6.7.8 9",
        "TCP4 1.2.3.4 5.6.7.8 9 10 ",
        "TCP4  1.2.3.4 5.6.7.8 9 10",
        "TCP4 1.2.3.4 5.6.7.8 +9 10",
        "TCP4 1.2.3.4 5.6.7.8 09 10",
        "TCP4 1.2.3.4 5.6.7.8 9 65536",
        "TCP4 1.2.3.4 5.6.7.8 9 ",
        "TCP4 ::1 ::2 9 10",
        "TCP6 1.2.3.4 5.6.7.8 9 10",
        "TCP4 1.2.3 5.6.7.8 9 10",
        "TCP4 01.2.3.4 5.6.7.8 9 10",
        "TCP4 1.2.3.4 5.6.7.8 9 10 11",
        "TCP4",
    ] {
        check(format!("PROXY {bad}\r\n"), Err(BadHeader::Addresses));
    }
    check(
        "PROXY TCP4 1.2.3.4 5.6.7.8 9 10\n",
        Err(BadHeader::Addresses),
    );
    for bad in [
        "TCP5 1.2.3.4 5.6.7.8 9 10",
        "UDP4 1.2.3.4 5.6.7.8 9 10",
        "",
        "tcp4 1.2.3.4 5.6.7.8 9 10",
    ] {
        check(format!("PROXY {bad}\r\n"), Err(BadHeader::Family));
    }
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
    check(&longest, Ok("untold +0"));
    check(longest.replace("\r\n", "x\r\n"), Err(BadHeader::TooLong));
    for other in ["GET / HTTP/1.1\r\n", "PROXYX", "\r\n\r\nX", "\x16\x03\x01"] {
        check(other, Err(BadHeader::Absent));
    }
}

/// A header of version 2.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short");
    let fixed = [command, family];
    [&v2::SIGNATURE[..], &fixed, &length.to_be_bytes(), body].concat()
}

const PAIR: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0xff, 0xff];

#[test]
fn version_2_is_exact() {
    let with = |elements: &[u8]| v2(0x21, 0x11, &[PAIR, elements].concat());
    let stream = Ok("Stream 1.2.3.4:9 5.6.7.8:65535 +0");
    check(with(&[]), stream);
    check(
        [with(&[]), b"GET".to_vec()].concat(),
        Ok("Stream 1.2.3.4:9 5.6.7.8:65535 +3"),
    );
    check(
        v2(0x21, 0x12, PAIR),
        Ok("Datagram 1.2.3.4:9 5.6.7.8:65535 +0"),
    );
    let six = [[0; 15].as_slice(), &[1], &[0; 15], &[2], &[0, 1, 0, 2]].concat();
    check(v2(0x21, 0x21, &six), Ok("Stream [::1]:1 [::2]:2 +0"));
    check(v2(0x20, 0x11, PAIR), Ok("proxy +0"));
    check(v2(0x20, 0, &[]), Ok("proxy +0"));
    check(v2(0x21, 0, &[]), Ok("untold +0"));
    check(v2(0x21, 0x31, &[0; 216]), Ok("untold +0"));
    check(v2(0x21, 0x10, PAIR), Ok("untold +0"));
    check(with(&[1, 0, 2, b'h', b'2', 4, 0, 0]), stream);
    check(&with(&[])[..20], Ok("partial"));
    for (command, family, error) in [
        (0x11, 0x11, BadHeader::Command),
        (0x22, 0x11, BadHeader::Command),
        (0x21, 0x41, BadHeader::Family),
        (0x21, 0x13, BadHeader::Family),
        (0x21, 0x21, BadHeader::Addresses),
        (0x21, 0x31, BadHeader::Addresses),
    ] {
        check(v2(command, family, PAIR), Err(error));
    }
    for bad in [
        &[1][..],
        &[1, 0],
        &[1, 0, 1],
        &[1, 0xff, 0xff, 0],
        &[3, 0, 3, 1, 2, 3],
    ] {
        check(with(bad), Err(BadHeader::Elements));
    }
    let padding = [&[4, 0x0f, 0xe1][..], &[0; 4065]].concat();
    check(with(&padding), stream);
    let long = [&[4, 0x0f, 0xe2][..], &[0; 4066]].concat();
    check(with(&long), Err(BadHeader::TooLong));
    check(v2(0x21, 0, &[4, 0, 0].repeat(1300)), Ok("untold +0"));
}

#[test]
fn a_checksum_is_checked() {
    let elements = [1, 0, 1, b'x', 3, 0, 4, 0, 0, 0, 0, 2, 0, 1, b'y'];
    let mut header = v2(0x21, 0x11, &[PAIR, elements.as_slice()].concat());
    let sum = crc32c([&header, b"", b""]).to_be_bytes();
    let at = 16 + PAIR.len() + 7;
    header[at..at + 4].copy_from_slice(&sum);
    check(&header, Ok("Stream 1.2.3.4:9 5.6.7.8:65535 +0"));
    for place in [16, 27, at, at + 3, header.len() - 1] {
        let mut wrong = header.clone();
        wrong[place] ^= 1;
        check(wrong, Err(BadHeader::Checksum));
    }
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes(
        start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", v2::SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"]),
        rest in prop::collection::vec(any::<u8>(), 0..150),
    ) {
        let _ = verdict(&[start, &rest].concat());
    }

    #[test]
    fn what_is_written_is_read_back(source in address(), destination in address(), datagram in any::<bool>()) {
        let transport = if datagram { Transport::Datagram } else { Transport::Stream };
        let (mapped_source, mapped_destination) = one_family(source, destination);
        let origin = Origin::Client { transport, source, destination };
        let expected = Origin::Client { transport, source: mapped_source, destination: mapped_destination };
        let mut out = Vec::new();
        encode_v2(&origin, &mut out);
        prop_assert_eq!(verdict(&out), Ok(Parsed::Header { consumed: out.len(), origin: expected }));
        out.clear();
        encode_v1(&origin, &mut out);
        let expected = if datagram { Origin::Untold } else { expected };
        prop_assert_eq!(verdict(&out), Ok(Parsed::Header { consumed: out.len(), origin: expected }));
    }
}

#[test]
fn what_has_no_client_is_written() {
    let check = |encode: fn(&Origin, &mut Vec<u8>), origin, expected| {
        let mut out = Vec::new();
        encode(&origin, &mut out);
        check(out, Ok(expected));
    };
    check(encode_v1, Origin::Proxy, "untold +0");
    check(encode_v1, Origin::Untold, "untold +0");
    check(encode_v2, Origin::Proxy, "proxy +0");
    check(encode_v2, Origin::Untold, "untold +0");
}
