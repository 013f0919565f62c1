//! A frame as a picture: what the terminal shows, as SVG, for papers and pages.

use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

/// Cells of a common monospaced font at 14 px, in px.
const CELL: (f64, u32) = (8.43, 18);
const MARGIN: u32 = 10;
const BACKGROUND: &str = "#1c1c1c";
const FOREGROUND: &str = "#d0d0d0";
/// The sixteen colours of a terminal, which has its own idea of them.
const SIXTEEN: [&str; 16] = [
    "#1c1c1c", "#d75f5f", "#87af5f", "#d7af5f", "#5f87d7", "#af87d7", "#5fafaf", "#d0d0d0", "#7a7a7a",
    "#ff8787", "#afd787", "#ffd787", "#87afff", "#d7afff", "#87d7d7", "#ffffff",
];

/// Draws a frame.
pub fn draw(buffer: &Buffer) -> String {
    let (columns, rows) = (buffer.area.width, buffer.area.height);
    let width = f64::from(columns) * CELL.0 + f64::from(2 * MARGIN);
    let height = u32::from(rows) * CELL.1 + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height}\" font-size=\"14\" \
         font-family=\"DejaVu Sans Mono,Menlo,Consolas,monospace\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for y in 0..rows {
        let mut x = 0;
        while x < columns {
            let first = &buffer[(x, y)];
            let alike = |x: &u16| same(&buffer[(*x, y)], first);
            let end = (x..columns).take_while(alike).last().unwrap_or(x) + 1;
            let text: String = (x..end).map(|x| buffer[(x, y)].symbol()).collect();
            svg += &run(first, &text, x, y, end - x);
            x = end;
        }
    }
    svg + "</svg>\n"
}

fn same(a: &Cell, b: &Cell) -> bool {
    (a.fg, a.bg, a.modifier) == (b.fg, b.bg, b.modifier)
}

/// Cells of one style side by side.
fn run(style: &Cell, text: &str, column: u16, row: u16, cells: u16) -> String {
    let x = f64::from(MARGIN) + f64::from(column) * CELL.0;
    let y = MARGIN + u32::from(row) * CELL.1;
    let width = f64::from(cells) * CELL.0;
    let (mut ink, mut paper) = (hex(style.fg, FOREGROUND), hex(style.bg, BACKGROUND));
    if style.modifier.contains(Modifier::REVERSED) {
        std::mem::swap(&mut ink, &mut paper);
    }
    let mut svg = String::new();
    if paper != BACKGROUND {
        svg += &format!(
            "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{paper}\"/>\n",
            CELL.1
        );
    }
    if !text.trim().is_empty() {
        let has = |modifier, attribute| if style.modifier.contains(modifier) { attribute } else { "" };
        svg += &format!(
            "<text x=\"{x:.1}\" y=\"{}\" fill=\"{ink}\"{}{}{} textLength=\"{width:.1}\" xml:space=\"preserve\">{}</text>\n",
            y + 14,
            has(Modifier::BOLD, " font-weight=\"bold\""),
            has(Modifier::DIM, " opacity=\"0.6\""),
            has(Modifier::UNDERLINED, " text-decoration=\"underline\""),
            escape(text)
        );
    }
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn hex(colour: Color, default: &str) -> String {
    let named = match colour {
        Color::Reset => return default.into(),
        Color::Rgb(red, green, blue) => return format!("#{red:02x}{green:02x}{blue:02x}"),
        Color::Indexed(index) => index,
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 8,
        Color::LightRed => 9,
        Color::LightGreen => 10,
        Color::LightYellow => 11,
        Color::LightBlue => 12,
        Color::LightMagenta => 13,
        Color::LightCyan => 14,
        Color::White => 15,
    };
    match named {
        0..16 => SIXTEEN[usize::from(named)].into(),
        // A cube of six steps each, as xterm has it.
        16..232 => {
            let step = |digit: u8| if digit == 0 { 0 } else { 55 + 40 * digit };
            let cube = named - 16;
            format!("#{:02x}{:02x}{:02x}", step(cube / 36), step(cube / 6 % 6), step(cube % 6))
        }
        232.. => format!("#{0:02x}{0:02x}{0:02x}", 8 + 10 * (named - 232)),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{layout::Rect, style::Style};

    use super::*;

    #[test]
    fn a_picture_holds_the_text_and_is_well_formed() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 20, 2));
        buffer.set_string(0, 0, "bs1>mbs & \"more\"", Style::new().fg(Color::Red));
        buffer.set_string(2, 1, "chosen", Style::new().add_modifier(Modifier::REVERSED));
        let svg = draw(&buffer);
        let document = roxmltree::Document::parse(&svg).unwrap();
        let texts: Vec<_> =
            document.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect();
        assert!(texts.contains(&"bs1>mbs & \"more\"") && texts.contains(&"chosen"), "{svg}");
        let red = document.descendants().find(|node| node.attribute("fill") == Some(SIXTEEN[1]));
        assert!(red.is_some_and(|node| node.tag_name().name() == "text"));
        assert!(document.descendants().any(|node| node.attribute("fill") == Some(FOREGROUND)));
    }

    #[test]
    fn colours_are_those_of_xterm() {
        assert_eq!(hex(Color::Indexed(74), ""), "#5fafd7");
        assert_eq!(hex(Color::Indexed(245), ""), "#8a8a8a");
        assert_eq!(hex(Color::Reset, "#123456"), "#123456");
    }
}
