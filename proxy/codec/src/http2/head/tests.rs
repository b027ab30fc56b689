//! Heads as texts, `name=value|…`, each as the block that a peer would send.

use proptest::prelude::*;

use super::*;
use crate::fields::Field;
use crate::http1::{HeadLimits, OverLimit};
use crate::http2::hpack::{BadBlock, Decoder, Encoder};

/// A block of plain texts; `!` in front is for a field that is never to be indexed.
fn block(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.split('|').filter(|line| !line.is_empty()) {
        let (first, line) = match line.strip_prefix('!') {
            Some(line) => (0x10, line),
            None => (0x00, line),
        };
        let (name, value) = line.split_once('=').expect("name=value");
        out.push(first);
        for text in [name, value] {
            let length = u16::try_from(text.len()).expect("a short text");
            match length {
                0..127 => out.push(length as u8),
                _ => {
                    let left = length - 127;
                    out.push(127);
                    out.extend([left as u8 & 0x7f | 0x80, (left >> 7) as u8 & 0x7f | 0x80]);
                    out.push((left >> 14) as u8);
                }
            }
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

fn shown(fields: &Fields) -> String {
    let line = |field: Field<'_>| {
        let name = String::from_utf8_lossy(field.name);
        let mark = if field.never_indexed { "!" } else { "" };
        format!("{mark}{name}={}", String::from_utf8_lossy(field.value))
    };
    fields.iter().map(line).collect::<Vec<_>>().join("|")
}

/// `METHOD scheme authority path protocol`, `-` for what there is not, and the fields.
fn shown_request(head: &RequestHead) -> String {
    let words = [
        Some(head.method.as_str()),
        head.scheme.map(Scheme::as_str),
        head.authority.as_deref(),
        Some(&*head.path).filter(|path| !path.is_empty()),
        head.protocol.as_deref(),
    ];
    let words = words.map(|word| word.unwrap_or("-")).join(" ");
    format!("{words}|{}", shown(&head.fields))
}

fn request(text: &str) -> Result<String, BadHead> {
    let head = decode_request(
        &mut Decoder::new(4096),
        &block(text),
        &HeadLimits::default(),
    );
    head.expect(text).map(|head| shown_request(&head))
}

/// `GET` and what else every request has.
const GET: &str = ":method=GET|:scheme=https|:path=/|:authority=a.test";

#[test]
fn requests_are_read() {
    let check = |text: &str, expected: &str| {
        assert_eq!(request(text).as_deref(), Ok(expected), "{text}");
    };
    check(GET, "GET https a.test / -|");
    check(
        ":path=/a?b|:authority=A.test:8|:scheme=HTTP|:method=get|x-own=1|accept=2",
        "get http A.test:8 /a?b -|x-own=1|accept=2",
    );
    check(":method=GET|:scheme=http|:path=/", "GET http - / -|");
    check(
        ":method=GET|:scheme=http|:path=/|host=a",
        "GET http a / -|host=a",
    );
    check(
        &format!("{GET}|host=A.Test"),
        "GET https a.test / -|host=A.Test",
    );
    check(
        ":method=OPTIONS|:scheme=http|:path=*",
        "OPTIONS http - * -|",
    );
    check(
        ":method=OPTIONS|:scheme=http|:path=/",
        "OPTIONS http - / -|",
    );
    check(":method=CONNECT|:authority=a:443", "CONNECT - a:443 - -|");
    check(
        ":method=CONNECT|:protocol=websocket|:scheme=https|:path=/chat|:authority=a",
        "CONNECT https a /chat websocket|",
    );
    check(
        &format!("{GET}|te=Trailers|content-length=5|trailer=x|http2-settings=x"),
        "GET https a.test / -|te=Trailers|content-length=5|trailer=x|http2-settings=x",
    );
    check(
        &format!("{GET}|a=1\t2|b=|!c=\u{e4}"),
        "GET https a.test / -|a=1\t2|b=|!c=\u{e4}",
    );
}

#[test]
fn crumbs_of_cookies_are_joined() {
    let check = |text: &str, expected: &str| {
        let expected = format!("GET https a.test / -|{expected}");
        assert_eq!(request(&format!("{GET}|{text}")), Ok(expected), "{text}");
    };
    check("cookie=a=1", "cookie=a=1");
    check(
        "cookie=a=1|cookie=b=2|cookie=c=3|x=y",
        "cookie=a=1; b=2; c=3|x=y",
    );
    check(
        "x=y|cookie=a=1|te=trailers|cookie=b=2|cookie=c=3",
        "x=y|cookie=a=1; b=2; c=3|te=trailers",
    );
    check("!cookie=a=1|cookie=b=2", "!cookie=a=1; b=2");
    // Nobody joins those of an answer.
    let answer = decode_response(
        &mut Decoder::new(4096),
        &block(":status=200|cookie=a|cookie=b"),
        &HeadLimits::default(),
    );
    assert_eq!(
        answer.map(|head| head.map(|head| shown(&head.fields))),
        Ok(Ok("cookie=a|cookie=b".into()))
    );
}

#[test]
fn requests_that_break_the_rules() {
    let check = |text: &str, expected: Malformed| {
        assert_eq!(request(text), Err(BadHead::Malformed(expected)), "{text}");
    };
    let with = |field: &str, expected| check(&format!("{GET}|{field}"), expected);
    for name in ["Accept", "X-own", "a b", "a:b", "\u{e4}", "a\0"] {
        with(&format!("{name}=1"), Malformed::FieldName);
    }
    for value in [" 1", "1 ", "\t1", "1\t", "1\r\n2", "1\n", "\0", "\x7f"] {
        with(&format!("a={value}"), Malformed::FieldValue);
        with(&format!("cookie={value}"), Malformed::FieldValue);
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    ] {
        with(&format!("{name}="), Malformed::ConnectionField);
    }
    for value in ["", "gzip", "trailers, deflate", "trailers;q=1"] {
        with(&format!("te={value}"), Malformed::Te);
    }
    check(&format!("x=1|{GET}"), Malformed::LatePseudo);
    check(&format!("{GET}|x=1|:status=200"), Malformed::LatePseudo);
    for pseudo in [":status=200", ":other=1", ":Path=/", ":=1"] {
        check(&format!("{GET}|{pseudo}"), Malformed::Pseudo);
    }
    for pseudo in [
        ":method=GET",
        ":scheme=https",
        ":path=/",
        ":authority=a.test",
    ] {
        check(&format!("{GET}|{pseudo}"), Malformed::PseudoTwice);
        let missing = GET.replacen(pseudo, "", 1);
        match pseudo {
            // HTTP/1.0 need not say it, so whoever translates cannot either.
            ":authority=a.test" => assert!(request(&missing).is_ok()),
            _ => check(&missing, Malformed::PseudoMissing),
        }
    }
    check("", Malformed::PseudoMissing);
    for method in ["", "G T", "GET\0", &"X".repeat(33)] {
        check(&GET.replace("GET", method), Malformed::Method);
    }
    for scheme in ["", "1http", "ht tp", "http:"] {
        check(&GET.replace("https", scheme), Malformed::Scheme);
    }
    for path in [
        "",
        "a",
        "*",
        "http://a/",
        "/a b",
        "/a#b",
        "/\u{e4}",
        "/\n",
        "?a",
    ] {
        check(
            &GET.replace(":path=/", &format!(":path={path}")),
            Malformed::Path,
        );
    }
    for authority in ["", "u@a", "a b", "a/b", "a:b", "a,b", ":80"] {
        check(&GET.replace("a.test", authority), Malformed::Authority);
        with(&format!("host={authority}"), Malformed::Host);
    }
    with("host=b.test", Malformed::Host);
    with("host=a.test:443", Malformed::Host);
    with("host=a.test|host=a.test", Malformed::Host);
    for connect in [":authority=a", ":authority=a:"] {
        check(&format!(":method=CONNECT|{connect}"), Malformed::Authority);
    }
    check(":method=CONNECT", Malformed::PseudoMissing);
    for more in [":scheme=https", ":path=/", ":scheme=https|:path=/"] {
        check(
            &format!(":method=CONNECT|:authority=a:1|{more}"),
            Malformed::Pseudo,
        );
    }
    check(&format!("{GET}|:protocol=websocket"), Malformed::Protocol);
    let connect = GET.replace("GET", "CONNECT");
    for protocol in ["", "a b", "a/", "a/b/c", "a\0"] {
        check(
            &format!("{connect}|:protocol={protocol}"),
            Malformed::Protocol,
        );
    }
    for missing in [":scheme=https", ":path=/"] {
        let text = connect.replacen(missing, "", 1);
        check(&format!("{text}|:protocol=a"), Malformed::PseudoMissing);
    }
    for length in ["", "+5", "5,5", "0x5", "99999999999999999999"] {
        with(
            &format!("content-length={length}"),
            Malformed::ContentLength,
        );
    }
    with(
        "content-length=5|content-length=5",
        Malformed::ContentLength,
    );
}

#[test]
fn other_schemes_are_no_fault() {
    let found = request(&GET.replace("https", "coap+tcp"));
    assert_eq!(found, Err(BadHead::Scheme));
}

#[test]
fn responses_are_read() {
    let check = |text: &str, expected: Result<(u16, &str), Malformed>| {
        let head = decode_response(
            &mut Decoder::new(4096),
            &block(text),
            &HeadLimits::default(),
        );
        let found = head.expect(text).map(|head| {
            assert_eq!(head.version, crate::Version::Http2);
            (head.status, shown(&head.fields))
        });
        let expected = expected.map(|(status, fields)| (status, fields.to_owned()));
        assert_eq!(found, expected.map_err(BadHead::Malformed), "{text}");
    };
    check(":status=200", Ok((200, "")));
    check(":status=103|link=a", Ok((103, "link=a")));
    check(":status=999|host=a|host=b", Ok((999, "host=a|host=b")));
    for status in ["", "20", "2000", "099", "2x0", "+20", " 200", "101"] {
        check(&format!(":status={status}"), Err(Malformed::Status));
    }
    check("", Err(Malformed::PseudoMissing));
    check("a=b", Err(Malformed::PseudoMissing));
    check(":status=200|:status=200", Err(Malformed::PseudoTwice));
    check("a=b|:status=200", Err(Malformed::LatePseudo));
    for pseudo in [
        ":method=GET",
        ":path=/",
        ":scheme=http",
        ":authority=a",
        ":protocol=a",
        ":x=1",
    ] {
        check(&format!(":status=200|{pseudo}"), Err(Malformed::Pseudo));
    }
    check(
        ":status=200|connection=close",
        Err(Malformed::ConnectionField),
    );
    check(":status=200|A=b", Err(Malformed::FieldName));
    check(
        ":status=200|content-length=1|content-length=1",
        Err(Malformed::ContentLength),
    );
}

#[test]
fn trailers_are_read() {
    let check = |text: &str, expected: Result<&str, Malformed>| {
        let found = decode_trailers(
            &mut Decoder::new(4096),
            &block(text),
            &HeadLimits::default(),
        );
        let found = found.expect(text).map(|fields| shown(&fields));
        let expected = expected.map(str::to_owned).map_err(BadHead::Malformed);
        assert_eq!(found, expected, "{text}");
    };
    check("", Ok(""));
    check("grpc-status=0|x=y", Ok("grpc-status=0|x=y"));
    for pseudo in [":status=200", ":path=/", ":x=1"] {
        check(pseudo, Err(Malformed::Pseudo));
    }
    check("upgrade=a", Err(Malformed::ConnectionField));
    check("x=\n", Err(Malformed::FieldValue));
}

/// To the byte.
#[test]
fn heads_have_limits() {
    let limits = HeadLimits {
        head_bytes_max: 1000,
        fields_max: 4,
        field_bytes_max: 100,
        target_bytes_max: 50,
    };
    let check = |text: &str, expected: Result<(), BadHead>| {
        let found = decode_request(&mut Decoder::new(4096), &block(text), &limits);
        assert_eq!(found.expect(text).map(drop), expected, "{text}");
    };
    let path =
        |length: usize| GET.replace(":path=/", &format!(":path=/{}", "p".repeat(length - 1)));
    check(&path(50), Ok(()));
    check(&path(51), Err(OverLimit::Target.into()));
    let with = |fields: &str, expected| check(&format!("{GET}|{fields}"), expected);
    with(&format!("a={}", "v".repeat(97)), Ok(()));
    with(
        &format!("a={}", "v".repeat(98)),
        Err(OverLimit::Field.into()),
    );
    with("a=1|b=2|c=3|d=4", Ok(()));
    with("a=1|b=2|c=3|d=4|e=5", Err(OverLimit::Fields.into()));
    with("a=1|b=2|c=3|cookie=d|cookie=e|cookie=f", Ok(()));
    let crumbs = |last: usize| format!("cookie={}|x=y|cookie={}", "c".repeat(45), "c".repeat(last));
    with(&crumbs(45), Ok(()));
    with(&crumbs(46), Err(OverLimit::Field.into()));
    with(
        &crumbs(46).replace("x=y|", ""),
        Err(OverLimit::Field.into()),
    );
    // `GET` counts 42 + 44 + 38 + 48, then each crumb 62, and 33 for a name of one byte.
    let sized = |last: usize, expected| {
        let crumb = format!("cookie={}|", "c".repeat(24));
        let text = format!("{GET}|{}a={}", crumb.repeat(12), "v".repeat(last));
        let limits = HeadLimits {
            head_bytes_max: 172 + 12 * 62 + 33,
            field_bytes_max: 1000,
            ..limits
        };
        let found = decode_request(&mut Decoder::new(4096), &block(&text), &limits);
        assert_eq!(found.expect(&text).map(drop), expected, "{text}");
    };
    sized(0, Ok(()));
    sized(1, Err(OverLimit::Head.into()));
    for (bad, status) in [
        (OverLimit::Target.into(), 414),
        (OverLimit::Field.into(), 431),
        (OverLimit::Fields.into(), 431),
        (OverLimit::Head.into(), 431),
        (BadHead::Scheme, 400),
        (BadHead::Malformed(Malformed::Te), 400),
    ] {
        assert_eq!(bad.status(), status, "{bad}");
    }
}

/// What a refused head puts into the table is there for the next one.
#[test]
fn a_refused_head_does_not_get_the_tables_out_of_step() {
    let mut decoder = Decoder::new(4096);
    let limits = HeadLimits::default();
    // An upper-case name first, then `x: y` for the table.
    let mut refused = block(&format!("{GET}|Bad=1"));
    refused.extend([0x40, 1, b'x', 1, b'y']);
    let found = decode_request(&mut decoder, &refused, &limits);
    assert_eq!(found, Ok(Err(Malformed::FieldName.into())));
    let mut next = block(GET);
    next.push(0xbe);
    let found = decode_request(&mut decoder, &next, &limits);
    let found = found.map(|head| head.map(|head| shown(&head.fields)));
    assert_eq!(found, Ok(Ok("x=y".to_owned())));
    next.push(0xbf);
    assert_eq!(
        decode_request(&mut decoder, &next, &limits),
        Err(BadBlock::Index)
    );
}

fn fields(text: &str) -> Fields {
    let mut fields = Fields::default();
    for line in text.split('|').filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').expect("name=value");
        fields.append(name, value.as_bytes()).expect(line);
    }
    fields
}

#[test]
fn requests_are_written() {
    let check = |words: &str, text: &str, expected: &str| {
        let mut words = words
            .split(' ')
            .map(|word| if word == "-" { "" } else { word });
        let mut word = || words.next().expect("a word");
        let method = Method::parse(word().as_bytes()).expect("a method");
        let line = RequestLine {
            method: &method,
            scheme: Scheme::Https,
            authority: word(),
            path: word(),
            protocol: Some(word()).filter(|protocol| !protocol.is_empty()),
        };
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        // As text, into the table, and from the table.
        for _ in 0..3 {
            let mut out = Vec::new();
            encode_request(&mut encoder, line, &fields(text), &mut out);
            let head = decode_request(&mut decoder, &out, &HeadLimits::default());
            let head = head.expect(expected).expect(expected);
            assert_eq!(shown_request(&head), expected);
        }
    };
    check(
        "GET a.test /a?b -",
        "Host=other|X-Own=1|Accept=2|content-length=3|Connection=x-own|Keep-Alive=4|Upgrade=5|TE=gzip|\
         proxy-connection=6|http2-settings=7|transfer-encoding=chunked",
        "GET https a.test /a?b -|x-own=1|accept=2|content-length=3",
    );
    check("POST - / -", "TE=trailers", "POST https - / -|te=trailers");
    check("OPTIONS a * -", "", "OPTIONS https a * -|");
    check("CONNECT a:1 /ignored -", "", "CONNECT - a:1 - -|");
    check("CONNECT a / websocket", "", "CONNECT https a / websocket|");
    check(
        "GET a / -",
        "Authorization=s3|Cookie=s3",
        "GET https a / -|!authorization=s3|!cookie=s3",
    );
}

#[test]
fn responses_and_trailers_are_written() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let limits = HeadLimits::default();
    for status in [100, 200, 204, 206, 299, 304, 400, 404, 418, 500, 999] {
        let mut out = Vec::new();
        let sent = fields("Server=x|connection=close|Content-Length=0|host=a|TE=x");
        encode_response(&mut encoder, status, &sent, &mut out);
        let head = decode_response(&mut decoder, &out, &limits);
        let head = head.expect("a block").expect("a head");
        assert_eq!(head.status, status);
        let expected = match status {
            100 | 204 => "server=x",
            _ => "server=x|content-length=0",
        };
        assert_eq!(shown(&head.fields), expected, "{status}");
    }
    let mut out = Vec::new();
    encode_trailers(
        &mut encoder,
        &fields("Grpc-Status=0|connection=x"),
        &mut out,
    );
    let found = decode_trailers(&mut decoder, &out, &limits);
    assert_eq!(
        found.map(|found| found.map(|fields| shown(&fields))),
        Ok(Ok("grpc-status=0".into()))
    );
}

