//! What a message does to the model. Pure: whatever reaches the outside is an [`Effect`].

use std::path::PathBuf;

use crossterm::event::{KeyEventKind, MouseButton, MouseEvent, MouseEventKind};
use dtwn_proto::{
    control::{LinkChange, NodeAction, Request},
    event::{Level, LinkInfo},
};

use super::{
    command::{self, Parsed},
    keys::{self, Action},
    line_input::LineInput,
    model::{COMMANDS_MAX, Dialog, Effect, Feed, Field, Form, Leave, Model, Msg},
    replay::News,
    screens::Reply,
    theme::Theme,
    view::Zone,
};
use crate::state::Phase;

/// Takes a message into account; what it asks of the outside.
pub fn update(model: &mut Model, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Key(event) if event.kind == KeyEventKind::Release => {}
        Msg::Key(event) => {
            if let Some(name) = keys::name(&event) {
                model.toast = None;
                return key(model, &name);
            }
        }
        Msg::Mouse(event) => return mouse(model, event),
        Msg::Paste(text) => {
            if let Some(input) = input(&mut model.dialog) {
                input.insert(&text);
                follow_typing(model);
            }
        }
        Msg::Resize(columns, rows) => {
            model.size = (columns, rows);
            return vec![Effect::Redraw];
        }
        Msg::Event(event) => model.live.apply(&event),
        Msg::Skipped(count) => model.live.skipped = model.live.skipped.saturating_add(count),
        Msg::Live => model.feed = Feed::Live,
        Msg::Closed(why) => close(model, why),
        Msg::Logs(lines) => model.logs.add(lines),
        Msg::Ordered { label, result } => {
            model.pending = model.pending.saturating_sub(1);
            match result {
                Ok(()) => say(model, Level::Info, label),
                Err(why) => say(model, Level::Error, why),
            }
        }
        Msg::Replay(News::At(status)) => {
            model.feed = Feed::Live;
            model.replay = Some(status);
        }
        Msg::Replay(News::Data(data)) => model.live = *data,
        Msg::Replay(News::Refused(why)) => say(model, Level::Warning, why),
        Msg::Exported(Ok(path)) => say(model, Level::Info, format!("written to {}", path.display())),
        Msg::Exported(Err(why)) => say(model, Level::Error, why),
        Msg::Signal(number) => model.leave = Some(Leave::Signal(number)),
        Msg::TerminalGone => model.leave = Some(Leave::TerminalGone),
        Msg::Continued => return vec![Effect::Reopen],
        Msg::Panicked(what) => model.leave = Some(Leave::Broken(what)),
    }
    Vec::new()
}

fn say(model: &mut Model, level: Level, text: impl AsRef<str>) {
    model.toast = Some((level, super::data::clean(text.as_ref())));
}

fn close(model: &mut Model, why: Option<String>) {
    model.feed = Feed::Closed(if model.live.run.ended.is_some() { None } else { why });
    model.pending = 0;
    if model.stopping {
        model.leave = Some(Leave::Over);
    } else {
        model.dialog = Dialog::Over;
    }
}

