//! A map for the terminal.
//!
//! ```text
//! small: 1 MBS, 4 BSs, 8 users
//!      ⢀⠔⠊⠉⠑⠢⡀
//!      ⡇ a▲bs1 ⡇   ■mbs
//!      ⠑⠤⣀⡠⠔⠁a
//! |------| 100 m
//! a bs1 2    b bs2 2
//! ```

use dtwn_model::{geometry::Position, ids::BsId};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Color,
    symbols::Marker,
    widgets::{
        Widget,
        canvas::{Canvas, Circle},
    },
};

use super::{ROOMY_BSS_MAX, Scene, scale_bar_m};

/// How a map is drawn.
pub struct Style {
    /// Columns and rows at most, text included.
    pub size: (u16, u16),
    /// With ANSI colours.
    pub colour: bool,
    /// With characters outside ASCII.
    pub unicode: bool,
}

/// ANSI colours that are told apart on dark and light ground.
const COLOURS: [u8; 10] = [1, 2, 3, 4, 5, 6, 9, 10, 12, 13];
/// Users carry their BS's letter; after these it begins again.
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// The smallest drawing that shows anything.
const SIZE_MIN: (u16, u16) = (20, 8);
/// A terminal cell is about twice as high as it is wide.
const CELL_ASPECT: f64 = 2.0;

/// Draws the map: a title, the drawing, a scale bar and the letters with their BSs.
pub fn draw(scene: &Scene, style: &Style) -> String {
    let plan = scene.plan;
    let mut text = format!(
        "{}: 1 MBS, {} BSs, {} users{}\n",
        plan.topology().run.name,
        plan.bs_count(),
        plan.user_count(),
        if is_roomy(scene) { "" } else { ", coverage not drawn" }
    );
    let legend = if plan.user_count() > 0 { legend(scene, style) } else { String::new() };
    let around = 2 + u16::try_from(legend.lines().count()).unwrap_or(u16::MAX);
    let drawing = Drawing::new(scene, style, style.size.1.saturating_sub(around));
    text.push_str(&drawing.text(style.colour));
    text.push_str(&drawing.scale_bar());
    text.push_str(&legend);
    text
}

/// The circles of many BSs would cover everything else.
fn is_roomy(scene: &Scene) -> bool {
    scene.plan.bs_count() <= ROOMY_BSS_MAX
}

fn letter(bs: BsId) -> char {
    char::from(LETTERS[bs.index() % LETTERS.len()])
}

fn colour(bs: BsId) -> Color {
    Color::Indexed(COLOURS[bs.index() % COLOURS.len()])
}

