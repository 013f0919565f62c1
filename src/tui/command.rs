//! The command line behind `:`. It takes the verbs of the program itself, read by the same parser, and a few of its own.

use clap::{CommandFactory, Parser};
use dtwn_model::topology::Poison;
use dtwn_proto::control::{LinkChange, NodeAction, Request};

use super::{
    data::Data,
    replay::{self, Order},
    theme,
};
use crate::{
    cli::{Cli, Command, LinkCommand, LinkEndArgs},
    commands::steer,
};

/// Verbs of the program that make sense here.
const VERBS: [&str; 9] =
    ["link", "partition", "heal", "kill", "pause", "resume", "restart", "poison", "down"];
/// Verbs of the screen.
const OWN: [&str; 7] = ["detach", "export", "freeze", "help", "quit", "stop", "theme"];

/// Verbs of a replay.
const REPLAY: [&str; 4] = ["pause", "play", "seek", "speed"];

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub enum Parsed {
    /// Nothing.
    Nothing,
    /// Requests to the session.
    Order(Vec<RequestLine>),
    /// Go to a screen.
    Screen(usize),
    /// Ask how to leave.
    Quit,
    /// Leave; the run goes on.
    Detach,
    /// End the run.
    Stop,
    /// Hold the picture still, or let it go.
    Freeze,
    /// Show the keys.
    Help,
    /// Wear a theme.
    Theme(String),
    /// Write the view to a file.
    Export(String),
    /// Ask something of a replay.
    Replay(Order),
}

/// A request that can be compared and sent.
#[derive(Debug, Clone)]
pub struct RequestLine(pub Request);

impl PartialEq for RequestLine {
    fn eq(&self, other: &Self) -> bool {
        format!("{:?}", self.0) == format!("{:?}", other.0)
    }
}

/// Reads a line.
///
/// # Errors
/// In one sentence, what is wrong with it.
pub fn parse(line: &str, screens: &[&str]) -> Result<Parsed, String> {
    let words = words(line)?;
    let Some(verb) = words.first() else { return Ok(Parsed::Nothing) };
    if let Some(index) = screens.iter().position(|title| title.eq_ignore_ascii_case(verb)) {
        return Ok(Parsed::Screen(index));
    }
    match (verb.as_str(), words.get(1)) {
        ("q" | "quit", _) => return Ok(Parsed::Quit),
        ("detach", _) => return Ok(Parsed::Detach),
        ("stop" | "down", None) => return Ok(Parsed::Stop),
        ("freeze", _) => return Ok(Parsed::Freeze),
        ("help", _) => return Ok(Parsed::Help),
        ("theme", Some(name)) => return Ok(Parsed::Theme(name.clone())),
        ("theme", None) => return Err(format!("theme needs a name: {}", theme::NAMES.join(", "))),
        ("export", Some(path)) => return Ok(Parsed::Export(path.clone())),
        ("export", None) => return Err("export needs a file: view.svg, view.csv or view.json".into()),
        ("play", None) => return Ok(Parsed::Replay(Order::Play)),
        ("pause", None) => return Ok(Parsed::Replay(Order::Pause)),
        ("speed", _) => {
            return replay::speed(&words[1..].join(" ")).map(|speed| Parsed::Replay(Order::Speed(speed)));
        }
        ("seek", _) => {
            return replay::target(&words[1..].join(" ")).map(|to| Parsed::Replay(Order::Seek(to)));
        }
        _ => {}
    }
    if !VERBS.contains(&verb.as_str()) {
        let known = VERBS.iter().chain(&OWN).chain(&REPLAY).copied();
        let near = dtwn_model::suggest(verb, known);
        let hint =
            near.map_or("; Tab shows what there is".into(), |near| format!("; did you mean `{near}`?"));
        return Err(format!("there is no command `{verb}`{hint}"));
    }
    let cli = Cli::try_parse_from(std::iter::once("dtwn".to_owned()).chain(words)).map_err(|error| {
        let text = error.to_string();
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it cannot be read");
        line.trim_start_matches("error: ").trim_end_matches(':').to_owned()
    })?;
    let requests = requests(cli.command)?;
    Ok(Parsed::Order(requests.into_iter().map(RequestLine).collect()))
}

