//! Checks of `[link.*]` and `[[link.override]]`.

use super::checks::Checks;
use crate::suggest::suggest;
use crate::topology::{Arq, LinkOverride, LinkSettings, OrNone, QueueLimit, RateSource, Topology};
use crate::units::{BitsPerSecond, Bytes, Interval};
use std::collections::HashSet;

/// The medium's limits: a longer delay or a higher rate is a slip of the unit.
const TIME_MAX: Interval = Interval::from_millis(3_600_000);
const RATE_MAX: BitsPerSecond = BitsPerSecond::new(1e12);
/// RFC 791's smallest datagram that every host takes, and what jumbo frames carry.
const MTU: std::ops::RangeInclusive<u64> = 576..=9000;

pub(super) fn links(topology: &Topology, checks: &mut Checks) {
    let link = &topology.link;
    for (class, settings) in
        [("access", &link.access), ("uplink", &link.uplink), ("downlink", &link.downlink)]
    {
        whole(&format!("link.{class}"), settings, checks);
    }
    let names = names(topology);
    for (i, exception) in link.overrides.iter().enumerate() {
        let path = format!("link.override[{i}]");
        end(&path, "from", &exception.from, &names, checks);
        end(&path, "to", &exception.to, &names, checks);
        checks.ensure(
            exception.from != exception.to || exception.from.is_empty(),
            format!("{path}.to"),
            || format!("a link from `{0}` to `{0}` itself never carries anything", exception.to),
            "name another station",
        );
        partial(&path, exception, checks);
    }
}

/// All that a link's end may be called: stations and groups.
fn names(topology: &Topology) -> HashSet<String> {
    let users = topology.users.iter().flat_map(|group| {
        // Beyond the limit the file is refused anyway.
        let count = group.count.min(crate::topology::USERS_MAX as u32);
        (1..=count).map(|n| format!("{}.{n}", group.id))
    });
    let nodes = topology.bs.iter().map(|bs| &bs.id).chain(topology.users.iter().map(|group| &group.id));
    users.chain(nodes.cloned()).chain([topology.mbs.id.clone()]).collect()
}

fn end(path: &str, key: &str, name: &str, names: &HashSet<String>, checks: &mut Checks) {
    if names.contains(name) {
        return;
    }
    let message = if name.is_empty() {
        format!("`{path}` needs `{key}`")
    } else {
        format!("there is nobody called `{name}` for this link")
    };
    let mut known: Vec<&str> = names.iter().map(String::as_str).collect();
    known.sort_unstable();
    let help = suggest(name, known).map_or_else(
        || "name the MBS, a BS, a user group or a user, like bs1 or ug1.3".to_owned(),
        |near| format!("did you mean `{near}`?"),
    );
    checks.fail(format!("{path}.{key}"), message, help);
}

fn whole(path: &str, settings: &LinkSettings, checks: &mut Checks) {
    rate(path, settings.rate, checks);
    time(&format!("{path}.delay"), settings.delay, checks);
    time(&format!("{path}.jitter"), settings.jitter, checks);
    arq(path, &settings.arq, checks);
    queue(path, settings.queue, checks);
    mtu(path, settings.mtu, checks);
}

fn partial(path: &str, exception: &LinkOverride, checks: &mut Checks) {
    if let Some(value) = exception.rate {
        rate(path, value, checks);
    }
    for (key, value) in [("delay", exception.delay), ("jitter", exception.jitter)] {
        if let Some(value) = value {
            time(&format!("{path}.{key}"), value, checks);
        }
    }
    if let Some(value) = &exception.arq {
        arq(path, value, checks);
    }
    if let Some(value) = exception.queue {
        queue(path, value, checks);
    }
    if let Some(value) = exception.mtu {
        mtu(path, value, checks);
    }
}

fn rate(path: &str, rate: RateSource, checks: &mut Checks) {
    if let RateSource::Fixed(rate) = rate {
        checks.ensure(
            rate.get() > 0.0 && rate <= RATE_MAX,
            format!("{path}.rate"),
            || format!("`{path}.rate` = {rate} is out of range"),
            "allowed: above 0, at most 1 Tbit/s; `up = false` for a link that carries nothing",
        );
    }
}

fn time(path: &str, value: Interval, checks: &mut Checks) {
    checks.ensure(
        value <= TIME_MAX,
        path,
        || format!("`{path}` = {value} is out of range"),
        "allowed: at most 1 h",
    );
}

fn arq(path: &str, arq: &OrNone<Arq>, checks: &mut Checks) {
    if let OrNone::Some(arq) = arq {
        checks.ensure(
            arq.attempts_max > 0,
            format!("{path}.arq.attempts_max"),
            || format!("`{path}.arq.attempts_max` = 0 never sends anything"),
            "allowed: 1 to 255, the first transmission included",
        );
        time(&format!("{path}.arq.turnaround"), arq.turnaround, checks);
    }
}

fn queue(path: &str, queue: QueueLimit, checks: &mut Checks) {
    checks.ensure(
        queue != QueueLimit::Bytes(Bytes::new(0)),
        format!("{path}.queue"),
        || format!("`{path}.queue` = 0 B lets nothing pass"),
        "allowed: \"auto\" or at least 1 B",
    );
}

fn mtu(path: &str, mtu: Bytes, checks: &mut Checks) {
    checks.ensure(
        MTU.contains(&mtu.get()),
        format!("{path}.mtu"),
        || format!("`{path}.mtu` = {mtu} is out of range"),
        "allowed: 576 B to 9000 B",
    );
}
