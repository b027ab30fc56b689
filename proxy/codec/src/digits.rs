//! Numbers and addresses as text, without the machinery of `fmt`: they are written with every message.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Without leading zeros.
pub fn decimal(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Sixteen digits in lower case.
pub fn hexadecimal(number: u64, out: &mut Vec<u8>) {
    let digits = [(number >> 32) as u32, number as u32].map(eight_digits);
    out.extend_from_slice(digits.as_flattened());
}

/// All digits at once: each takes a byte of a word.
fn eight_digits(number: u32) -> [u8; 8] {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let mut word = u64::from(number);
    word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // One in each byte whose digit is a letter.
    let letters = ((word + ONES * 6) >> 4) & ONES;
    let letter = u64::from(b'a' - 10 - b'0');
    (word + ONES * u64::from(b'0') + letters * letter).to_be_bytes()
}

/// As `Display` writes it.
pub fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => {
            // `255.255.255.255` and one byte behind it.
            let mut text = [0; 16];
            let mut length = 0;
            for octet in address.octets() {
                let ([a, b, c], count) = OCTETS[usize::from(octet)];
                // Whatever is behind a shorter octet is written over.
                if let Some(place) = text.get_mut(length..length + 4) {
                    place.copy_from_slice(&[a, b, c, 0]);
                }
                length += usize::from(count);
                if let Some(place) = text.get_mut(length) {
                    *place = b'.';
                }
                length += 1;
            }
            out.extend_from_slice(text.get(..length - 1).unwrap_or_default());
        }
        // Writing to memory does not fail.
        IpAddr::V6(_) => _ = write!(out, "{address}"),
    }
}

/// Every octet's digits, and how many they are.
static OCTETS: [([u8; 3], u8); 256] = octets();

const fn octets() -> [([u8; 3], u8); 256] {
    let mut octets = [([0; 3], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let [a, b, c] = [
            b'0' + (octet / 100) as u8,
            b'0' + (octet / 10 % 10) as u8,
            b'0' + (octet % 10) as u8,
        ];
        octets[octet] = match octet {
            0..10 => ([c, 0, 0], 1),
            10..100 => ([b, c, 0], 2),
            _ => ([a, b, c], 3),
        };
        octet += 1;
    }
    octets
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
