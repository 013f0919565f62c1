//! Checks of `[mbs]`, `[[bs]]` and `[[users]]`.

use super::checks::Checks;
use crate::geometry::Position;
use crate::suggest::suggest;
use crate::topology::{BS_MAX, Bs, GROUPS_MAX, Samples, Topology, USERS_MAX, UserGroup};
use std::collections::HashMap;

/// Coordinates beyond this are a slip: 10,000 km.
const COORDINATE_MAX: f64 = 1e7;
/// Room for the user's number behind it in a host name, which has at most 63 letters.
const ID_LENGTH_MAX: usize = 32;
/// Names that mean something else: the serving BS in the name of an access link, the machine itself.
const RESERVED_IDS: [&str; 2] = ["bs", "localhost"];

pub(super) fn stations(topology: &Topology, checks: &mut Checks) {
    ids(topology, checks);
    position("mbs.position_m", topology.mbs.position_m, "mbs", checks);
    counts(topology, checks);
    for (i, bs) in topology.bs.iter().enumerate() {
        let path = format!("bs[{i}]");
        position(&format!("{path}.position_m"), bs.position_m, &bs.id, checks);
        checks.above_zero(&format!("{path}.cpu_hz"), bs.cpu_hz.get());
        checks.above_zero(&format!("{path}.coverage"), bs.coverage.get());
    }
    for (i, group) in topology.users.iter().enumerate() {
        let path = format!("users[{i}]");
        placement(&path, group, &topology.bs, checks);
        samples(&path, group, checks);
    }
}

fn ids(topology: &Topology, checks: &mut Checks) {
    let bs = topology.bs.iter().enumerate().map(|(i, bs)| (format!("bs[{i}]"), &bs.id));
    let groups = topology.users.iter().enumerate().map(|(i, group)| (format!("users[{i}]"), &group.id));
    let mut first: HashMap<&str, String> = HashMap::new();
    for (path, id) in std::iter::once(("mbs".to_owned(), &topology.mbs.id)).chain(bs).chain(groups) {
        let at = format!("{path}.id");
        if id.is_empty() {
            checks.fail(at, format!("`{path}` needs an `id`"), "give it a name, like id = \"bs1\"");
            continue;
        }
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fine = id.len() <= ID_LENGTH_MAX
            && id.chars().all(letters)
            && id.starts_with(|c: char| c.is_ascii_lowercase())
            && !id.ends_with('-')
            && !RESERVED_IDS.contains(&id.as_str());
        checks.ensure(
            fine,
            &at,
            || format!("`{id}` cannot be the name of a node"),
            format!(
                "at most {ID_LENGTH_MAX} lower-case letters, digits and `-`, beginning with a letter, as in a host name; \
                 not `bs` or `localhost`"
            ),
        );
        if let Some(other) = first.insert(id, path) {
            checks.fail(at, format!("`{id}` is the name of two nodes"), format!("`{other}` has it already"));
        }
    }
}

fn counts(topology: &Topology, checks: &mut Checks) {
    let help = |what: &str, max: usize| format!("at most {max} {what}: their addresses end there");
    if topology.bs.is_empty() {
        checks.fail("bs", "there is no BS".to_owned(), "add at least one [[bs]] with id and position_m");
    }
    if topology.bs.len() > BS_MAX {
        let message = format!("{} BSs are more than there are addresses for", topology.bs.len());
        checks.fail(format!("bs[{BS_MAX}]"), message, help("BSs", BS_MAX));
    }
    if topology.users.len() > GROUPS_MAX {
        let message = format!("{} user groups are more than there may be", topology.users.len());
        checks.fail(format!("users[{GROUPS_MAX}]"), message, format!("at most {GROUPS_MAX} user groups"));
    }
    let mut users = 0;
    for (i, group) in topology.users.iter().enumerate() {
        users += group.count as usize;
        if users > USERS_MAX {
            let message = format!("{users} users up to here are more than there are addresses for");
            return checks.fail(
                format!("users[{i}].count"),
                message,
                help("users over all groups", USERS_MAX),
            );
        }
    }
}