fn key(model: &mut Model, name: &str) -> Vec<Effect> {
    if name == "ctrl-l" {
        return vec![Effect::Redraw];
    }
    match std::mem::take(&mut model.dialog) {
        Dialog::None => {
            let replayed = model.replay.and_then(|_| model.keys.find(keys::REPLAY, name));
            match replayed.or_else(|| model.keys.action(model.screen().keys(), name)) {
                Some(action) => act(model, action),
                None => Vec::new(),
            }
        }
        Dialog::Help(top) => {
            match model.keys.action(&[], name) {
                Some(Action::Up) => model.dialog = Dialog::Help(top.saturating_sub(1)),
                Some(Action::Down) => model.dialog = Dialog::Help(top.saturating_add(1)),
                Some(Action::PageUp) => model.dialog = Dialog::Help(top.saturating_sub(10)),
                Some(Action::PageDown) => model.dialog = Dialog::Help(top.saturating_add(10)),
                _ => {}
            }
            Vec::new()
        }
        Dialog::Quit => leave_key(model, name),
        Dialog::Over => {
            if matches!(name, "q" | "enter" | "ctrl-c") {
                model.leave = Some(Leave::Over);
            }
            Vec::new()
        }
        Dialog::Confirm { question, effect } => match name {
            "y" | "Y" | "enter" => send(model, effect),
            "n" | "N" | "esc" | "q" | "ctrl-c" => Vec::new(),
            _ => {
                model.dialog = Dialog::Confirm { question, effect };
                Vec::new()
            }
        },
        Dialog::Command(line, back) => command_key(model, line, back, name),
        Dialog::Filter(line, before) => text_key(model, line, before, name, false),
        Dialog::Only(line, before) => text_key(model, line, before, name, true),
        Dialog::Form(form) => form_key(model, form, name),
    }
}

/// Counts an order that goes out.
fn send(model: &mut Model, effect: Effect) -> Vec<Effect> {
    if let Effect::Order { requests, .. } = &effect {
        if model.replay.is_some() {
            say(model, Level::Warning, "this is a recorded run: nothing in it can be changed");
            return Vec::new();
        }
        if model.read_only {
            say(model, Level::Warning, "read-only: this viewer changes nothing");
            return Vec::new();
        }
        if model.is_over() {
            say(model, Level::Warning, "the run is over");
            return Vec::new();
        }
        model.pending += 1;
        model.stopping |= matches!(requests.as_slice(), [Request::Stop { .. }]);
    }
    vec![effect]
}

fn stop() -> Effect {
    Effect::Order { label: "the run ends".into(), requests: vec![Request::Stop { signal: None }] }
}

fn leave_key(model: &mut Model, name: &str) -> Vec<Effect> {
    match name {
        // A second Ctrl-C means it: the run goes on, nothing is lost.
        "d" | "q" | "enter" | "ctrl-c" => model.leave = Some(Leave::Detach),
        "s" => return send(model, stop()),
        "esc" | "n" | "c" => {}
        _ => model.dialog = Dialog::Quit,
    }
    Vec::new()
}

fn act(model: &mut Model, action: Action) -> Vec<Effect> {
    match action {
        Action::Replay(order) => return vec![Effect::Replay(order)],
        Action::Quit => match model.is_over() || model.replay.is_some() {
            true => model.leave = Some(Leave::Over),
            false => model.dialog = Dialog::Quit,
        },
        Action::Help => model.dialog = Dialog::Help(0),
        Action::NextScreen => go(model, (model.current + 1) % model.screens.len()),
        Action::PreviousScreen => go(model, (model.current + model.screens.len() - 1) % model.screens.len()),
        Action::Screen(index) => go(model, index),
        Action::Filter => {
            if let Some(text) = model.screen().filter().map(str::to_owned) {
                model.dialog = Dialog::Filter(LineInput::new(&text), text);
            }
        }
        Action::Only => {
            if let Some(text) = model.screen().only().map(str::to_owned) {
                model.dialog = Dialog::Only(LineInput::new(&text), text);
            }
        }
        Action::Command => model.dialog = Dialog::Command(LineInput::default(), 0),
        Action::Freeze => freeze(model),
        Action::Redraw => return vec![Effect::Redraw],
        Action::Kill | Action::Pause | Action::Restart | Action::Partition => {
            return act_on_node(model, action);
        }
        Action::Heal => {
            let label = "partitions healed".into();
            return send(model, Effect::Order { label, requests: vec![Request::Heal] });
        }
        Action::Edit => return edit(model),
        Action::Toggle => return toggle(model),
        other => {
            let (screen, seen) = model.screen_mut();
            let reply = screen.act(&seen, other);
            return answer(model, reply);
        }
    }
    Vec::new()
}

fn go(model: &mut Model, index: usize) {
    if index < model.screens.len() {
        model.current = index;
    }
}

