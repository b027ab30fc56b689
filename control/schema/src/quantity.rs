//! Resource quantities: `500m`, `1.5Gi`, `1e3`.
//!
//! A quantity is an exact decimal with the family of suffixes it was written in. Canonical form: no fraction, the
//! largest suffix that needs none, at most nine digits below one (more are rounded up, as in Kubernetes).

use std::cmp::Ordering;
use std::fmt;

/// The wording of the real server for text that is no quantity.
pub const MALFORMED: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Powers of ten below one that are kept: 10⁻⁹.
const NANO_EXPONENT: i32 = -9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// A resource quantity.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    /// In billionths.
    nanos: i128,
    format: Format,
}

/// The text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{MALFORMED}")]
pub struct MalformedQuantity;

impl Quantity {
    /// A whole number.
    pub fn from_value(value: i64) -> Quantity {
        Quantity {
            nanos: i128::from(value) * 1_000_000_000,
            format: Format::DecimalSi,
        }
    }

    pub fn parse(text: &str) -> Result<Quantity, MalformedQuantity> {
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (format, base, exponent) = read_suffix(suffix).ok_or(MalformedQuantity)?;
        let nanos = scale(number, base, exponent).ok_or(MalformedQuantity)?;
        let nanos = if negative { -nanos } else { nanos };
        // A fraction of a binary unit below one keeps its value only in decimal form, as in Kubernetes.
        let format = match format {
            Format::BinarySi if nanos.abs() < 1_024_000_000_000 && nanos % 1_000_000_000 != 0 => {
                Format::DecimalSi
            }
            other => other,
        };
        Ok(Quantity { nanos, format })
    }

    /// The number, rounded up.
    pub fn value(&self) -> i64 {
        clamp(div_up(self.nanos, 1_000_000_000))
    }

    /// Thousandths, rounded up.
    pub fn milli(&self) -> i64 {
        clamp(div_up(self.nanos, 1_000_000))
    }

    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether there is nothing behind the point.
    pub fn is_whole(&self) -> bool {
        self.nanos % 1_000_000_000 == 0
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn div_up(value: i128, divisor: i128) -> i128 {
    let down = value.div_euclid(divisor);
    if value.rem_euclid(divisor) == 0 {
        down
    } else {
        down + 1
    }
}

/// Format, base and exponent of a suffix.
fn read_suffix(suffix: &str) -> Option<(Format, i128, i32)> {
    Some(match suffix {
        "n" => (Format::DecimalSi, 10, -9),
        "u" => (Format::DecimalSi, 10, -6),
        "m" => (Format::DecimalSi, 10, -3),
        "" => (Format::DecimalSi, 10, 0),
        "k" => (Format::DecimalSi, 10, 3),
        "M" => (Format::DecimalSi, 10, 6),
        "G" => (Format::DecimalSi, 10, 9),
        "T" => (Format::DecimalSi, 10, 12),
        "P" => (Format::DecimalSi, 10, 15),
        "E" => (Format::DecimalSi, 10, 18),
        "Ki" => (Format::BinarySi, 2, 10),
        "Mi" => (Format::BinarySi, 2, 20),
        "Gi" => (Format::BinarySi, 2, 30),
        "Ti" => (Format::BinarySi, 2, 40),
        "Pi" => (Format::BinarySi, 2, 50),
        "Ei" => (Format::BinarySi, 2, 60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            (Format::DecimalExponent, 10, exponent)
        }
    })
}

/// The number times base^exponent in billionths, rounded up; None when it is no number. What exceeds the range of
/// the answer is cut at ±2^63 units, as Kubernetes cuts it.
fn scale(number: &str, base: i128, exponent: i32) -> Option<i128> {
    const UNITS_MAX: i128 = (1i128 << 63) * 1_000_000_000;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    if digits.len() > 36 {
        return Some(UNITS_MAX);
    }
    let mantissa: i128 = digits.parse().ok()?;
    let ten = |power: i32| {
        u32::try_from(power)
            .ok()
            .and_then(|power| 10i128.checked_pow(power))
    };
    let fraction_len = i32::try_from(fraction.len()).ok()?;
    if base == 2 {
        let binary = 1i128 << exponent;
        let Some(scaled) = mantissa
            .checked_mul(binary)
            .and_then(|v| v.checked_mul(1_000_000_000))
        else {
            return Some(UNITS_MAX);
        };
        return Some(div_up(scaled, ten(fraction_len)?).min(UNITS_MAX));
    }
    let power = exponent
        .saturating_sub(fraction_len)
        .saturating_sub(NANO_EXPONENT);
    if power >= 0 {
        return Some(
            ten(power)
                .and_then(|ten| mantissa.checked_mul(ten))
                .unwrap_or(UNITS_MAX)
                .min(UNITS_MAX),
        );
    }
    Some(ten(power.saturating_neg()).map_or(1, |ten| div_up(mantissa, ten)))
}

impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return out.write_str("0");
        }
        match self.format {
            Format::BinarySi => self.write_binary(out),
            Format::DecimalSi => {
                let (mantissa, exponent) = self.decimal();
                let suffix = match exponent {
                    -9 => "n",
                    -6 => "u",
                    -3 => "m",
                    3 => "k",
                    6 => "M",
                    9 => "G",
                    12 => "T",
                    15 => "P",
                    18 => "E",
                    _ => "",
                };
                write!(out, "{mantissa}{suffix}")
            }
            Format::DecimalExponent => match self.decimal() {
                (mantissa, 0) => write!(out, "{mantissa}"),
                (mantissa, exponent) => write!(out, "{mantissa}e{exponent}"),
            },
        }
    }
}

impl Quantity {
    /// Mantissa and exponent (a multiple of three, at most 18) without a fraction.
    fn decimal(&self) -> (i128, i32) {
        let (mut mantissa, mut exponent) = (self.nanos, NANO_EXPONENT);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        (mantissa, exponent)
    }

    fn write_binary(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos % 1_000_000_000 != 0 {
            return write!(
                out,
                "{}",
                Quantity {
                    format: Format::DecimalSi,
                    ..*self
                }
            );
        }
        let mut units = self.nanos / 1_000_000_000;
        let mut suffix = "";
        for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
            if units % 1024 != 0 {
                break;
            }
            units /= 1024;
            suffix = next;
        }
        write!(out, "{units}{suffix}")
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical() {
        for (text, want) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("500m", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1024", "1024"),
            ("1000", "1k"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("100e-1", "10"),
            ("1.5e3", "1500"),
            ("-1", "-1"),
            ("+2", "2"),
            ("0.0000000001", "1n"),
            (".5", "500m"),
            ("5.", "5"),
            ("64Mi", "64Mi"),
            ("100M", "100M"),
            ("9223372036854775807", "9223372036854775807"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn malformed() {
        for text in [
            "", "1x", "m", "1 Gi", "1.2.3", "--1", "1mi", "Gi", "1ee3", ".",
        ] {
            assert_eq!(
                Quantity::parse(text).err(),
                Some(MalformedQuantity),
                "{text}"
            );
        }
    }

    #[test]
    fn values() {
        let quantity = Quantity::parse("1500m").unwrap();
        assert_eq!((quantity.value(), quantity.milli()), (2, 1500));
        assert!(Quantity::parse("1Gi").unwrap() > Quantity::parse("1G").unwrap());
        assert!(Quantity::parse("-1m").unwrap().is_negative());
        assert!(Quantity::parse("99999999999999999999999999999999999999999Ei").is_ok());
    }
}