fn position(path: &str, position: Position, id: &str, checks: &mut Checks) {
    if position.x.is_nan() && position.y.is_nan() {
        let message = format!("`{id}` has no position");
        return checks.fail(path, message, "position_m = [east, north] in metres, like [0, 100]");
    }
    let fine =
        position.is_finite() && position.x.abs() <= COORDINATE_MAX && position.y.abs() <= COORDINATE_MAX;
    checks.ensure(
        fine,
        path,
        || format!("`{path}` = [{}, {}] is out of range", position.x, position.y),
        "two numbers of metres, each within 10,000 km of the origin",
    );
}

fn placement(path: &str, group: &UserGroup, all: &[Bs], checks: &mut Checks) {
    if group.count == 0 {
        return checks.fail(
            format!("{path}.count"),
            "a group without users has no address".to_owned(),
            "allowed: at least 1",
        );
    }
    let around = group.around.as_ref().map(|name| (name, all.iter().find(|bs| bs.id == *name)));
    match (around, group.positions_m.is_empty()) {
        (Some((name, None)), _) => {
            let near = suggest(name, all.iter().map(|bs| bs.id.as_str()));
            let help = near.map_or("name a BS".to_owned(), |near| format!("did you mean `{near}`?"));
            checks.fail(format!("{path}.around"), format!("there is no BS called `{name}`"), help);
        }
        (Some((_, Some(bs))), true) => ring(path, group, bs, checks),
        (None, true) => checks.fail(
            path,
            format!("nothing says where the users of `{}` are", group.id),
            "either around = \"bs1\" or positions_m = [[x, y], …]",
        ),
        (Some((_, Some(bs))), false) => explicit(path, group, &[bs], checks),
        (None, false) => explicit(path, group, &all.iter().collect::<Vec<_>>(), checks),
    }
}

/// Users drawn around a BS must find room between the two radii and stay in its coverage.
fn ring(path: &str, group: &UserGroup, bs: &Bs, checks: &mut Checks) {
    let outer = crate::plan::outer_radius(group, bs);
    checks.ensure(
        outer <= bs.coverage,
        format!("{path}.max_distance"),
        || format!("`{path}.max_distance` = {outer} reaches beyond the coverage of `{}`", bs.id),
        format!("allowed: at most {}", bs.coverage),
    );
    checks.ensure(
        group.min_distance <= outer,
        format!("{path}.min_distance"),
        || format!("`{path}.min_distance` = {} leaves no room within {outer}", group.min_distance),
        format!("allowed: at most {outer}"),
    );
}

/// Users with positions must number as many as the group, and each be in the coverage of a BS that may serve it.
fn explicit(path: &str, group: &UserGroup, serving: &[&Bs], checks: &mut Checks) {
    let (count, given) = (group.count as usize, group.positions_m.len());
    checks.ensure(
        count == given,
        format!("{path}.positions_m"),
        || format!("`{}` has {count} users but {given} positions", group.id),
        "one position a user",
    );
    for (n, at) in group.positions_m.iter().enumerate() {
        let path = format!("{path}.positions_m[{n}]");
        position(&path, *at, &format!("{}.{}", group.id, n + 1), checks);
        let nearest = serving
            .iter()
            .map(|bs| (bs.position_m.distance(*at), bs))
            .min_by(|a, b| a.0.get().total_cmp(&b.0.get()));
        if let Some((distance, bs)) = nearest.filter(|(distance, bs)| *distance > bs.coverage) {
            let message = format!("user {} is {:.0} m from `{}`", n + 1, distance.get(), bs.id);
            checks.fail(path, message, format!("its coverage is {}", bs.coverage));
        }
    }
}

fn samples(path: &str, group: &UserGroup, checks: &mut Checks) {
    let path = format!("{path}.samples");
    match &group.samples {
        Samples::Each(n) => {
            checks.ensure(
                *n > 0,
                path,
                || "a user without samples teaches nothing".to_owned(),
                "allowed: at least 1",
            );
        }
        Samples::List(list) => checks.ensure(
            list.len() == group.count as usize && !list.contains(&0),
            path,
            || {
                format!(
                    "`{}` has {} users but {} sample counts, or one of 0",
                    group.id,
                    group.count,
                    list.len()
                )
            },
            "one number of samples a user, each at least 1",
        ),
        Samples::Range(range) => checks.ensure(
            range.min > 0
                && range.min <= range.max
                && range.total.is_none_or(|total| u64::from(total) >= u64::from(group.count)),
            path,
            || format!("samples from {} to {} cannot be drawn", range.min, range.max),
            "min at least 1, max at least min, total at least one a user",
        ),
    }
}
