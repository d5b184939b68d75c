//! Times as they are given on the command line.

use crate::profile::Seconds;

/// Seconds, or what stands before `s`, `m` or `h`.
pub(super) fn any(text: &str) -> Result<Seconds, String> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        _ => (text, 1),
    };
    let seconds = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit));
    seconds.map(Seconds).ok_or_else(|| "it is no time; one is spelled `30s`, `5m` or `1h`".to_owned())
}

/// The same, and a second at least.
pub(super) fn longer_than_nothing(text: &str) -> Result<Seconds, String> {
    match any(text)? {
        Seconds(0) => Err("it is no time at all; one second is the least".to_owned()),
        seconds => Ok(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(
            [any("0"), any("30"), any("30s"), any("2m"), any("1h")],
            [0, 30, 30, 120, 3600].map(|s| Ok(Seconds(s)))
        );
        for text in ["", "s", "-1", "1.5m", "1d", "99999999999999999999h", "5 m"] {
            assert!(any(text).is_err(), "{text}");
        }
        assert!(longer_than_nothing("0").is_err() && longer_than_nothing("0s").is_err());
        assert_eq!(longer_than_nothing("1"), Ok(Seconds(1)));
    }
}
