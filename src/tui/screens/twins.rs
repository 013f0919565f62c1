//! Each twin, the oldest first: how old it is, and what its last state says. Part of the screen *Learning*.

use dtwn_proto::event::TwinAge;
use ratatui::{buffer::Buffer, layout::Rect};

use super::{Seen, Sheet, section};
use crate::tui::{
    format,
    table::{self, Column, Marks},
    view::Hits,
};

const TWINS: [Column; 7] = [
    Column::left("TWIN", 9, 0),
    Column::left("BS", 6, 0),
    Column::right("AGE", 8, 0),
    Column::right("MISSED", 6, 1),
    Column::right("BATTERY", 7, 2),
    Column::right("LOAD", 5, 3),
    Column::right("POSITION m", 15, 4),
];

/// Twin, BS and state, those of whom nothing has come before all others.
fn oldest_first<'a>(seen: &Seen<'a>) -> Vec<(&'a str, &'a TwinAge)> {
    let mut twins: Vec<_> = seen.data.run.twins.values().map(|(bs, twin)| (bs.as_str(), twin)).collect();
    let age = |twin: &TwinAge| twin.age_ms.unwrap_or(f64::INFINITY);
    twins.sort_by(|(_, a), (_, b)| age(b).total_cmp(&age(a)));
    twins
}

/// Draws as many as there is room for; all can be reached where one is selected.
pub(super) fn draw(seen: &Seen<'_>, area: Rect, selected: Option<usize>, buf: &mut Buffer, hits: &mut Hits) {
    let twins = oldest_first(seen);
    if area.height < 3 || twins.is_empty() {
        return;
    }
    let theme = seen.theme;
    let title = format!("{} twins, the oldest first", twins.len());
    let inner = section(&title, area, buf, theme);
    let selected = selected.map(|selected| selected.min(twins.len() - 1));
    let marks = Marks { selected, list: 4, ..Marks::default() };
    table::draw(inner, buf, theme, hits, &TWINS, &marks, twins.len(), |index| {
        let (bs, twin) = twins[index];
        let figure = |text: Option<String>| (text.unwrap_or_else(|| "-".into()), theme.text());
        let age = twin.age_ms.map_or(("never".into(), theme.warning()), |ms| (format::ms(ms), theme.text()));
        let missed = if twin.missed > 0 { theme.warning() } else { theme.dim() };
        vec![
            (twin.twin.clone(), theme.text()),
            (bs.to_owned(), theme.dim()),
            age,
            (twin.missed.to_string(), missed),
            figure(twin.battery.map(format::percent)),
            figure(twin.load.map(format::percent)),
            figure(twin.position_m.map(|[x, y]| format!("{x:.1}, {y:.1}"))),
        ]
    });
}

/// All of them, for export.
pub(super) fn sheet(seen: &Seen<'_>) -> Sheet {
    let said = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    let rows = oldest_first(seen).into_iter().map(|(bs, twin)| {
        vec![
            twin.twin.clone(),
            bs.to_owned(),
            said(twin.age_ms),
            twin.missed.to_string(),
            said(twin.battery),
            said(twin.load),
            said(twin.position_m.map(|[x, _]| x)),
            said(twin.position_m.map(|[_, y]| y)),
        ]
    });
    (vec!["twin", "bs", "age_ms", "missed_states", "battery", "load", "x_m", "y_m"], rows.collect())
}