fn freeze(model: &mut Model) {
    model.frozen = match model.frozen.take() {
        Some(_) => None,
        None => Some(Box::new(model.live.clone())),
    };
}

/// Does what a screen asks for.
fn answer(model: &mut Model, reply: Option<Reply>) -> Vec<Effect> {
    match reply {
        None => Vec::new(),
        Some(Reply::Say(text)) => {
            say(model, Level::Info, text);
            Vec::new()
        }
        Some(Reply::Command(text)) => {
            model.dialog = Dialog::Command(LineInput::new(&text), 0);
            Vec::new()
        }
        Some(Reply::Order { confirm, label, requests }) => {
            ask(model, confirm, Effect::Order { label, requests })
        }
    }
}

/// Sends an order, after a question if there is one.
fn ask(model: &mut Model, question: Option<String>, effect: Effect) -> Vec<Effect> {
    match question {
        Some(question) if !model.read_only && !model.is_over() && model.replay.is_none() => {
            model.dialog = Dialog::Confirm { question, effect };
            Vec::new()
        }
        _ => send(model, effect),
    }
}

fn act_on_node(model: &mut Model, action: Action) -> Vec<Effect> {
    let seen = model.seen();
    let Some(node) = model.screen().node(&seen) else { return Vec::new() };
    let paused = model.live.run.nodes.get(&node).is_some_and(|state| state.phase == Phase::Paused);
    let (confirm, label, request) = match action {
        Action::Kill => (
            Some(format!("Kill {node} (SIGKILL)? The restart policy decides what follows.")),
            format!("{node} was killed"),
            Request::Node { node, action: NodeAction::Kill },
        ),
        Action::Restart => (
            Some(format!("End {node}'s process and start it again?")),
            format!("{node} restarts"),
            Request::Node { node, action: NodeAction::Restart },
        ),
        Action::Partition => {
            let others: Vec<_> =
                model.live.run.nodes.keys().filter(|other| **other != node).cloned().collect();
            (
                Some(format!("Cut {node} off from all other nodes?")),
                format!("{node} is cut off"),
                Request::Partition { groups: vec![vec![node], others], one_way: false },
            )
        }
        _ if paused => (None, format!("{node} goes on"), Request::Node { node, action: NodeAction::Resume }),
        _ => (None, format!("{node} is paused"), Request::Node { node, action: NodeAction::Pause }),
    };
    ask(model, confirm, Effect::Order { label, requests: vec![request] })
}

fn toggle(model: &mut Model) -> Vec<Effect> {
    let seen = model.seen();
    let Some(link) = model.screen().link(&seen) else { return Vec::new() };
    let up = !link.up;
    let change = LinkChange { up: Some(up), ..LinkChange::default() };
    let request = Request::SetLink { from: link.from, to: link.to, change };
    let (confirm, label) = match up {
        true => (None, format!("{} is up", link.name)),
        false => (
            Some(format!("Take {} down? It will carry nothing.", link.name)),
            format!("{} is down", link.name),
        ),
    };
    ask(model, confirm, Effect::Order { label, requests: vec![request] })
}

fn edit(model: &mut Model) -> Vec<Effect> {
    let seen = model.seen();
    if let Some(link) = model.screen().link(&seen) {
        if model.replay.is_some() {
            say(model, Level::Warning, "this is a recorded run: nothing in it can be changed");
        } else if model.read_only {
            say(model, Level::Warning, "read-only: this viewer changes nothing");
        } else {
            model.dialog = Dialog::Form(form(link));
        }
    }
    Vec::new()
}

