//! Kubernetes quantities (`100m`, `1.5Gi`, `2e3`) as integers.

/// A quantity, exact to a billionth as in Kubernetes; finer parts and what does not fit are rounded away from zero
/// and saturate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Quantity {
    nano: i128,
}

/// The text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a quantity: a number with an optional suffix such as m, k, Mi or e3 was expected"
)]
pub struct BadQuantity(pub String);

const NANO: i128 = 1_000_000_000;
/// More digits than any real quantity has; keeps the arithmetic below in range.
const DIGITS_MAX: usize = 24;

impl Quantity {
    /// Reads a quantity: a decimal number and one of the suffixes n u m k M G T P E, Ki Mi Gi Ti Pi Ei, eN.
    pub fn parse(text: &str) -> Result<Self, BadQuantity> {
        Self::read(text).ok_or_else(|| BadQuantity(text.to_owned()))
    }

    fn read(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let digits_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0
            || whole.len() + fraction.len() > DIGITS_MAX
            || fraction.contains('.')
        {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = Scale::parse(suffix)?;
        let nano = scale.apply(digits, u32::try_from(fraction.len()).ok()?);
        Some(Self {
            nano: if negative { -nano } else { nano },
        })
    }

    /// In units, rounded up.
    pub fn units(self) -> i64 {
        saturate(ceil_div(self.nano, NANO))
    }

    /// In thousandths, rounded up.
    pub fn milli(self) -> i64 {
        saturate(ceil_div(self.nano, NANO / 1000))
    }
}

enum Scale {
    Binary(u32),
    Decimal(i32),
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "" => Self::Decimal(0),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            exponent => {
                let exponent = exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
                Self::Decimal(exponent.clamp(-64, 64))
            }
        })
    }

    /// `digits` × 10^-`fraction_digits` × scale, in billionths.
    fn apply(&self, digits: i128, fraction_digits: u32) -> i128 {
        match *self {
            Self::Binary(bits) => {
                let scaled = digits.saturating_mul(1 << bits).saturating_mul(NANO);
                ceil_div(scaled, 10_i128.pow(fraction_digits))
            }
            Self::Decimal(power) => {
                let power = power + 9 - fraction_digits.cast_signed();
                match 10_i128.checked_pow(power.unsigned_abs()) {
                    Some(factor) if power >= 0 => digits.saturating_mul(factor),
                    Some(divisor) => ceil_div(digits, divisor),
                    None if power >= 0 && digits != 0 => i128::MAX,
                    None => i128::from(digits != 0),
                }
            }
        }
    }
}

fn ceil_div(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by > 0 {
        quotient + 1
    } else {
        quotient
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, milli: impl Into<Option<i64>>) {
        assert_eq!(
            Quantity::parse(text).ok().map(Quantity::milli),
            milli.into(),
            "{text}"
        );
    }

    #[test]
    fn quantities() {
        check("0", 0);
        check("1", 1000);
        check("100m", 100);
        check("0.1", 100);
        check(".5", 500);
        check("5.", 5000);
        check("1.5Gi", 1_610_612_736_000);
        check("128Mi", 134_217_728_000);
        check("1e3", 1_000_000);
        check(
            "2E",
            2_000_000_000_000_000_000_000_i128
                .try_into()
                .unwrap_or(i64::MAX),
        );
        check("1500u", 2);
        check("1n", 1);
        check("-100m", -100);
        check("1e-40", 1);
        check("1e60", i64::MAX);
        for bad in [
            "",
            "m",
            "-",
            "1x",
            "1.2.3",
            "1 Gi",
            "0x10",
            "1ei",
            "99999999999999999999999999",
        ] {
            check(bad, None);
        }
        assert_eq!(Quantity::parse("1500m").map(Quantity::units), Ok(2));
    }
}