fn requests(command: Command) -> Result<Vec<Request>, String> {
    let node = |node: String, action| vec![Request::Node { node, action }];
    Ok(match command {
        Command::Link(LinkCommand::Set(args)) => {
            let change = steer::change_of(&args).map_err(|error| error.to_string())?;
            both_ways(&args.ends, &change)
        }
        Command::Link(LinkCommand::Down(ends)) => {
            both_ways(&ends, &LinkChange { up: Some(false), ..LinkChange::default() })
        }
        Command::Link(LinkCommand::Up(ends)) => {
            both_ways(&ends, &LinkChange { up: Some(true), ..LinkChange::default() })
        }
        Command::Link(LinkCommand::Reset(ends)) => {
            both_ways(&ends, &LinkChange { reset: true, ..LinkChange::default() })
        }
        Command::Partition(args) => {
            let groups = steer::groups_of(&args.groups.join(" "));
            if groups.len() < 2 || groups.iter().any(Vec::is_empty) {
                return Err("name two groups of nodes: partition bs1,bs2 : bs3,bs4".into());
            }
            vec![Request::Partition { groups, one_way: args.one_way }]
        }
        Command::Heal(_) => vec![Request::Heal],
        Command::Poison(args) => vec![args.request()],
        Command::Kill(args) => node(args.node, NodeAction::Kill),
        Command::Pause(args) => node(args.node, NodeAction::Pause),
        Command::Resume(args) => node(args.node, NodeAction::Resume),
        Command::Restart(args) => node(args.node, NodeAction::Restart),
        _ => return Err("that command is for the shell; this one takes link, partition, heal, kill …".into()),
    })
}

fn both_ways(ends: &LinkEndArgs, change: &LinkChange) -> Vec<Request> {
    let one = |from: &str, to: &str| Request::SetLink {
        from: from.to_owned(),
        to: to.to_owned(),
        change: change.clone(),
    };
    let mut requests = vec![one(&ends.from, &ends.to)];
    if ends.both {
        requests.push(one(&ends.to, &ends.from));
    }
    requests
}

/// Splits a line into words; quotes keep spaces.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

/// Words that the one before the cursor may become.
pub fn completions(before: &str, screens: &[&str], data: &Data, replay: bool) -> Vec<String> {
    let start = before.rfind(|c: char| c.is_whitespace() || matches!(c, ',' | ':')).map_or(0, |at| at + 1);
    let (done, begun) = before.split_at(start);
    let done: Vec<&str> = done.split(|c: char| c.is_whitespace()).filter(|word| !word.is_empty()).collect();
    let mut candidates = match replay {
        true => replay_candidates(&done, screens),
        false => candidates(&done, begun, screens, data),
    };
    candidates.retain(|candidate| candidate.starts_with(begun) && candidate != begun);
    candidates
}

/// A recorded run takes no orders.
fn replay_candidates(done: &[&str], screens: &[&str]) -> Vec<String> {
    match done {
        ["theme"] => theme::NAMES.map(Into::into).into(),
        [] => {
            let own = OWN.iter().filter(|verb| !matches!(**verb, "detach" | "stop"));
            let titles = screens.iter().map(|title| title.to_lowercase());
            let mut all: Vec<_> = REPLAY.iter().chain(own).map(ToString::to_string).chain(titles).collect();
            all.sort();
            all
        }
        ["seek"] => ["start", "end", "round", "event"].map(Into::into).into(),
        _ => Vec::new(),
    }
}

fn candidates(done: &[&str], begun: &str, screens: &[&str], data: &Data) -> Vec<String> {
    let nodes = || data.run.nodes.keys().cloned().collect::<Vec<_>>();
    match done {
        [] => {
            let titles = screens.iter().map(|title| title.to_lowercase());
            let mut all: Vec<_> = VERBS.iter().chain(&OWN).map(ToString::to_string).chain(titles).collect();
            all.sort();
            all
        }
        ["theme"] => theme::NAMES.map(Into::into).into(),
        ["link"] => vec!["set".into(), "down".into(), "up".into(), "reset".into()],
        ["link", verb, rest @ ..] => {
            if begun.starts_with('-') {
                return flags(&["link", verb]);
            }
            // Behind a flag that takes a value, nothing can be guessed.
            if rest.last().is_some_and(|last| last.starts_with("--") && *last != "--both") {
                return Vec::new();
            }
            let ends: Vec<_> = rest.iter().take_while(|word| !word.starts_with('-')).copied().collect();
            match ends.as_slice() {
                [] => stations(data),
                [from] => neighbours(data, from),
                _ => flags(&["link", verb]),
            }
        }
        ["kill" | "pause" | "resume" | "restart"] => nodes(),
        ["poison"] => {
            let stations = data.run.nodes.values().filter(|node| node.info.role == "bs");
            stations.map(|node| node.info.name.clone()).collect()
        }
        ["poison", _] => {
            Poison::LIVE.into_iter().map(|kind| kind.name().to_owned()).chain(["none".into()]).collect()
        }
        ["partition", ..] if begun.starts_with('-') => flags(&["partition"]),
        ["partition", ..] => nodes(),
        _ => Vec::new(),
    }
}

