//! A graph for Graphviz, with every station where it stands: `dot -Tsvg`.

use std::fmt::Write;

use dtwn_model::plan::{LinkKind, LinkPlan};

use super::Scene;

/// Points (1/72 inch) that the longer side of the picture takes.
const SIDE_PT: f64 = 720.0;
/// Users up to which their links carry labels; more would hide the picture, so the rest is told in tooltips only.
const LABELLED_USERS_MAX: usize = 20;

/// Draws the graph.
pub fn draw(scene: &Scene) -> String {
    let plan = scene.plan;
    let (width_m, height_m) = scene.span();
    let scale = SIDE_PT / width_m.max(height_m);
    let mut dot = format!("graph {} {{\n", quoted(&plan.topology().run.name));
    dot.push_str("  layout=neato;\n  inputscale=72;\n  splines=true;\n  node [fontname=\"sans-serif\", fontsize=11];\n");
    dot.push_str("  edge [fontname=\"sans-serif\", fontsize=8, color=gray50];\n");
    let mbs = plan.mbs_station();
    for station in &plan.stations {
        let shape = if station.id == mbs {
            "shape=box, style=filled, fillcolor=lightgray"
        } else if station.id.index() <= plan.bs_count() {
            "shape=triangle, style=filled, fillcolor=lightblue"
        } else {
            "shape=point, width=0.08"
        };
        let (x, y) = ((station.position.x - scene.low.x) * scale, (station.position.y - scene.low.y) * scale);
        // The "!" keeps neato from moving it.
        let name = quoted(&station.name);
        // A point has no room for its name inside.
        let beside = station.id.index() > plan.bs_count() && plan.user_count() <= LABELLED_USERS_MAX;
        let label = if beside { format!("xlabel={name}, ") } else { String::new() };
        line(&mut dot, &format!("{name} [{shape}, {label}tooltip={name}, pos=\"{x:.1},{y:.1}!\"];"));
    }
    for station in &plan.stations {
        if let Some(at) = station.attachment {
            let (up, down) = (&plan.links[at.up.index()], &plan.links[at.down.index()]);
            let text = format!("up {}\\ndown {}", words(up), words(down));
            let is_user = station.id.index() > plan.bs_count();
            let label = if is_user && plan.user_count() > LABELLED_USERS_MAX { "tooltip" } else { "label" };
            let (parent, child) = (&plan.stations[at.parent.index()].name, &station.name);
            line(&mut dot, &format!("{} -- {} [{label}=\"{text}\"];", quoted(parent), quoted(child)));
        }
    }
    for link in plan.links.iter().filter(|link| link.kind == LinkKind::Virtual) {
        let name = |id: dtwn_model::ids::StationId| quoted(&plan.stations[id.index()].name);
        let style = format!("dir=forward, style=dashed, label=\"{}\"", words(link));
        line(&mut dot, &format!("{} -- {} [{style}];", name(link.from), name(link.to)));
    }
    dot.push_str("}\n");
    dot
}

fn line(dot: &mut String, text: &str) {
    let _ = writeln!(dot, "  {text}");
}

/// Rate, delay and loss; holds nothing that a quoted string would have to escape.
fn words(link: &LinkPlan) -> String {
    let mut words = link.rate.map_or("any rate".into(), |rate| format!("{rate:.1}"));
    let _ = write!(words, ", {}", link.settings.delay);
    let loss = link.settings.loss.mean() * 100.0;
    if loss > 0.0 {
        let _ = write!(words, ", {loss:.2} % lost");
    }
    words
}

/// A Graphviz identifier: in a quoted string only the quote is special, and a backslash that would end up before one.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{plan, small},
        *,
    };

    #[test]
    fn the_small_network() {
        insta::assert_snapshot!(draw(&Scene::new(&small())));
    }

    #[test]
    fn many_users_get_tooltips_and_overrides_dashes() {
        let text = include_str!("../../../topologies/paper.toml").to_owned()
            + "\n[[link.override]]\nfrom = \"bs1\"\nto = \"bs2\"\nloss = \"5%\"\n";
        let dot = draw(&Scene::new(&plan(&text)));
        assert_eq!(dot.matches("[tooltip=\"up ").count(), 100, "{dot}");
        assert_eq!(dot.matches("[label=\"up ").count(), 5);
        assert!(dot.contains("\"bs1\" -- \"bs2\" [dir=forward, style=dashed"), "{dot}");
        assert!(dot.contains("5.00 % lost"));
    }

    #[test]
    fn quotes_cannot_end_a_name() {
        assert_eq!(quoted("a\"b\\"), r#""a\"b\\""#);
    }
}