/// A flag goes on to the next connection (RFC 7541 §6.2.3).
#[test]
fn never_indexed_stays_never_indexed() {
    let limits = HeadLimits::default();
    let text = format!("{GET}|!x-own=secret");
    let head = decode_request(&mut Decoder::new(4096), &block(&text), &limits);
    let head = head.expect("a block").expect("a head");
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    for _ in 0..3 {
        let mut out = Vec::new();
        encode_trailers(&mut encoder, &head.fields, &mut out);
        let found = decode_trailers(&mut decoder, &out, &limits);
        let found = found.expect("a block").expect("trailers");
        assert_eq!(shown(&found), "!x-own=secret");
    }
}

/// Many crumbs between other fields, or a large entry named again and again, are refused without being kept.
#[test]
fn floods_are_only_counted() {
    let limits = HeadLimits::default();
    let mut decoder = Decoder::new(4096);
    let mut bomb = block(GET);
    bomb.extend([
        0x40,
        1,
        b'a',
        0x7f,
        0x80 | ((3000 - 127) & 0x7f) as u8,
        ((3000 - 127) >> 7) as u8,
    ]);
    bomb.resize(bomb.len() + 3000, b'x');
    bomb.resize(bomb.len() + 200_000, 0xbe);
    let found = decode_request(&mut decoder, &bomb, &limits);
    assert_eq!(found, Ok(Err(OverLimit::Head.into())));
    let crumbs = format!("{GET}|{}", "cookie=a|te=trailers|".repeat(40));
    assert_eq!(request(&crumbs).map(drop), Ok(()));
    let crumbs = format!("{GET}|{}", "cookie=a|te=trailers|".repeat(20_000));
    assert_eq!(request(&crumbs), Err(OverLimit::Fields.into()));
    let crumbs = format!("{GET}|{}", "cookie=a|".repeat(20_000));
    assert_eq!(request(&crumbs), Err(OverLimit::Head.into()));
}

