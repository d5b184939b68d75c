//! The signals by which programs are stopped, as people, profiles and images spell them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A signal of `signal(7)`, by its number on `x86_64` and aarch64; the other one is told by a name too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal(i32);

/// `signal(7)`, "Signal numbering for standard signals"; of two names of one signal the first is told.
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// As engines and glibc count them: the kernel's first two are glibc's own.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

impl StopSignal {
    pub const TERM: Self = Self(15);

    /// By name, with or without `SIG`, in any case, or by number.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().and_then(Self::of_number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Some(Self(*number));
        }
        let (base, rest) = name.strip_prefix("RTMIN").map(|rest| (RTMIN, rest)).or_else(|| {
            let rest = name.strip_prefix("RTMAX")?;
            Some((RTMAX, rest))
        })?;
        let sign = if base == RTMIN { '+' } else { '-' };
        let offset: i32 = match rest.strip_prefix(sign) {
            None if rest.is_empty() => 0,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|offset| *offset <= RTMAX - RTMIN)?
            }
            _ => return None,
        };
        Some(Self(if base == RTMIN { base + offset } else { base - offset }))
    }

    fn of_number(number: i32) -> Option<Self> {
        (1..=RTMAX).contains(&number).then_some(Self(number))
    }

    /// Its name, as `SIGTERM`; of one that has none, its number.
    pub fn name(self) -> String {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => format!("SIG{name}"),
            None if self.0 == RTMIN => "SIGRTMIN".to_owned(),
            None if self.0 > RTMIN => format!("SIGRTMIN+{}", self.0 - RTMIN),
            None => self.0.to_string(),
        }
    }

    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl Default for StopSignal {
    fn default() -> Self {
        Self::TERM
    }
}

/// As profiles spell it: without `SIG`.
impl Serialize for StopSignal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name().trim_start_matches("SIG"))
    }
}

impl<'de> Deserialize<'de> for StopSignal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl de::Visitor<'_> for Form {
            type Value = StopSignal;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name or the number of a signal")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StopSignal, E> {
                let unknown = || E::custom(format!("`{text}` is no signal; one is spelled `QUIT`, `RTMIN+3` or `37`"));
                StopSignal::parse(text).ok_or_else(unknown)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<StopSignal, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<StopSignal, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGQUIT", 3),
            ("sigusr1", 10),
            ("Pwr", 30),
            ("SIGIOT", 6),
            ("37", 37),
            ("9", 9),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("SIGRTMAX", 64),
            ("RTMAX-14", 50),
            ("33", 33),
        ] {
            let signal = StopSignal::parse(text).unwrap();
            assert_eq!(signal.number(), number, "{text}");
            assert_eq!(StopSignal::parse(&signal.name()), Some(signal), "{text}");
        }
        assert_eq!(StopSignal(37).name(), "SIGRTMIN+3");
        for text in [
            "",
            "SIG",
            "ODD",
            "0",
            "65",
            "-1",
            "+9",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN++1",
            "SIGSIGTERM",
        ] {
            assert_eq!(StopSignal::parse(text), None, "{text}");
        }
    }
}
