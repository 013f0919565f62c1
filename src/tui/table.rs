//! Tables that fit their width: columns that matter less go first.

use ratatui::{buffer::Buffer, layout::Rect, style::Style};

use super::{
    theme::Theme,
    view::{Hits, Zone},
};

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its header.
    pub title: &'static str,
    /// Its width in cells.
    pub width: u16,
    /// Whether its cells are aligned to the right.
    pub right: bool,
    /// Columns of the highest rank go first when room is short; of rank 0, never.
    pub rank: u8,
}

impl Column {
    /// A column of text.
    pub const fn left(title: &'static str, width: u16, rank: u8) -> Self {
        Self { title, width, right: false, rank }
    }

    /// A column of figures.
    pub const fn right(title: &'static str, width: u16, rank: u8) -> Self {
        Self { title, width, right: true, rank }
    }
}

/// A cell: text and its style.
pub type Cell = (String, Style);

/// What a table shows besides its cells.
#[derive(Debug, Default)]
pub struct Marks {
    /// The selected row.
    pub selected: Option<usize>,
    /// The column that rows are sorted by, and whether upside down.
    pub sorted: Option<(usize, bool)>,
    /// Which list of the screen this is, for the mouse.
    pub list: u8,
}

/// Which columns fit into `width`, in order.
pub fn fit(columns: &[Column], width: u16) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let wide = |kept: &[usize]| -> u32 {
        kept.iter().map(|index| u32::from(columns[*index].width) + 1).sum::<u32>().saturating_sub(1)
    };
    while wide(&kept) > u32::from(width) {
        let worst = kept.iter().copied().filter(|index| columns[*index].rank > 0);
        // The rightmost of those that matter least.
        let Some(worst) = worst.max_by_key(|index| (columns[*index].rank, *index)) else { break };
        kept.retain(|index| *index != worst);
    }
    kept
}

/// The first row to show so that `selected` is visible in `height` rows of `count`.
pub fn first_row(selected: Option<usize>, count: usize, height: usize) -> usize {
    let selected = selected.unwrap_or(0);
    selected.saturating_sub(height.saturating_sub(1) / 2).min(count.saturating_sub(height))
}

#[allow(
    clippy::too_many_arguments,
    reason = "where, how and what of a table; a struct would only name them again"
)]
/// Draws header and rows; `row` gives the cells of a row in the order of `columns`.
pub fn draw(
    area: Rect,
    buf: &mut Buffer,
    theme: Theme,
    hits: &mut Hits,
    columns: &[Column],
    marks: &Marks,
    count: usize,
    row: impl Fn(usize) -> Vec<Cell>,
) {
    if area.is_empty() {
        return;
    }
    let kept = fit(columns, area.width);
    let mut x = area.x;
    for index in &kept {
        let column = columns[*index];
        let mut title = column.title.to_owned();
        if let Some((sorted, down)) = marks.sorted
            && sorted == *index
        {
            title.push(if down { '↓' } else { '↑' });
        }
        let cell = Rect::new(x, area.y, column.width, 1).intersection(area);
        put(buf, cell, &title, column.right, theme.title());
        hits.add(cell, Zone::Header(marks.list, *index));
        x = x.saturating_add(column.width).saturating_add(1);
    }
    let height = area.height.saturating_sub(1) as usize;
    let first = first_row(marks.selected, count, height);
    for (line, index) in (first..count).take(height).enumerate() {
        let place = Rect::new(area.x, area.y + 1 + line as u16, area.width, 1);
        let cells = row(index);
        let mut x = area.x;
        for column in &kept {
            let Some((text, style)) = cells.get(*column) else { continue };
            let cell = Rect::new(x, place.y, columns[*column].width, 1).intersection(area);
            put(buf, cell, text, columns[*column].right, *style);
            x = x.saturating_add(columns[*column].width).saturating_add(1);
        }
        if marks.selected == Some(index) {
            buf.set_style(place, theme.selected());
        }
        hits.add(place, Zone::Row(marks.list, index));
    }
}

fn put(buf: &mut Buffer, area: Rect, text: &str, right: bool, style: Style) {
    if area.is_empty() {
        return;
    }
    let wide = ratatui::text::Span::raw(text).width().min(area.width as usize) as u16;
    let x = if right { area.right() - wide } else { area.x };
    buf.set_stringn(x, area.y, text, (area.right() - x) as usize, style);
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::left("NAME", 10, 0),
        Column::right("A", 5, 1),
        Column::right("B", 5, 3),
        Column::right("C", 5, 2),
    ];

    #[test]
    fn what_matters_least_goes_first() {
        assert_eq!(fit(&COLUMNS, 80), [0, 1, 2, 3]);
        assert_eq!(fit(&COLUMNS, 27), [0, 1, 3]);
        assert_eq!(fit(&COLUMNS, 16), [0, 1]);
        assert_eq!(fit(&COLUMNS, 3), [0]);
    }

    #[test]
    fn the_selected_row_is_in_view() {
        for count in [0, 1, 5, 100] {
            for height in [0, 1, 3, 10] {
                for selected in 0..count {
                    let first = first_row(Some(selected), count, height);
                    assert!(height == 0 || (first..first + height).contains(&selected));
                }
            }
        }
    }
}
