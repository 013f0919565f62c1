//! The whole view, drawn into memory.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;
use ratatui::{buffer::Buffer, layout::Rect};

use super::{
    fixture,
    model::{Dialog, Effect, Leave, Model, Msg},
    theme::Theme,
    update::update,
    view::view,
};

fn model(size: (u16, u16), colour: bool) -> Model {
    let mut model = Model::new("small".into(), "/nowhere".into(), false, size, Theme::new(colour));
    model.sites = fixture::sites();
    for event in fixture::events() {
        update(&mut model, Msg::Event(Box::new(event)));
    }
    update(&mut model, Msg::Logs(fixture::logs()));
    update(&mut model, Msg::Live);
    model
}

fn press(model: &mut Model, key: KeyCode) -> Vec<Effect> {
    update(model, Msg::Key(KeyEvent::new(key, KeyModifiers::NONE)))
}

fn paint(model: &mut Model) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, model.size.0, model.size.1));
    model.hits = view(model, buffer.area, &mut buffer);
    buffer
}

fn rows(buffer: &Buffer, cell: impl Fn(u16, u16) -> String) -> String {
    let row = |y| (0..buffer.area.width).map(|x| cell(x, y)).collect::<String>().trim_end().to_owned();
    (0..buffer.area.height).map(row).collect::<Vec<_>>().join("\n")
}

fn draw(model: &mut Model) -> String {
    let buffer = paint(model);
    rows(&buffer, |x, y| buffer[(x, y)].symbol().to_owned())
}

/// What a frame says, and below it how: a letter for each style, and what the letters mean.
fn picture(model: &mut Model) -> String {
    let buffer = paint(model);
    let mut styles = vec![ratatui::buffer::Cell::default().style()];
    for cell in &buffer.content {
        if !styles.contains(&cell.style()) {
            styles.push(cell.style());
        }
    }
    let letter = |index: usize| if index == 0 { ' ' } else { char::from(b'a' + (index as u8 - 1) % 26) };
    let text = rows(&buffer, |x, y| buffer[(x, y)].symbol().to_owned());
    let map = rows(&buffer, |x, y| {
        let style = buffer[(x, y)].style();
        letter(styles.iter().position(|known| *known == style).unwrap_or(0)).to_string()
    });
    let legend = styles.iter().enumerate().skip(1).map(|(index, style)| {
        let colours = [("on", style.bg), ("in", style.fg)];
        let colours = colours.iter().filter_map(|(word, colour)| Some((word, (*colour)?)));
        let colours = colours.filter(|(_, colour)| *colour != ratatui::style::Color::Reset);
        let words: String = colours.map(|(word, colour)| format!(" {word} {colour}")).collect();
        format!("{}:{words} {:?}", letter(index), style.add_modifier)
    });
    format!("{text}\n\n{map}\n\n{}", legend.collect::<Vec<_>>().join("\n"))
}

/// Sizes that people have, in colour and without.
const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (40, 10)];

#[test]
fn every_screen_looks_as_it_did() {
    for size in SIZES {
        for colour in [true, false] {
            let mut model = model(size, colour);
            for index in 0..model.screens.len() {
                model.current = index;
                let ink = if colour { "colour" } else { "plain" };
                let name = format!("{}-{}x{}-{ink}", model.screen().title().to_lowercase(), size.0, size.1);
                insta::assert_snapshot!(name, picture(&mut model));
            }
        }
    }
}

#[test]
fn details_and_dialogs_look_as_they_did() {
    let keys: [(&str, &str); 8] = [
        ("links-detail", "3jj\n"),
        ("learning-twins", "5\nj"),
        ("links-form", "3e"),
        ("chain-detail", "4jjj\n"),
        ("help", "?"),
        ("quit", "q"),
        ("kill", "1jK"),
        ("command", ":link set bs1 "),
    ];
    for (name, typed) in keys {
        let mut model = model((80, 24), true);
        for key in typed.chars() {
            press(&mut model, if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) });
        }
        insta::assert_snapshot!(name, draw(&mut model));
    }
}

#[test]
fn every_screen_shows_what_it_is_for() {
    for (size, colour) in [((80, 24), true), ((120, 40), true), ((80, 24), false), ((200, 50), false)] {
        let mut model = model(size, colour);
        for (title, part) in [
            ("Overview", "chain height 12"),
            ("Map", "bs1"),
            ("Links", "bs1>mbs"),
            ("Chain", "2 of 14 views"),
            ("Learning", "the last took"),
            ("Association", "bs2"),
            ("Logs", "following"),
            ("Faults", "Timeline"),
        ] {
            show(&mut model, title);
            let text = draw(&mut model);
            assert!(text.contains("degraded"), "no verdict on {title} at {size:?}:\n{text}");
            assert!(text.contains(part), "no {part} on {title} at {size:?}:\n{text}");
        }
    }
}

/// Goes to a screen by its title.
fn show(model: &mut Model, title: &str) {
    model.current = model.screens.iter().position(|screen| screen.title() == title).unwrap();
}

