//! Checks of `[link.*]` and `[[link.override]]`.

use super::checks::Checks;
use crate::suggest::suggest;
use crate::topology::{Arq, LinkOverride, LinkSettings, OrNone, QueueLimit, RateSource, Topology};
use crate::units::{BitsPerSecond, Bytes, Interval};

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
    for (i, exception) in link.overrides.iter().enumerate() {
        let path = format!("link.override[{i}]");
        end(&path, "from", &exception.from, topology, checks);
        end(&path, "to", &exception.to, topology, checks);
        checks.ensure(
            exception.from != exception.to || exception.from.is_empty(),
            format!("{path}.to"),
            || format!("a link from `{0}` to `{0}` itself never carries anything", exception.to),
            "name another station",
        );
        partial(&path, exception, checks);
    }
}

/// A link's end must name a node or a user.
fn end(path: &str, key: &str, name: &str, topology: &Topology, checks: &mut Checks) {
    let nodes = || {
        let groups = topology.users.iter().map(|group| &group.id);
        topology.bs.iter().map(|bs| &bs.id).chain(groups).chain([&topology.mbs.id]).map(String::as_str)
    };
    let group = name
        .split_once('.')
        .and_then(|(group, number)| Some((topology.users.iter().find(|users| users.id == group)?, number)));
    // A user's number as it is printed: no sign, no leading zero.
    let is_user = group.is_some_and(|(group, number)| {
        number.parse::<u32>().is_ok_and(|n| (1..=group.count).contains(&n) && n.to_string() == number)
    });
    if is_user || nodes().any(|node| node == name) {
        return;
    }
    let message = if name.is_empty() {
        format!("`{path}` needs `{key}`")
    } else {
        format!("there is nobody called `{name}` for this link")
    };
    let help = match (group, suggest(name, nodes())) {
        (Some((group, _)), _) => format!("the users of `{0}` are {0}.1 to {0}.{1}", group.id, group.count),
        (None, Some(near)) => format!("did you mean `{near}`?"),
        (None, None) => "name the MBS, a BS, a user group or a user, like bs1 or ug1.3".to_owned(),
    };
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
