//! Verbs that change a running network: `link`, `partition`, `heal`, `kill`, `pause`, `resume`, `restart`.

use std::str::FromStr;

use dtwn_model::units::{BitsPerSecond, Bytes, Interval, Probability};
use dtwn_proto::control::{LinkChange, NodeAction, Request};

use crate::{
    cli::{LinkCommand, LinkEndArgs, LinkSetArgs, NodeArgs, PartitionArgs, PoisonArgs, SessionArgs},
    client::Client,
    error::{Error, Result},
    exit,
};

/// `dtwn link set|up|down|reset`.
///
/// # Errors
/// For values that cannot be read, and what the session refuses.
pub fn link(command: &LinkCommand) -> Result<u8> {
    match command {
        LinkCommand::Set(args) => change_link(&args.ends, &change_of(args)?),
        LinkCommand::Down(ends) => {
            change_link(ends, &LinkChange { up: Some(false), ..LinkChange::default() })
        }
        LinkCommand::Up(ends) => change_link(ends, &LinkChange { up: Some(true), ..LinkChange::default() }),
        LinkCommand::Reset(ends) => change_link(ends, &LinkChange { reset: true, ..LinkChange::default() }),
    }
}

fn change_link(ends: &LinkEndArgs, change: &LinkChange) -> Result<u8> {
    let mut client = Client::connect(ends.session.session.as_deref(), false)?;
    let mut ways = vec![(&ends.from, &ends.to)];
    if ends.both {
        ways.push((&ends.to, &ends.from));
    }
    for (from, to) in ways {
        client.order(&Request::SetLink { from: from.clone(), to: to.clone(), change: change.clone() })?;
    }
    Ok(exit::OK)
}

/// The changes that the flags of `link set` name.
///
/// # Errors
/// For a value that cannot be read.
pub(crate) fn change_of(args: &LinkSetArgs) -> Result<LinkChange> {
    let ms = |flag, text: &Option<String>| {
        Ok::<_, Error>(parse::<Interval>(flag, text)?.map(|time| time.seconds() * 1000.0))
    };
    let share =
        |flag, text: &Option<String>| Ok::<_, Error>(parse::<Probability>(flag, text)?.map(Probability::get));
    Ok(LinkChange {
        reset: false,
        delay_ms: ms("--delay", &args.delay)?,
        jitter_ms: ms("--jitter", &args.jitter)?,
        loss: share("--loss", &args.loss)?,
        rate_bps: parse::<BitsPerSecond>("--rate", &args.rate)?.map(BitsPerSecond::get),
        duplicate: share("--duplicate", &args.duplicate)?,
        corrupt: share("--corrupt", &args.corrupt)?,
        reorder: share("--reorder", &args.reorder)?,
        queue_bytes: parse::<Bytes>("--queue", &args.queue)?.map(Bytes::get),
        up: None,
    })
}

/// Reads a flag's value in the notation of topology files.
fn parse<T: FromStr<Err: std::fmt::Display>>(flag: &str, text: &Option<String>) -> Result<Option<T>> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|error| Error::Usage {
        what: format!("{flag} {text}: {error}"),
        help: "quantities are written as in topology files: 20ms, 5%, 10mbit, 64KiB".into(),
    })
}

/// `dtwn partition bs1,bs2 : bs3,bs4`.
///
/// # Errors
/// For fewer than two groups, and what the session refuses.
pub fn partition(args: &PartitionArgs) -> Result<u8> {
    let groups = groups_of(&args.groups.join(" "));
    if groups.len() < 2 || groups.iter().any(Vec::is_empty) {
        return Err(Error::Usage {
            what: format!("`{}` does not name two groups of nodes", args.groups.join(" ")),
            help: "separate nodes by commas and groups by colons: dtwn partition bs1,bs2 : bs3,bs4".into(),
        });
    }
    let mut client = Client::connect(args.session.session.as_deref(), false)?;
    client.order(&Request::Partition { groups, one_way: args.one_way })?;
    Ok(exit::OK)
}

/// Groups of nodes as `partition` takes them.
pub(crate) fn groups_of(text: &str) -> Vec<Vec<String>> {
    let names = |group: &str| {
        group
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    text.split(':').map(names).collect()
}

/// `dtwn heal`.
///
/// # Errors
/// When there is no such session.
pub fn heal(args: &SessionArgs) -> Result<u8> {
    Client::connect(args.session.as_deref(), false)?.order(&Request::Heal)?;
    Ok(exit::OK)
}

/// `dtwn kill|pause|resume|restart NODE`.
///
/// # Errors
/// What the session refuses.
pub fn node(args: &NodeArgs, action: NodeAction) -> Result<u8> {
    let mut client = Client::connect(args.session.session.as_deref(), false)?;
    client.order(&Request::Node { node: args.node.clone(), action })?;
    Ok(exit::OK)
}

/// `dtwn poison BS KIND`.
///
/// # Errors
/// What the session refuses.
pub fn poison(args: &PoisonArgs) -> Result<u8> {
    Client::connect(args.session.session.as_deref(), false)?.order(&args.request())?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_however_they_are_spaced() {
        let expected = vec![vec!["bs1".to_owned(), "bs2".to_owned()], vec!["bs3".to_owned()]];
        for text in ["bs1,bs2 : bs3", "bs1,bs2:bs3", "bs1, bs2 :bs3"] {
            assert_eq!(groups_of(text), expected, "{text}");
        }
        assert_eq!(groups_of("bs1 :")[1], Vec::<String>::new());
    }
}
