//! The pieces that a page is built from. Whatever comes from a run is escaped here and nowhere else.

/// A text, safe between tags and in attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// A section with a heading that can be linked to.
pub fn section(id: &str, heading: &str, body: &str) -> String {
    format!("<section id=\"{id}\"><h2>{}</h2>\n{body}</section>\n", escaped(heading))
}

/// A figure: a picture, and below it what it shows and where that comes from.
pub fn figure(heading: &str, picture: &str, caption: &str) -> String {
    format!(
        "<figure><h3>{}</h3>\n<div class=\"picture\">{picture}</div>\n<figcaption>{}</figcaption></figure>\n",
        escaped(heading),
        escaped(caption)
    )
}

/// A paragraph.
pub fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escaped(text))
}

/// Names and values.
pub fn properties(rows: &[(&str, String)]) -> String {
    let rows = rows.iter().filter(|(_, value)| !value.is_empty());
    let rows = rows.map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>", escaped(name), escaped(value)));
    format!("<dl>{}</dl>\n", rows.collect::<String>())
}

/// Characters up to which the words of a column are names.
const NAME_CHARS_MAX: usize = 18;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading, with the unit.
    pub heading: &'static str,
    /// Whether it holds numbers, which stand to the right.
    pub number: bool,
}

/// A column of words.
pub const fn words(heading: &'static str) -> Column {
    Column { heading, number: false }
}

/// A column of numbers.
pub const fn numbers(heading: &'static str) -> Column {
    Column { heading, number: true }
}

/// A table. One of more than `open_rows` rows is folded under its title, which a click or printing opens.
pub fn table(title: &str, columns: &[Column], rows: &[Vec<String>], open_rows: usize) -> String {
    // Names stay on one line; sentences do not.
    let is_short = |index: usize| {
        rows.iter().filter_map(|row| row.get(index)).all(|cell| cell.chars().count() <= NAME_CHARS_MAX)
    };
    let classes: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| match (column.number, is_short(index)) {
            (true, _) => " class=\"number\"",
            (false, true) => " class=\"name\"",
            (false, false) => "",
        })
        .collect();
    let head = columns
        .iter()
        .zip(&classes)
        .map(|(column, class)| format!("<th scope=\"col\"{class}>{}</th>", escaped(column.heading)));
    let body = rows.iter().map(|row| {
        let cells = classes.iter().zip(row).map(|(class, cell)| format!("<td{class}>{}</td>", escaped(cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    });
    let open = if rows.len() <= open_rows { " open" } else { "" };
    format!(
        "<details{open}><summary>{} ({})</summary><div class=\"scroll\"><table><thead><tr>{}</tr></thead>\n<tbody>{}</tbody>\
         </table></div></details>\n",
        escaped(title),
        rows.len(),
        head.collect::<String>(),
        body.collect::<String>()
    )
}

/// The whole page.
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{}</style></head>\n<body>\n{body}</body></html>\n",
        escaped(title),
        include_str!("style.css")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_run_becomes_markup() {
        let evil = "<script>alert('x')</script> \" & \u{1b}[31m";
        for html in [
            escaped(evil),
            section("id", evil, ""),
            figure(evil, "", evil),
            paragraph(evil),
            properties(&[("name", evil.into())]),
            table(evil, &[words("a")], &[vec![evil.into()]], 1),
            page(evil, ""),
        ] {
            assert!(!html.contains("<script") && !html.contains('\u{1b}'), "{html}");
            assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{html}");
        }
    }
}
