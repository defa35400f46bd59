//! Figures as people like to read them, for the terminal and the report.

/// Three significant digits with a suffix: `950`, `1.23k`, `45.6k`, `3.21M`, `1.50B`, `2.00T`.
pub fn count(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let suffixes = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")];
    // 999.5 would round to a four-digit 1000; it belongs to the next unit.
    match suffixes.iter().find(|(unit, _)| value.abs() >= unit * 0.9995) {
        Some((unit, suffix)) => significant(value / unit) + suffix,
        None if value.fract() == 0.0 => format!("{value}"),
        None => significant(value),
    }
}

fn significant(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A measured value: `4.568`, `61.23`, `455.2`, `3e-4`, `12.3k`; `–` if it is not finite.
pub fn figure(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "–".into(),
        0.0 => "0".into(),
        v if v < 0.01 => scientific(value),
        v if v < 10.0 => format!("{value:.3}"),
        v if v < 100.0 => format!("{value:.2}"),
        v if v < 1000.0 => format!("{value:.1}"),
        v if v < 1e15 => count(value),
        _ => scientific(value),
    }
}

/// `3e-4`, `2.53e-4`: up to three digits, as learning rates are usually written.
pub fn scientific(value: f64) -> String {
    let text = format!("{value:.2e}");
    let (mantissa, exponent) = text.split_once('e').expect("{:e} writes an exponent");
    format!("{}e{exponent}", mantissa.trim_end_matches('0').trim_end_matches('.'))
}

/// `1,234,567`
pub fn commas(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The two largest units: `48 s`, `2 min 5 s`, `1 h 12 min`, `3 d 4 h`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "–".into();
    }
    let s = seconds.round() as u64;
    let (minutes, hours, days) = (s / 60, s / 3600, s / 86_400);
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{minutes} min {} s", s % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `2026-11-03 14:05 UTC`, by Hinnant's civil_from_days
/// (howardhinnant.github.io/date_algorithms.html).
pub fn date(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let cases = [(0.0, "0"), (950.0, "950"), (999.6, "1.00k"), (1234.0, "1.23k")];
        let more = [(45_600.0, "45.6k"), (999_600.0, "1.00M"), (1.5e9, "1.50B"), (f64::NAN, "–")];
        for (value, text) in cases.into_iter().chain(more) {
            assert_eq!(count(value), text);
        }
        assert_eq!(commas(0), "0");
        assert_eq!(commas(1_234_567), "1,234,567");
    }

    #[test]
    fn figures() {
        let cases = [(4.5678, "4.568"), (455.23, "455.2"), (3e-4, "3e-4"), (2.5349e-4, "2.53e-4")];
        for (value, text) in cases {
            assert_eq!(figure(value), text);
        }
        assert_eq!(figure(f64::INFINITY), "–");
    }

    #[test]
    fn times() {
        assert_eq!(duration(47.6), "48 s");
        assert_eq!(duration(3600.0 * 76.5), "3 d 4 h");
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_793_714_700), "2026-11-03 14:05 UTC");
    }
}
