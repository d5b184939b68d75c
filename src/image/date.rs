//! Dates as images spell them.

const DAY: i64 = 24 * 60 * 60;

/// `seconds` since 1970 as RFC 3339 has it, in UTC: `2026-11-23T22:54:44Z`; `None` outside the years 0 to 9999.
///
/// The days are counted as in Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms" (`civil_from_days`):
/// years begin in March, so that the leap day is their last.
pub(super) fn rfc3339(seconds: i64) -> Option<String> {
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let days = days + 719_468; // Since the first of March of the year 0.
    let era = days.div_euclid(146_097); // 400 years.
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (0..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_474_484, "2026-11-23T22:54:44Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
            (-62_167_219_200, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds).as_deref(), Some(date));
        }
    }

    #[test]
    fn other_years_have_no_date() {
        for seconds in [253_402_300_800, -62_167_219_201, i64::MAX, i64::MIN] {
            assert_eq!(rfc3339(seconds), None);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = String::new();
        for day in 0..400 * 366 {
            let date = rfc3339(day * DAY).unwrap();
            assert!(before < date);
            before = date;
        }
    }
}
