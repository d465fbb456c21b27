//! The words that settings are made of: each is read from one word, whoever writes it.

use std::{fmt, num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};
use vnet_common::Seconds;

use super::name::one_line;
use crate::Refusal;

/// The longest duration: what nobody takes for a slip of the pen.
const LONGEST: Seconds = 30 * 24 * 3600;

/// A setting as it may stand in JSON or TOML: a word, a number or a truth value.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a setting is a word, a number, true or false")]
pub(super) enum Word {
    Truth(bool),
    Whole(i64),
    Fraction(f64),
    Text(String),
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth(truth) => truth.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Fraction(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// Settings that are read from a [`Word`].
macro_rules! read_from_a_word {
    ($($name:ident)*) => {$(
        impl TryFrom<$crate::config::setting::Word> for $name {
            type Error = $crate::Refusal;

            fn try_from(word: $crate::config::setting::Word) -> Result<Self, $crate::Refusal> {
                word.to_string().parse()
            }
        }
    )*};
}
pub(super) use read_from_a_word;

read_from_a_word!(Span Limit OnOff);

/// A duration of whole seconds, from one second to thirty days. Written `300s`, `5m`, `2h4m`; a plain number
/// is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Word")]
pub struct Span(Seconds);

impl Span {
    /// One of the datapath's own.
    pub(super) const fn of_seconds(seconds: Seconds) -> Self {
        Self(seconds)
    }

    pub const MINUTE: Self = Self(60);

    pub(crate) const fn times(self, count: u32) -> Self {
        Self(self.0 * count)
    }

    pub const fn seconds(self) -> Seconds {
        self.0
    }
}

impl FromStr for Span {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let bad = || Refusal::BadDuration(one_line(text));
        let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let seconds = if is_plain {
            text.parse().map_err(|_| bad())?
        } else {
            let duration = humantime::parse_duration(text).map_err(|_| bad())?;
            if duration.subsec_nanos() != 0 {
                return Err(bad());
            }
            duration.as_secs()
        };
        match Seconds::try_from(seconds) {
            Ok(seconds @ 1..=LONGEST) => Ok(Self(seconds)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As one word, so that it can be given back as it is shown.
        let text = humantime::format_duration(std::time::Duration::from_secs(self.0.into())).to_string();
        f.pad(&text.replace(' ', ""))
    }
}

/// The most of something that one guest may have; `off`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Word")]
pub struct Limit(Option<NonZeroU32>);

impl Limit {
    pub const OFF: Self = Self(None);

    pub(super) const fn of(most: u32) -> Self {
        Self(NonZeroU32::new(most))
    }

    /// As the datapath has it: 0 stands for no limit.
    pub fn number(self) -> u32 {
        self.0.map_or(0, NonZeroU32::get)
    }
}

impl FromStr for Limit {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        if text == "off" {
            return Ok(Self::OFF);
        }
        let is_plain = text.bytes().all(|b| b.is_ascii_digit());
        let most = text.parse().ok().filter(|_| is_plain).ok_or_else(|| Refusal::BadLimit(one_line(text)))?;
        Ok(Self(Some(most)))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(most) => most.fmt(f),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            None => serializer.serialize_str("off"),
            Some(most) => serializer.serialize_u32(most.get()),
        }
    }
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Word")]
pub struct OnOff(pub bool);

impl FromStr for OnOff {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "on" | "true" => Ok(Self(true)),
            "off" | "false" => Ok(Self(false)),
            _ => Err(Refusal::BadOnOff(one_line(text))),
        }
    }
}

impl fmt::Display for OnOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "on" } else { "off" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: FromStr<Err = Refusal> + fmt::Display>(text: &str) -> String {
        text.parse::<T>().map_or_else(|refusal| refusal.to_string(), |value| value.to_string())
    }

    #[test]
    fn durations_are_whole_seconds_and_show_as_one_word() {
        let cases = [
            ("300s", "5m"),
            ("300", "5m"),
            ("2h4m", "2h4m"),
            ("2h 4m", "2h4m"),
            ("7440", "2h4m"),
            ("1", "1s"),
            ("30d", "30days"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown::<Span>(text), expected, "{text}");
            assert_eq!(shown::<Span>(expected), expected);
        }
        for bad in ["", "0", "0s", "1500ms", "-5", "+5", "5x", "five", "30d1s", "99999999999999999999", "5 s m"] {
            let refusal = format!(
                "'{bad}' is not a duration: write 300s, 5m or 2h4m, in whole seconds from 1s to 30d; a plain number is \
                 seconds"
            );
            assert_eq!(shown::<Span>(bad), refusal);
        }
    }

    #[test]
    fn a_limit_is_a_number_or_off() {
        for good in ["1", "4294967295", "off"] {
            assert_eq!(shown::<Limit>(good), good);
        }
        for bad in ["0", "-1", "+1", "4294967296", "none", ""] {
            assert_eq!(
                shown::<Limit>(bad),
                format!("'{bad}' is not a limit: write a number from 1 up, or off for none")
            );
        }
        assert_eq!((Limit::OFF.number(), Limit::of(7).number()), (0, 7));
    }

    #[test]
    fn a_switch_is_on_or_off() {
        assert_eq!((shown::<OnOff>("on"), shown::<OnOff>("off")), ("on".into(), "off".into()));
        assert_eq!(shown::<OnOff>("yes"), "'yes' is neither on nor off");
    }
}