/// Lines of which many make a good head, and some a bad one.
fn lines() -> impl Strategy<Value = Vec<&'static str>> {
    let line = prop::sample::select(vec![
        ":path=*",
        ":method=CONNECT",
        ":protocol=websocket",
        ":status=200",
        "Bad=1",
        "connection=close",
        "host=a.test",
        "host=A.TEST",
        "host=b.test",
        "cookie=a=b",
        "!cookie=c",
        "te=trailers",
        "te=x",
        "content-length=5",
        "x-own=1",
        "x-own=2",
        "!x-own=3",
        "accept=\u{e4}",
        "user-agent=\tx",
    ]);
    prop::collection::vec(line, 0..6)
}

proptest! {
    #[test]
    fn what_is_taken_is_passed_on_alike(lines in lines()) {
        let text = format!("{GET}|{}", lines.join("|"));
        let limits = HeadLimits::default();
        let Ok(mut head) = decode_request(&mut Decoder::new(4096), &block(&text), &limits)
            .expect("a good block")
        else {
            return Ok(());
        };
        let line = RequestLine {
            method: &head.method,
            scheme: head.scheme.expect("a scheme"),
            authority: head.authority.as_deref().unwrap_or_default(),
            path: &head.path,
            protocol: head.protocol.as_deref(),
        };
        let mut out = Vec::new();
        encode_request(&mut Encoder::new(), line, &head.fields, &mut out);
        let passed = decode_request(&mut Decoder::new(4096), &out, &limits);
        let passed = passed.expect("a good block").expect("a good head");
        head.fields.remove("host");
        // A cookie is a secret even if nobody said so.
        let shown = |head: &RequestHead| shown_request(head).replace("!cookie", "cookie");
        prop_assert_eq!(shown(&passed), shown(&head));
    }

    #[test]
    fn no_block_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let limits = HeadLimits::default();
        let _ = decode_request(&mut Decoder::new(4096), &bytes, &limits);
        let _ = decode_response(&mut Decoder::new(4096), &bytes, &limits);
        let _ = decode_trailers(&mut Decoder::new(4096), &bytes, &limits);
    }
}
