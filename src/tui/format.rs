//! Figures as people read them, narrow enough for columns.

use dtwn_proto::event::EndReason;

/// A rate: `444 Mbit/s` as `444M`; `-` for none.
pub fn bps(rate: f64) -> String {
    si(rate)
}

/// A count of bytes in binary units: `1.2Mi`.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["", "Ki", "Mi", "Gi", "Ti"])
}

/// A number with an SI prefix and three digits.
pub fn si(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T"])
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let mut value = value;
    let mut unit = 0;
    // 999.5 would round to a fourth digit.
    while value.abs() >= base - base / 2000.0 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let digits = if unit == 0 || value.abs() >= 99.95 {
        0
    } else if value.abs() >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{}", units[unit])
}

/// Milliseconds with about three digits.
pub fn ms(ms: f64) -> String {
    match ms.abs() {
        value if value >= 10_000.0 => format!("{:.1}s", ms / 1000.0),
        value if value >= 100.0 => format!("{ms:.0}ms"),
        value if value >= 10.0 => format!("{ms:.1}ms"),
        0.0 => "0ms".into(),
        _ => format!("{ms:.2}ms"),
    }
}

/// A share as a percentage: `0.05` as `5%`.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent.abs() {
        0.0 => "0%".into(),
        value if value < 0.1 => format!("{percent:.3}%"),
        value if value < 10.0 && (value - value.round()).abs() > 1e-9 => format!("{percent:.1}%"),
        _ => format!("{percent:.0}%"),
    }
}

/// Emulated nanoseconds as seconds: `12.345`.
pub fn seconds(ns: i64) -> String {
    format!("{:.3}", ns as f64 / 1e9)
}

/// A length of time for the title: `75.0 s`, `12 min 3 s`.
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s < 600.0 => format!("{s:.1} s"),
        s if s < 36_000.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

/// Why a run ended.
pub fn end_reason(reason: &EndReason) -> String {
    match reason {
        EndReason::Finished => "finished".into(),
        EndReason::Asked => "stopped on request".into(),
        EndReason::Signal(number) => format!("ended by signal {number}"),
        EndReason::NodeFailed(node) => format!("{node} failed"),
    }
}

/// Values as a row of bars, scaled to `max` (or to the largest value).
pub fn spark(values: impl Iterator<Item = f64>, max: Option<f64>, ascii: bool) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const ASCII: [char; 8] = ['_', '_', '.', '.', '-', '=', '*', '#'];
    let bars = if ascii { ASCII } else { BARS };
    let values: Vec<f64> = values.collect();
    let top = max.unwrap_or_else(|| values.iter().copied().fold(0.0, f64::max));
    values
        .iter()
        .map(|value| {
            let share = if top > 0.0 { (value / top).clamp(0.0, 1.0) } else { 0.0 };
            // Nothing and very little must differ.
            match share {
                0.0 => ' ',
                share => bars[((share * 8.0).ceil() as usize).clamp(1, 8) - 1],
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!([si(0.0), si(999.4), si(999.6), si(444e6)], ["0", "999", "1.00k", "444M"]);
        assert_eq!([bytes(1023), bytes(1 << 20)], ["1023", "1.00Mi"]);
        assert_eq!(
            [percent(0.05), percent(0.055), percent(0.0001), percent(0.0)],
            ["5%", "5.5%", "0.010%", "0%"]
        );
        assert_eq!([ms(0.5), ms(20.0), ms(123.4), ms(12_345.0)], ["0.50ms", "20.0ms", "123ms", "12.3s"]);
        assert_eq!(si(f64::NAN), "-");
    }

    #[test]
    fn bars_follow_values() {
        assert_eq!(spark([0.0, 1.0, 4.0, 8.0].into_iter(), None, false), " ▁▄█");
        assert_eq!(spark([0.5, 2.0].into_iter(), Some(1.0), true), ".#");
        assert_eq!(spark([f64::NAN].into_iter(), None, false).chars().count(), 1);
    }
}
