//! What a screen shows, as a file: a picture, or the figures behind it.

use std::path::PathBuf;

use ratatui::{buffer::Buffer, layout::Rect};

use super::{model::Model, screens::Sheet, svg, view};

/// Writes what the screen shows; the file's ending says how.
///
/// # Errors
/// In one sentence, why not.
pub fn write(model: &Model, path: PathBuf) -> Result<PathBuf, String> {
    let sheet = || model.screen().sheet(&model.seen()).ok_or("this screen holds no table; .svg draws it");
    let text = match path.extension().and_then(|ending| ending.to_str()) {
        Some("svg") => {
            let mut buffer = Buffer::empty(Rect::new(0, 0, model.size.0, model.size.1));
            view::view(model, buffer.area, &mut buffer);
            svg::draw(&buffer)
        }
        Some("csv") => csv(&sheet()?),
        Some("json") => json(&sheet()?),
        _ => return Err("name a file that ends in .svg, .csv or .json".into()),
    };
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// RFC 4180 but for its line ends; every cell is quoted.
fn csv((header, rows): &Sheet) -> String {
    let quoted = |cell: &str| format!("\"{}\"", cell.replace('"', "\"\""));
    let head = header.iter().map(|cell| quoted(cell)).collect::<Vec<_>>();
    let rows = rows.iter().map(|row| row.iter().map(|cell| quoted(cell)).collect());
    std::iter::once(head).chain(rows).map(|cells| cells.join(",") + "\n").collect()
}

/// One object a row.
fn json((header, rows): &Sheet) -> String {
    let object = |row: &Vec<String>| -> serde_json::Map<String, serde_json::Value> {
        header.iter().zip(row).map(|(key, cell)| ((*key).to_owned(), cell.clone().into())).collect()
    };
    format!("{:#}\n", serde_json::Value::from_iter(rows.iter().map(object)))
}