fn form(link: LinkInfo) -> Form {
    let number = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let field = |label, flag, before: String| Field { label, flag, input: LineInput::new(&before), before };
    let rate = link.rate_bps.map_or(String::new(), |bps| format!("{} Mbit/s", number(bps / 1e6)));
    let fields = vec![
        field("loss", "--loss", format!("{}%", number(link.loss * 100.0))),
        field("delay", "--delay", format!("{} ms", number(link.delay_ms))),
        field("jitter", "--jitter", format!("{} ms", number(link.jitter_ms))),
        field("rate", "--rate", rate),
        field("state", "", if link.up { "up" } else { "down" }.into()),
    ];
    Form { link, fields, at: 0, error: None }
}

fn form_key(model: &mut Model, mut form: Form, name: &str) -> Vec<Effect> {
    form.error = None;
    let last = form.fields.len().saturating_sub(1);
    match name {
        "esc" | "ctrl-c" => return Vec::new(),
        "tab" | "down" => form.at = if form.at == last { 0 } else { form.at + 1 },
        "backtab" | "up" => form.at = if form.at == 0 { last } else { form.at - 1 },
        "enter" => match requests_of(&form) {
            Ok(requests) if requests.is_empty() => return Vec::new(),
            Ok(requests) => {
                let label = format!("{} changed", form.link.name);
                return send(model, Effect::Order { label, requests });
            }
            Err(error) => form.error = Some(error),
        },
        name => {
            if let Some(field) = form.fields.get_mut(form.at) {
                match (field.flag, name) {
                    // The state has two values only.
                    ("", "space" | "left" | "right") => {
                        let up = field.input.text() == "up";
                        field.input = LineInput::new(if up { "down" } else { "up" });
                    }
                    ("", _) => {}
                    _ => {
                        field.input.key(name);
                    }
                }
            }
        }
    }
    model.dialog = Dialog::Form(form);
    Vec::new()
}

/// The requests for the fields that were changed, read by the command line's own parser.
fn requests_of(form: &Form) -> Result<Vec<Request>, String> {
    let mut requests = Vec::new();
    let ends = format!("{} {}", form.link.from, form.link.to);
    let changed = || form.fields.iter().filter(|field| field.input.text().trim() != field.before);
    let flags: Vec<_> = changed()
        .filter(|field| !field.flag.is_empty())
        .map(|field| format!("{} '{}'", field.flag, field.input.text().trim().replace('\'', "")))
        .collect();
    let mut lines = Vec::new();
    if !flags.is_empty() {
        lines.push(format!("link set {ends} {}", flags.join(" ")));
    }
    lines.extend(
        changed().filter(|field| field.flag.is_empty()).map(|f| format!("link {} {ends}", f.input.text())),
    );
    for line in lines {
        match command::parse(&line, &[])? {
            Parsed::Order(order) => requests.extend(order.into_iter().map(|request| request.0)),
            _ => return Err(format!("`{line}` changes no link")),
        }
    }
    Ok(requests)
}

fn titles(model: &Model) -> Vec<&'static str> {
    model.screens.iter().map(|screen| screen.title()).collect()
}

fn command_key(model: &mut Model, mut line: LineInput, back: usize, name: &str) -> Vec<Effect> {
    match name {
        "esc" | "ctrl-c" => return Vec::new(),
        "backspace" if line.is_empty() => return Vec::new(),
        "enter" => {
            let text = line.text();
            if !text.trim().is_empty() {
                model.commands.retain(|past| *past != text);
                model.commands.push(text.clone());
                if model.commands.len() > COMMANDS_MAX {
                    model.commands.remove(0);
                }
            }
            return run_command(model, &text);
        }
        "tab" => {
            let before = line.before_cursor();
            let candidates =
                command::completions(&before, &titles(model), &model.live, model.replay.is_some());
            let prefix = command::common_prefix(&candidates);
            let begun = before.rsplit(|c: char| c.is_whitespace() || matches!(c, ',' | ':')).next();
            line.insert(prefix.strip_prefix(begun.unwrap_or_default()).unwrap_or_default());
            if candidates.len() == 1 {
                line.insert(" ");
            }
            model.dialog = Dialog::Command(line, back);
        }
        "up" | "down" => {
            let past = model.commands.len();
            let back = if name == "up" { (back + 1).min(past) } else { back.saturating_sub(1) };
            let text = if back == 0 { "" } else { &model.commands[past - back] };
            model.dialog = Dialog::Command(LineInput::new(text), back);
        }
        name => {
            line.key(name);
            model.dialog = Dialog::Command(line, 0);
        }
    }
    Vec::new()
}