fn stations(data: &Data) -> Vec<String> {
    let mut names: Vec<_> =
        data.run.links.values().flat_map(|link| [link.info.from.clone(), link.info.to.clone()]).collect();
    names.sort();
    names.dedup();
    names
}

/// Stations at the other end of a link from `from`, then all others: any pair may be given impairments.
fn neighbours(data: &Data, from: &str) -> Vec<String> {
    let links = data.run.links.values().filter(|link| link.info.from == from);
    let mut names: Vec<_> = links.map(|link| link.info.to.clone()).collect();
    for name in stations(data) {
        if name != from && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The long flags of a verb, from the program's own parser.
fn flags(path: &[&str]) -> Vec<String> {
    let mut command = Cli::command();
    for name in path {
        match command.find_subcommand(name) {
            Some(found) => command = found.clone(),
            None => return Vec::new(),
        }
    }
    let not_here = ["session", "help", "version"];
    let longs = command.get_arguments().filter_map(clap::Arg::get_long);
    longs.filter(|long| !not_here.contains(long)).map(|long| format!("--{long}")).collect()
}

/// The longest text that all candidates begin with.
pub fn common_prefix(candidates: &[String]) -> String {
    let Some(first) = candidates.first() else { return String::new() };
    let mut prefix = first.clone();
    for candidate in candidates {
        while !candidate.starts_with(&prefix) {
            prefix.pop();
        }
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::fixture;

    const SCREENS: [&str; 2] = ["Overview", "Links"];

    #[test]
    fn lines_of_the_shell_work_here() {
        let change = LinkChange { loss: Some(0.05), rate_bps: Some(10e6), ..LinkChange::default() };
        let order = |from: &str, to: &str| {
            RequestLine(Request::SetLink { from: from.into(), to: to.into(), change: change.clone() })
        };
        assert_eq!(
            parse("link set bs1 mbs --loss 5% --rate '10 Mbit/s' --both", &SCREENS),
            Ok(Parsed::Order(vec![order("bs1", "mbs"), order("mbs", "bs1")]))
        );
        assert_eq!(parse("links", &SCREENS), Ok(Parsed::Screen(1)));
        assert_eq!(parse("  ", &SCREENS), Ok(Parsed::Nothing));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (line, part) in [
            ("kil bs1", "did you mean `kill`?"),
            ("partition bs1", "two groups"),
            ("link set bs1 mbs --loss much", "probability"),
            ("link set bs1", "required"),
            ("kill 'bs1", "not closed"),
            ("export", "needs a file"),
        ] {
            let error = parse(line, &SCREENS).unwrap_err();
            assert!(error.contains(part) && !error.contains('\n'), "{line}: {error}");
        }
    }

    #[test]
    fn completion_knows_verbs_stations_and_flags() {
        let data = fixture::data();
        let complete = |before| completions(before, &SCREENS, &data, false);
        assert_eq!(complete("ki"), ["kill"]);
        assert_eq!(complete("kill bs"), ["bs1", "bs2", "bs3", "bs4"]);
        assert_eq!(complete("link s"), ["set"]);
        assert_eq!(complete("link set bs1 ")[0], "mbs");
        assert!(complete("link set bs1 mbs --l").contains(&"--loss".to_owned()));
        assert_eq!(complete("partition bs1,").first().map(String::as_str), Some("mbs"));
        assert_eq!(complete("partition bs1,bs2:u"), ["ug1", "ug2", "ug3", "ug4"]);
        assert!(complete("link set bs1 mbs --loss ").is_empty());
        assert_eq!(common_prefix(&complete("link set bs1 mbs --de")), "--delay");
    }
}
