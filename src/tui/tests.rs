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
    for event in fixture::events() {
        update(&mut model, Msg::Event(Box::new(event)));
    }
    update(&mut model, Msg::Live);
    model
}

fn press(model: &mut Model, key: KeyCode) -> Vec<Effect> {
    update(model, Msg::Key(KeyEvent::new(key, KeyModifiers::NONE)))
}

fn draw(model: &mut Model) -> String {
    let area = Rect::new(0, 0, model.size.0, model.size.1);
    let mut buffer = Buffer::empty(area);
    model.hits = view(model, area, &mut buffer);
    let rows = (0..area.height).map(|y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>());
    rows.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_screen_shows_what_it_is_for() {
    let parts =
        ["bs1".to_owned(), "no positions".into(), "bs1>mbs".into(), "following".into(), "Timeline".into()];
    for (size, colour) in [((80, 24), true), ((120, 40), true), ((80, 24), false), ((200, 50), false)] {
        let mut model = model(size, colour);
        for (index, part) in parts.iter().enumerate() {
            press(&mut model, KeyCode::Char(char::from(b'1' + index as u8)));
            let text = draw(&mut model);
            assert!(text.contains("degraded"), "no verdict on screen {index} at {size:?}:\n{text}");
            assert!(text.contains(part.as_str()), "no {part} on screen {index} at {size:?}:\n{text}");
        }
    }
}

#[test]
fn small_terminals_get_less_and_never_a_panic() {
    for width in [0, 1, 5, 19, 20, 39, 40, 79] {
        for height in [0, 1, 3, 5, 10, 23] {
            let mut model = model((width, height), true);
            for key in ['1', '2', '3', '4', '5', '?', 'q'] {
                press(&mut model, KeyCode::Char(key));
                draw(&mut model);
            }
        }
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
    press(&mut model, KeyCode::Char('5'));
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
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]
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
    fn no_order_of_events_makes_it_panic(order in Just((0..22_usize).collect::<Vec<_>>()).prop_shuffle()) {
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