fn run_command(model: &mut Model, text: &str) -> Vec<Effect> {
    match command::parse(text, &titles(model)) {
        Ok(Parsed::Nothing) => {}
        Ok(Parsed::Order(order)) => {
            let requests = order.into_iter().map(|request| request.0).collect();
            return send(model, Effect::Order { label: format!("done: {}", text.trim()), requests });
        }
        Ok(Parsed::Replay(order)) if model.replay.is_some() => return vec![Effect::Replay(order)],
        Ok(Parsed::Replay(_)) => {
            say(model, Level::Warning, "that is for recorded runs: `dtwn replay RUN` opens one");
        }
        Ok(Parsed::Screen(index)) => go(model, index),
        Ok(Parsed::Quit) => return act(model, Action::Quit),
        Ok(Parsed::Detach) if model.replay.is_some() => return act(model, Action::Quit),
        Ok(Parsed::Detach) => model.leave = Some(Leave::Detach),
        Ok(Parsed::Stop) => return ask(model, Some("End the run?".into()), stop()),
        Ok(Parsed::Freeze) => freeze(model),
        Ok(Parsed::Theme(name)) => match Theme::named(&name) {
            Ok(theme) => model.theme = theme,
            Err(why) => say(model, Level::Error, why),
        },
        Ok(Parsed::Help) => model.dialog = Dialog::Help(0),
        Ok(Parsed::Export(path)) => return vec![Effect::Export(PathBuf::from(path))],
        Err(why) => say(model, Level::Error, why),
    }
    Vec::new()
}

fn text_key(model: &mut Model, mut line: LineInput, before: String, name: &str, only: bool) -> Vec<Effect> {
    match name {
        "enter" => return Vec::new(),
        "esc" | "ctrl-c" => {
            let (screen, _) = model.screen_mut();
            if only {
                screen.set_only(&before);
            } else {
                screen.set_filter(&before);
            }
            return Vec::new();
        }
        name => line.key(name),
    };
    model.dialog = if only { Dialog::Only(line, before) } else { Dialog::Filter(line, before) };
    follow_typing(model);
    Vec::new()
}

/// Applies a filter while it is typed.
fn follow_typing(model: &mut Model) {
    let (text, only) = match &model.dialog {
        Dialog::Filter(line, _) => (line.text(), false),
        Dialog::Only(line, _) => (line.text(), true),
        _ => return,
    };
    let (screen, _) = model.screen_mut();
    if only { screen.set_only(&text) } else { screen.set_filter(&text) }
}

/// The line that takes typed text, if one does.
fn input(dialog: &mut Dialog) -> Option<&mut LineInput> {
    match dialog {
        Dialog::Command(line, _) | Dialog::Filter(line, _) | Dialog::Only(line, _) => Some(line),
        Dialog::Form(form) => form.fields.get_mut(form.at).map(|field| &mut field.input),
        _ => None,
    }
}

fn mouse(model: &mut Model, event: MouseEvent) -> Vec<Effect> {
    if !matches!(model.dialog, Dialog::None) {
        return Vec::new();
    }
    match event.kind {
        MouseEventKind::ScrollUp => act(model, Action::Up),
        MouseEventKind::ScrollDown => act(model, Action::Down),
        MouseEventKind::Down(MouseButton::Left) => {
            match model.hits.at(event.column, event.row) {
                Some(Zone::Tab(index)) => go(model, index),
                Some(zone) => {
                    let (screen, seen) = model.screen_mut();
                    screen.click(&seen, zone);
                }
                None => {}
            }
            Vec::new()
        }
        _ => Vec::new(),
    }
}
