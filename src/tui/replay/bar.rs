//! The line above the footer that says where a replay stands.
//!
//! ```text
//! ▶ 12.3 s / 45.0 s  1×  event 345/1200  ━━━━━━━━━━───────────────────────────  recording
//! ```

use ratatui::{buffer::Buffer, layout::Rect};

use super::player::{End, Status};
use crate::tui::{format, theme::Theme};

/// Draws it.
pub fn bar(status: &Status, area: Rect, buf: &mut Buffer, theme: Theme) {
    if area.is_empty() {
        return;
    }
    let seconds = |ns: i64| format::span(ns as f64 / 1e9);
    let state = if status.playing { "▶" } else { "‖" };
    let speed = (status.speed * 100.0).round() / 100.0;
    let left = format!(
        "{state} {} / {}  {speed}×  event {}/{}  ",
        seconds(status.now_ns),
        seconds(status.last_ns),
        status.position,
        status.events
    );
    let (right, style) = match status.end {
        End::Loading => ("  reading …", theme.dim()),
        End::Over => ("", theme.dim()),
        End::Growing => ("  recording", theme.good()),
        End::CutOff => ("  cut off", theme.warning()),
    };
    let width = usize::from(area.width);
    let (x, _) = buf.set_stringn(area.x, area.y, &left, width, theme.title());
    let right_width = right.chars().count() as u16;
    let room = area.right().saturating_sub(x).saturating_sub(right_width);
    // A track shorter than this tells nothing.
    if room >= 8 {
        let whole = (status.last_ns - status.first_ns).max(1) as f64;
        let share = ((status.now_ns - status.first_ns) as f64 / whole).clamp(0.0, 1.0);
        let done = (share * f64::from(room)).round() as usize;
        let (x, _) = buf.set_stringn(x, area.y, "━".repeat(done), usize::from(room), theme.curve());
        buf.set_stringn(x, area.y, "─".repeat(usize::from(room) - done), usize::from(room), theme.dim());
    }
    if x + right_width <= area.right() {
        buf.set_string(area.right() - right_width, area.y, right, style);
    }
}
