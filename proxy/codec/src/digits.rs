//! Numbers and addresses as text, without the machinery of `fmt`: they are written with every message.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Without leading zeros.
pub fn decimal(mut number: u64, out: &mut Vec<u8>) {
    // As many as `u64::MAX` has.
    let mut digits = [0; 20];
    let mut count = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
        if number == 0 {
            break;
        }
    }
    let from = digits.len() - count;
    out.extend_from_slice(digits.get(from..).unwrap_or_default());
}

/// Sixteen digits in lower case.
pub fn hexadecimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 16];
    for (place, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        for (digit, value) in place.iter_mut().zip([byte >> 4, byte & 0xf]) {
            *digit = value + if value < 10 { b'0' } else { b'a' - 10 };
        }
    }
    out.extend_from_slice(&digits);
}

/// As `Display` writes it.
pub fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                decimal(u64::from(octet), out);
            }
        }
        // Writing to memory does not fail.
        IpAddr::V6(_) => _ = write!(out, "{address}"),
    }
}

/// As `Display` writes it.
pub fn socket_address(socket: SocketAddr, out: &mut Vec<u8>) {
    match socket {
        SocketAddr::V4(v4) => {
            address(IpAddr::V4(*v4.ip()), out);
            out.push(b':');
            decimal(u64::from(v4.port()), out);
        }
        // It may have a scope. Writing to memory does not fail.
        SocketAddr::V6(_) => _ = write!(out, "{socket}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written<T>(write: impl FnOnce(T, &mut Vec<u8>), value: T) -> String {
        let mut out = b"before ".to_vec();
        write(value, &mut out);
        String::from_utf8(out).expect("a text")
    }

    #[test]
    fn the_same_as_the_standard_library() {
        for number in [
            0,
            1,
            9,
            10,
            99,
            100,
            65_535,
            1_000_000,
            u64::MAX - 1,
            u64::MAX,
        ] {
            assert_eq!(written(decimal, number), format!("before {number}"));
            assert_eq!(
                written(hexadecimal, number),
                format!("before {number:016x}")
            );
        }
        for text in [
            "0.0.0.0",
            "10.200.3.45",
            "255.255.255.255",
            "::",
            "::1",
            "2001:db8::7",
            "::ffff:1.2.3.4",
        ] {
            let ip: IpAddr = text.parse().expect(text);
            assert_eq!(written(address, ip), format!("before {ip}"));
            for port in [0, 80, 65_535] {
                let socket = SocketAddr::new(ip, port);
                assert_eq!(written(socket_address, socket), format!("before {socket}"));
            }
        }
        let scoped: SocketAddr = "[fe80::1%7]:80".parse().expect("a scoped address");
        assert_eq!(written(socket_address, scoped), format!("before {scoped}"));
    }
}