#[test]
fn a_fork_is_in_red_and_what_is_off_says_so() {
    let mut model = model((80, 24), true);
    show(&mut model, "Chain");
    let forked = fixture::events().into_iter().find_map(|mut event| match &mut event.what {
        dtwn_proto::event::What::ChainBlocks { blocks, .. } => {
            blocks.retain(|block| block.height == 11);
            blocks[0].digest = "another".into();
            Some(event)
        }
        _ => None,
    });
    update(&mut model, Msg::Event(Box::new(forked.unwrap())));
    let buffer = paint(&mut model);
    let red = |y: u16| (0..80).any(|x| buffer[(x, y)].fg == ratatui::style::Color::Red);
    let fork =
        (0..24).find(|y| (0..80).map(|x| buffer[(x, *y)].symbol()).collect::<String>().contains("FORK"));
    assert!(fork.is_some_and(red), "{}", draw(&mut model));
    let mut off = Model::new("small".into(), "/nowhere".into(), false, (80, 24), Theme::new(true));
    for (title, said) in [
        ("Chain", "it is off"),
        ("Learning", "no round has begun"),
        ("Association", "no association was decided"),
    ] {
        show(&mut off, title);
        assert!(draw(&mut off).contains(said));
    }
}

#[test]
fn small_terminals_get_less_and_never_a_panic() {
    for width in [0, 1, 5, 19, 20, 39, 40, 79] {
        for height in [0, 1, 3, 5, 10, 23] {
            let mut model = model((width, height), true);
            for key in ['1', '2', '3', '4', '5', '6', '7', '8', '?', 'q'] {
                press(&mut model, KeyCode::Char(key));
                draw(&mut model);
            }
        }
    }
}

#[test]
fn what_shows_can_be_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = model((80, 24), true);
    show(&mut model, "Links");
    let read = |model: &Model, name: &str| {
        super::export::write(model, dir.path().join(name)).map(|path| std::fs::read_to_string(path).unwrap())
    };
    assert!(read(&model, "view.svg").unwrap().contains("bs1&gt;mbs"));
    let csv = read(&model, "view.csv").unwrap();
    assert_eq!(csv.lines().count(), 1 + model.live.run.links.len());
    assert!(csv.contains("\"bs1>mbs\",\"uplink\""), "{csv}");
    let json: serde_json::Value = serde_json::from_str(&read(&model, "view.json").unwrap()).unwrap();
    assert_eq!(json[0]["link"], "bs1>mbs");
    assert!(read(&model, "view.png").unwrap_err().contains(".svg"));
    for title in ["Overview", "Map", "Chain", "Learning", "Association", "Logs", "Faults"] {
        show(&mut model, title);
        let csv = read(&model, "view.csv").unwrap();
        let widths: Vec<_> = csv.lines().map(|line| line.matches("\",\"").count()).collect();
        assert!(widths.len() > 1 && widths.iter().all(|width| *width == widths[0]), "{title}: {csv}");
    }
}

#[test]
fn leaving_asks_whether_the_run_goes_on() {
    let mut model = model((80, 24), true);
    press(&mut model, KeyCode::Char('q'));
    assert!(matches!(model.dialog, Dialog::Quit));
    assert!(draw(&mut model).contains("detach"));
    press(&mut model, KeyCode::Char('d'));
    assert_eq!(model.leave, Some(Leave::Detach));
}

#[test]
fn a_read_only_view_orders_nothing() {
    let mut model = model((80, 24), true);
    model.read_only = true;
    press(&mut model, KeyCode::Char('H'));
    show(&mut model, "Faults");
    let effects = press(&mut model, KeyCode::Char('H'));
    assert!(effects.is_empty(), "{effects:?}");
}

fn keys() -> impl Strategy<Value = KeyCode> {
    prop_oneof![
        8 => any::<char>().prop_map(KeyCode::Char),
        8 => "[ -~]".prop_map(|text| KeyCode::Char(text.chars().next().unwrap_or(' '))),
        1 => Just(KeyCode::Enter),
        1 => Just(KeyCode::Esc),
        1 => Just(KeyCode::Tab),
        1 => Just(KeyCode::Up),
        1 => Just(KeyCode::Down),
        1 => Just(KeyCode::PageUp),
        1 => Just(KeyCode::PageDown),
        1 => Just(KeyCode::Backspace),
        1 => Just(KeyCode::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_keys_at_any_size_make_it_panic(
        keys in proptest::collection::vec(keys(), 0..60), width in 0_u16..220, height in 0_u16..70
    ) {
        let mut model = model((width, height), true);
        for key in keys {
            press(&mut model, key);
            draw(&mut model);
        }
    }

    #[test]
    fn no_order_of_events_makes_it_panic(order in Just((0..fixture::events().len()).collect::<Vec<_>>()).prop_shuffle()) {
        let events = fixture::events();
        let mut model = Model::new("small".into(), "/nowhere".into(), false, (80, 24), Theme::new(true));
        for index in order {
            if let Some(event) = events.get(index) {
                update(&mut model, Msg::Event(Box::new(event.clone())));
                press(&mut model, KeyCode::Tab);
                draw(&mut model);
            }
        }
    }
}
