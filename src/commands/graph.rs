//! `dtwn graph`: draws a topology.

mod dot;
mod map;
mod svg;

use std::{
    fs::File,
    io::{IsTerminal, Write},
};

use dtwn_model::{
    Plan,
    geometry::Position,
    ids::BsId,
    plan::{StationPlan, UserPlan},
    topology,
};

use super::up::overrides_of;
use crate::{
    cli::{GraphArgs, GraphFormat},
    error::{Error, Result},
    exit,
};

/// Size of a map where no terminal tells one: columns and rows.
const MAP_SIZE: (u16, u16) = (80, 40);

/// BSs up to which a picture has room for coverage circles and names at full size.
const ROOMY_BSS_MAX: usize = 30;

/// Draws a topology.
///
/// # Errors
/// When the topology is wrong or the output cannot be written.
pub fn run(args: &GraphArgs) -> Result<u8> {
    let loaded = topology::load(&args.topology, &overrides_of(&args.overrides))?;
    let plan = Plan::new(&loaded.topology)?;
    let text = match args.format {
        GraphFormat::Map => map::draw(&Scene::new(&plan), &map_style(args)),
        GraphFormat::Svg => svg::draw(&Scene::new(&plan)),
        GraphFormat::Dot => dot::draw(&Scene::new(&plan)),
    };
    match &args.output {
        Some(path) => File::create(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(Error::file("write", path))?,
        None => std::io::stdout().write_all(text.as_bytes()).map_err(Error::Output)?,
    }
    Ok(exit::OK)
}

fn map_style(args: &GraphArgs) -> map::Style {
    let terminal = args.output.is_none() && std::io::stdout().is_terminal();
    let size = terminal_size::terminal_size().filter(|_| terminal);
    map::Style {
        // The prompt that follows takes a row, and so does the line above it.
        size: size.map_or(MAP_SIZE, |(width, height)| (width.0, height.0.saturating_sub(2))),
        colour: terminal && std::env::var_os("NO_COLOR").is_none(),
        // What is not for a terminal must not depend on the locale: the same call writes the same file everywhere.
        unicode: !args.ascii && (!terminal || supports_unicode::on(supports_unicode::Stream::Stdout)),
    }
}

/// A plan as a picture shows it.
struct Scene<'a> {
    plan: &'a Plan,
    /// South-west corner of what must be seen, coverage included.
    low: Position,
    /// North-east corner.
    high: Position,
}

impl<'a> Scene<'a> {
    fn new(plan: &'a Plan) -> Self {
        let coverage = plan.topology().bs.iter().map(|bs| (bs.position_m, bs.coverage.get()));
        let points = plan.stations.iter().map(|station| (station.position, 0.0));
        let (mut low, mut high) = (
            Position { x: f64::INFINITY, y: f64::INFINITY },
            Position { x: f64::NEG_INFINITY, y: f64::NEG_INFINITY },
        );
        for (at, radius) in coverage.chain(points) {
            low = Position { x: low.x.min(at.x - radius), y: low.y.min(at.y - radius) };
            high = Position { x: high.x.max(at.x + radius), y: high.y.max(at.y + radius) };
        }
        // All stations in one spot without coverage still need a picture that is not a point.
        for (low, high) in [(&mut low.x, &mut high.x), (&mut low.y, &mut high.y)] {
            if *high - *low < 1.0 {
                (*low, *high) = (*low - 0.5, *high + 0.5);
            }
        }
        Self { plan, low, high }
    }

    /// Metres from west to east, and from south to north.
    fn span(&self) -> (f64, f64) {
        (self.high.x - self.low.x, self.high.y - self.low.y)
    }

    fn mbs(&self) -> &'a StationPlan {
        &self.plan.stations[self.plan.mbs_station().index()]
    }

    /// The BSs with the radius of their coverage, metres.
    fn stations(&self) -> impl Iterator<Item = (BsId, &'a StationPlan, f64)> + use<'a> {
        let plan = self.plan;
        plan.topology().bs.iter().enumerate().map(move |(index, bs)| {
            let id = BsId(index as u32);
            (id, &plan.stations[plan.bs_station(id).index()], bs.coverage.get())
        })
    }

    /// The users with the BS that serves each at first.
    fn users(&self) -> impl Iterator<Item = (&'a UserPlan, BsId)> + use<'a> {
        let plan = self.plan;
        plan.users().filter_map(move |user| Some((user, plan.association.serving(user.id)?)))
    }
}

/// The longest of 1, 2, 5, 10, … metres that is not longer than `most`.
fn scale_bar_m(most: f64) -> f64 {
    let power = 10f64.powf(most.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|step| step * power).find(|length| *length <= most).unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn plan(text: &str) -> Plan {
        let loaded = topology::parse("t.toml", text.into(), &topology::Overrides::default());
        Plan::new(&loaded.unwrap().topology).unwrap()
    }

    pub(super) fn small() -> Plan {
        plan(include_str!("../../topologies/small.toml"))
    }

    #[test]
    fn scale_bars_are_round_and_fit() {
        for (most, expected) in [(1.0, 1.0), (1.9, 1.0), (99.0, 50.0), (100.0, 100.0), (0.3, 0.2)] {
            assert!((scale_bar_m(most) - expected).abs() < 1e-9, "{most}: {}", scale_bar_m(most));
        }
    }

    #[test]
    fn a_scene_holds_coverage_and_users() {
        let plan = small();
        let scene = Scene::new(&plan);
        // BSs 180 m from the MBS cover 100 m.
        assert_eq!((scene.low.x, scene.high.y), (-280.0, 280.0));
        assert_eq!(scene.users().count(), 8);
        let lone = self::plan("[[bs]]\nid = \"b\"\nposition_m = [0, 0.01]\ncoverage = \"0.1 m\"\n");
        assert!(Scene::new(&lone).span().0 >= 1.0);
    }
}
