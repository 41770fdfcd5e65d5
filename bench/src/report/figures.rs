//! How the report writes numbers: three significant digits and a unit.

/// Three significant digits, without an exponent: `0.459`, `2.10`, `12.4`, `541`, `1240`.
pub(super) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    // The digits before the point decide, after rounding: 9.996 is 10.0.
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    let magnitude = if rounded == 0.0 { 0.0 } else { rounded.abs().log10().floor() };
    let decimals = (2.0 - magnitude).clamp(0.0, 6.0) as usize;
    format!("{rounded:.decimals$}")
}

/// Milliseconds.
pub(super) fn milliseconds(value: f64) -> String {
    format!("{} ms", figure(value))
}

/// Bytes, in powers of 1000.
pub(super) fn bytes(count: u64) -> String {
    let count = count as f64;
    let unit = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")].into_iter().find(|unit| count >= unit.0);
    unit.map_or_else(
        || format!("{count} B"),
        |(size, name)| format!("{} {name}", figure(count / size)),
    )
}

/// A part of one, as a percentage of two decimals: accuracies are quoted so.
pub(super) fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

/// How much more than 1, signed: `+3.4 %`, `−12 %`.
pub(super) fn change(ratio: f64) -> String {
    let percent = (ratio - 1.0) * 100.0;
    let decimals = usize::from(percent.abs() < 9.95);
    let text = format!("{:.decimals$}", percent.abs());
    let sign = match percent {
        _ if text.trim_matches(['0', '.']).is_empty() => "±",
        x if x < 0.0 => "−",
        _ => "+",
    };
    format!("{sign}{text} %")
}

/// Two digits and a power of ten: `4.0×10⁻⁷`.
pub(super) fn scientific(value: f64) -> String {
    let text = format!("{value:.1e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let raised = |digit| match digit {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        '4'..='9' => {
            char::from_u32(u32::from(digit) - u32::from('0') + u32::from('⁰')).unwrap_or(digit)
        }
        _ => '⁰',
    };
    format!("{digits}×10{}", exponent.chars().map(raised).collect::<String>())
}

/// A point in time in UTC, to the minute.
pub(super) fn time(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "unknown".into(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_no_more() {
        let cases = [
            (0.458_797, "0.459"),
            (2.1, "2.10"),
            (9.996, "10.0"),
            (12.44, "12.4"),
            (99.96, "100"),
            (541.0, "541"),
            (1239.6, "1240"),
            (0.000_012_345, "0.000012"),
            (0.0, "0.00"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ];
        for (value, expected) in cases {
            assert_eq!(figure(value), expected, "{value}");
        }
    }

    #[test]
    fn units_and_signs() {
        let count = [0, 999, 25_667, 1_418_200, 57_000_000_000].map(bytes);
        assert_eq!(count, ["0 B", "999 B", "25.7 kB", "1.42 MB", "57.0 GB"]);
        let ratios = [1.0, 0.9996, 1.034, 0.88, 1.5, 0.9].map(change);
        assert_eq!(ratios, ["±0.0 %", "±0.0 %", "+3.4 %", "−12 %", "+50 %", "−10 %"]);
        let small = [4.0e-7, 2.8e-8, 0.0, 0.0065, 3e12].map(scientific);
        assert_eq!(small, ["4.0×10⁻⁷", "2.8×10⁻⁸", "0.0×10⁰", "6.5×10⁻³", "3.0×10¹²"]);
        assert_eq!(percent(0.99681), "99.68 %");
    }

    #[test]
    fn time_is_utc() {
        assert_eq!(time(1_795_448_574), "2026-11-23 15:42 UTC");
        assert_eq!(time(u64::MAX), "unknown");
    }
}