/// Each BS's letter, name and users, in as many columns as fit.
fn legend(scene: &Scene, style: &Style) -> String {
    let plan = scene.plan;
    let counts = plan.association.counts(plan.bs_count());
    let entries: Vec<_> = scene
        .stations()
        .zip(counts)
        .map(|((id, station, _), users)| (id, format!("{} {} {users}", letter(id), station.name)))
        .collect();
    let width = entries.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0) + 3;
    let per_line = (usize::from(style.size.0) / width).max(1);
    let mut text = String::from("letter, BS, users:\n");
    for line in entries.chunks(per_line) {
        let cells = line.iter().map(|(id, text)| {
            let padding = " ".repeat(width - text.chars().count());
            if style.colour {
                format!("{}{padding}", painted(text, colour(*id)))
            } else {
                format!("{text}{padding}")
            }
        });
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

fn painted(text: &str, colour: Color) -> String {
    match colour {
        Color::Indexed(index @ 0..8) => format!("\x1b[{}m{text}\x1b[0m", 30 + index),
        Color::Indexed(index) => format!("\x1b[{}m{text}\x1b[0m", 82 + index),
        _ => text.to_owned(),
    }
}

/// Cells with what stands in them.
struct Drawing {
    buffer: Buffer,
    /// Cells that hold a station or its name, which users do not cover.
    taken: Vec<bool>,
    low: Position,
    /// Metres from the first column to the last, and from the lowest row to the highest.
    span: (f64, f64),
}

impl Drawing {
    fn new(scene: &Scene, style: &Style, rows_max: u16) -> Self {
        let (width_m, height_m) = scene.span();
        let columns_max = f64::from(style.size.0.max(SIZE_MIN.0));
        let rows_max = f64::from(rows_max.max(SIZE_MIN.1));
        // Metres a column: as coarse as the narrower of the two directions needs.
        let metres = (width_m / columns_max).max(height_m / (rows_max * CELL_ASPECT));
        let columns = (width_m / metres).round().clamp(1.0, columns_max);
        let rows = (height_m / (metres * CELL_ASPECT)).round().clamp(1.0, rows_max);
        let area = Rect::new(0, 0, columns as u16, rows as u16);
        let mut drawing = Self {
            buffer: Buffer::empty(area),
            taken: vec![false; area.area() as usize],
            low: scene.low,
            span: scene.span(),
        };
        if is_roomy(scene) {
            drawing.coverage(scene, if style.unicode { Marker::Braille } else { Marker::Custom('.') });
        }
        drawing.places(scene, style.unicode);
        drawing
    }

    fn coverage(&mut self, scene: &Scene, marker: Marker) {
        Canvas::default()
            .marker(marker)
            .x_bounds([scene.low.x, scene.high.x])
            .y_bounds([scene.low.y, scene.high.y])
            .paint(|canvas| {
                for (id, station, radius) in scene.stations().filter(|(_, _, radius)| *radius > 0.0) {
                    canvas.draw(&Circle {
                        x: station.position.x,
                        y: station.position.y,
                        radius,
                        color: colour(id),
                    });
                }
            })
            .render(self.buffer.area, &mut self.buffer);
    }

    fn places(&mut self, scene: &Scene, unicode: bool) {
        let (mbs_mark, bs_mark) = if unicode { ('■', '▲') } else { ('#', '^') };
        let mbs = scene.mbs();
        // All marks before any name, so that no name hides a station.
        let mut names = vec![(self.mark(mbs.position, mbs_mark, Color::Reset, true), mbs, Color::Reset)];
        for (id, station, _) in scene.stations() {
            names.push((self.mark(station.position, bs_mark, colour(id), true), station, colour(id)));
        }
        for ((column, row), station, colour) in names {
            self.name(column, row, &station.name, colour);
        }
        for (user, bs) in scene.users() {
            self.mark(user.position, letter(bs), colour(bs), false);
        }
    }

    /// Puts a character at a position, and returns its cell. What a station has taken stays.
    fn mark(&mut self, at: Position, mark: char, colour: Color, takes: bool) -> (u16, u16) {
        let area = self.buffer.area;
        let cell = |part: f64, cells: u16| ((part * f64::from(cells)) as u16).min(cells - 1);
        let column = cell((at.x - self.low.x) / self.span.0, area.width);
        let row = area.height - 1 - cell((at.y - self.low.y) / self.span.1, area.height);
        let index = self.buffer.index_of(column, row);
        if takes || !self.taken[index] {
            self.buffer[(column, row)].set_char(mark).set_fg(colour);
            self.taken[index] |= takes;
        }
        (column, row)
    }

    /// Writes a name to the right of its mark, or to the left, where there is room for it.
    fn name(&mut self, column: u16, row: u16, name: &str, colour: Color) {
        let length = u16::try_from(name.chars().count()).unwrap_or(u16::MAX);
        let right =
            column.checked_add(1).filter(|start| length <= self.buffer.area.width.saturating_sub(*start));
        let left = column.checked_sub(length);
        for start in [right, left].into_iter().flatten() {
            let first = self.buffer.index_of(start, row);
            let cells = first..first + usize::from(length);
            if self.taken[cells.clone()].iter().any(|taken| *taken) {
                continue;
            }
            self.taken[cells].fill(true);
            for (offset, char) in (0..).zip(name.chars()) {
                self.buffer[(start + offset, row)].set_char(char).set_fg(colour);
            }
            return;
        }
    }

    fn text(&self, with_colour: bool) -> String {
        let mut text = String::new();
        for row in self.buffer.content.chunks(usize::from(self.buffer.area.width)) {
            let length = row.iter().rposition(|cell| cell.symbol() != " ").map_or(0, |last| last + 1);
            for run in row[..length].chunk_by(|a, b| a.fg == b.fg) {
                let symbols: String = run.iter().map(ratatui::buffer::Cell::symbol).collect();
                text.push_str(&if with_colour { painted(&symbols, run[0].fg) } else { symbols });
            }
            text.push('\n');
        }
        text
    }

    fn scale_bar(&self) -> String {
        let columns_per_m = f64::from(self.buffer.area.width) / self.span.0;
        let length_m = scale_bar_m(self.span.0 / 4.0);
        let dashes = ((length_m * columns_per_m).round() as usize).saturating_sub(2);
        format!("|{}| {length_m} m\n", "-".repeat(dashes))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{plan, small},
        *,
    };

    fn map(size: (u16, u16), colour: bool, unicode: bool) -> String {
        draw(&Scene::new(&small()), &Style { size, colour, unicode })
    }

    #[test]
    fn the_small_network() {
        insta::assert_snapshot!("map_unicode", map((80, 40), false, true));
        insta::assert_snapshot!("map_ascii", map((60, 24), false, false));
    }

    #[test]
    fn a_map_keeps_to_its_size_and_to_ascii_when_told() {
        for size in [(80, 24), (40, 20), (200, 60)] {
            for unicode in [false, true] {
                let text = map(size, false, unicode);
                assert!(text.lines().all(|line| line.chars().count() <= usize::from(size.0)), "{text}");
                assert!(text.lines().count() <= usize::from(size.1), "{size:?}\n{text}");
                assert_eq!(text.is_ascii(), !unicode);
                assert!(!text.contains('\x1b'));
            }
        }
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let coloured = map((80, 40), true, true);
        let mut bare = String::new();
        let mut rest = coloured.as_str();
        while let Some((text, escape)) = rest.split_once('\x1b') {
            bare.push_str(text);
            rest = escape.split_once('m').unwrap().1;
        }
        bare.push_str(rest);
        assert_eq!(bare, map((80, 40), false, true));
        assert!(coloured.contains("\x1b[31m"));
    }

    #[test]
    fn a_crowded_network_leaves_names_out_and_shows_every_station() {
        let plan = plan(include_str!("../../../topologies/scale-100.toml"));
        let text = draw(&Scene::new(&plan), &Style { size: (120, 80), colour: false, unicode: true });
        assert!(text.matches('▲').count() >= 90, "{text}");
        assert!(text.contains("■mbs") && text.contains("coverage not drawn"), "{text}");
    }

    #[test]
    fn awkward_places_do_not_break_the_map() {
        let far = plan("[[bs]]\nid = \"b\"\nposition_m = [1e6, 0]\ncoverage = \"0.1 m\"\n");
        let lone = plan("[[bs]]\nid = \"b\"\nposition_m = [0.1, 0]\ncoverage = \"0.1 m\"\n");
        for plan in [far, lone] {
            for size in [(0, 0), (20, 8), (80, 24)] {
                let text = draw(&Scene::new(&plan), &Style { size, colour: true, unicode: true });
                assert!(text.contains('▲'), "{text}");
            }
        }
    }
}
