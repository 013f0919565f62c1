//! A picture like the paper's Fig. 4: coverage circles, stations, users and who serves them, a scale and a legend.

use std::fmt::Write;

use dtwn_model::{geometry::Position, ids::BsId};

use super::{ROOMY_BSS_MAX, Scene, scale_bar_m};

/// Pixels that the drawing itself takes at most in either direction.
const SIDE_PX: f64 = 760.0;
/// Pixels around it.
const MARGIN_PX: f64 = 30.0;
/// Pixels for the title above it, and for scale and legend below it.
const TITLE_PX: f64 = 34.0;
const LEGEND_PX: f64 = 64.0;
/// Pixels that title and legend need in width, however narrow the network.
const WIDTH_MIN_PX: f64 = 560.0;
/// Okabe and Ito's colours, which people with any colour vision can tell apart; the yellow is left out on white.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Draws the picture.
pub fn draw(scene: &Scene) -> String {
    let paper = Paper::new(scene);
    let plan = scene.plan;
    let (width, height) = (paper.width, paper.height);
    let name = escaped(&plan.topology().run.name);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n<title>{name}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN_PX}\" y=\"24\" font-size=\"16\">{name}: 1 MBS, {} BSs, {} users</text>\n",
        plan.bs_count(),
        plan.user_count()
    );
    coverage(&mut svg, scene, &paper);
    associations(&mut svg, scene, &paper);
    places(&mut svg, scene, &paper);
    scale(&mut svg, scene, &paper);
    legend(&mut svg, &paper);
    svg.push_str("</svg>\n");
    svg
}

/// Where things come to lie.
struct Paper {
    low: Position,
    high: Position,
    px_per_m: f64,
    width: f64,
    height: f64,
}

impl Paper {
    fn new(scene: &Scene) -> Self {
        let (width_m, height_m) = scene.span();
        let px_per_m = SIDE_PX / width_m.max(height_m);
        Self {
            low: scene.low,
            high: scene.high,
            px_per_m,
            width: (width_m * px_per_m + 2.0 * MARGIN_PX).max(WIDTH_MIN_PX),
            height: height_m * px_per_m + 2.0 * MARGIN_PX + TITLE_PX + LEGEND_PX,
        }
    }

    /// Pixels from the left and from the top; north is up.
    fn at(&self, position: Position) -> (f64, f64) {
        (
            MARGIN_PX + (position.x - self.low.x) * self.px_per_m,
            TITLE_PX + MARGIN_PX + (self.high.y - position.y) * self.px_per_m,
        )
    }

    /// The upper edge of the legend.
    fn legend_y(&self) -> f64 {
        self.height - LEGEND_PX
    }
}

fn colour(bs: BsId) -> &'static str {
    COLOURS[bs.index() % COLOURS.len()]
}

fn coverage(svg: &mut String, scene: &Scene, paper: &Paper) {
    // Many circles on top of each other must not add up to a wall.
    let (fill, edge) = if scene.plan.bs_count() <= ROOMY_BSS_MAX { (0.07, 1.0) } else { (0.01, 0.15) };
    for (id, station, radius_m) in scene.stations().filter(|(_, _, radius)| *radius > 0.0) {
        let ((x, y), radius, colour) = (paper.at(station.position), radius_m * paper.px_per_m, colour(id));
        add(
            svg,
            format_args!(
                "<circle class=\"coverage\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"{colour}\" \
                 fill-opacity=\"{fill}\" stroke=\"{colour}\" stroke-opacity=\"{edge}\" stroke-dasharray=\"5 4\"/>"
            ),
        );
    }
}

fn associations(svg: &mut String, scene: &Scene, paper: &Paper) {
    let (x2, y2) = paper.at(scene.mbs().position);
    for (_, station, _) in scene.stations() {
        let (x1, y1) = paper.at(station.position);
        add(
            svg,
            format_args!(
                "<line class=\"backhaul\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#999\"/>"
            ),
        );
    }
    for (user, bs) in scene.users() {
        let (x1, y1) = paper.at(user.position);
        let (x2, y2) = paper.at(scene.plan.stations[scene.plan.bs_station(bs).index()].position);
        add(
            svg,
            format_args!(
                "<line class=\"association\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
                 stroke=\"{}\" stroke-opacity=\"0.35\"/>",
                colour(bs)
            ),
        );
    }
}

fn places(svg: &mut String, scene: &Scene, paper: &Paper) {
    for (user, bs) in scene.users() {
        let (x, y) = paper.at(user.position);
        add(
            svg,
            format_args!(
                "<circle class=\"user\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{}\"><title>{}</title></circle>",
                colour(bs),
                escaped(&user.name)
            ),
        );
    }
    for (id, station, _) in scene.stations() {
        let (x, y) = paper.at(station.position);
        add(svg, format_args!("<path class=\"bs\" d=\"{}\" fill=\"{}\"/>", triangle(x, y), colour(id)));
        label(svg, scene, (x, y), &station.name);
    }
    let mbs = scene.mbs();
    let (x, y) = paper.at(mbs.position);
    add(svg, format_args!("<path class=\"mbs\" d=\"{}\" fill=\"#333\"/>", square(x, y)));
    label(svg, scene, (x, y), &mbs.name);
}

fn triangle(x: f64, y: f64) -> String {
    format!("M{x:.1} {:.1}l9 15h-18z", y - 9.0)
}

fn square(x: f64, y: f64) -> String {
    format!("M{:.1} {:.1}h16v16h-16z", x - 8.0, y - 8.0)
}

/// A name beside its mark, on a white edge so that it reads on lines and circles.
fn label(svg: &mut String, scene: &Scene, (x, y): (f64, f64), name: &str) {
    let (size, name) = (if scene.plan.bs_count() <= ROOMY_BSS_MAX { 12 } else { 8 }, escaped(name));
    let (x, y) = (x + 11.0, y + 4.0);
    // Twice, as not every viewer knows `paint-order`.
    for edge in [" stroke=\"white\" stroke-width=\"3\" stroke-linejoin=\"round\"", ""] {
        add(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\"{edge}>{name}</text>"));
    }
}

fn scale(svg: &mut String, scene: &Scene, paper: &Paper) {
    let length_m = scale_bar_m(scene.span().0 / 4.0);
    let (x, y, length) = (MARGIN_PX, paper.legend_y() + 6.0, length_m * paper.px_per_m);
    add(
        svg,
        format_args!(
            "<path class=\"scale\" d=\"M{x} {:.1}v8m0 -4h{length:.1}m0 -4v8\" stroke=\"black\"/>",
            y - 4.0
        ),
    );
    add(svg, format_args!("<text x=\"{:.1}\" y=\"{:.1}\">{length_m} m</text>", x + length + 8.0, y + 4.0));
}

fn legend(svg: &mut String, paper: &Paper) {
    let y = paper.legend_y() + 38.0;
    let grey = COLOURS[0];
    let entries = [
        ("MBS", format!("<path d=\"{}\" fill=\"#333\"/>", square(9.0, 0.0))),
        ("BS", format!("<path d=\"{}\" fill=\"{grey}\"/>", triangle(9.0, 0.0))),
        ("user", format!("<circle cx=\"9\" cy=\"0\" r=\"3.5\" fill=\"{grey}\"/>")),
        (
            "coverage",
            format!(
                "<circle cx=\"9\" cy=\"0\" r=\"9\" fill=\"{grey}\" fill-opacity=\"0.07\" stroke=\"{grey}\" \
                 stroke-dasharray=\"5 4\"/>"
            ),
        ),
        (
            "served by",
            format!("<line x1=\"0\" y1=\"0\" x2=\"18\" y2=\"0\" stroke=\"{grey}\" stroke-opacity=\"0.35\"/>"),
        ),
    ];
    for (index, (text, symbol)) in entries.into_iter().enumerate() {
        let x = MARGIN_PX + index as f64 * 100.0;
        add(
            svg,
            format_args!(
                "<g class=\"legend\" transform=\"translate({x:.0} {y:.1})\">{symbol}<text x=\"24\" y=\"4\">{text}</text></g>"
            ),
        );
    }
}

fn add(svg: &mut String, element: std::fmt::Arguments) {
    let _ = writeln!(svg, "{element}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{plan, small},
        *,
    };

    fn count(document: &roxmltree::Document, class: &str) -> usize {
        document.descendants().filter(|node| node.attribute("class") == Some(class)).count()
    }

    #[test]
    fn every_station_user_and_association_is_an_element() {
        let plan = small();
        let svg = draw(&Scene::new(&plan));
        let document = roxmltree::Document::parse(&svg).unwrap();
        for (class, expected) in [
            ("mbs", 1),
            ("bs", 4),
            ("coverage", 4),
            ("backhaul", 4),
            ("user", 8),
            ("association", 8),
            ("scale", 1),
            ("legend", 5),
        ] {
            assert_eq!(count(&document, class), expected, "{class}");
        }
        let texts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("text")).collect();
        for name in ["bs4", "mbs", "100 m"] {
            assert!(texts.iter().any(|text| text.text() == Some(name)), "{name}");
        }
        assert_eq!(svg, draw(&Scene::new(&plan)));
    }

    #[test]
    fn distances_are_true_to_scale_and_north_is_up() {
        let plan = small();
        let scene = Scene::new(&plan);
        let paper = Paper::new(&scene);
        let (mbs, north) = (paper.at(Position { x: 0.0, y: 0.0 }), paper.at(Position { x: 0.0, y: 180.0 }));
        // 560 m take 760 px.
        assert!((mbs.1 - north.1 - 180.0 * 760.0 / 560.0).abs() < 1e-9 && mbs.0 == north.0);
        let svg = draw(&scene);
        let document = roxmltree::Document::parse(&svg).unwrap();
        let (width, height) = (paper.width, paper.height);
        for node in document.descendants().filter(|node| node.attribute("class") == Some("coverage")) {
            let number = |name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
            let (x, y, radius) = (number("cx"), number("cy"), number("r"));
            assert!(x - radius >= 0.0 && x + radius <= width && y - radius >= 0.0 && y + radius <= height);
        }
    }

    #[test]
    fn shipped_and_narrow_networks_are_xml() {
        for text in [
            include_str!("../../../topologies/paper.toml"),
            include_str!("../../../topologies/scale-100.toml"),
            "[[bs]]\nid = \"b\"\nposition_m = [0, 1e5]\ncoverage = \"0.1 m\"\n",
        ] {
            let plan = plan(text);
            let svg = draw(&Scene::new(&plan));
            let document = roxmltree::Document::parse(&svg).unwrap();
            assert_eq!(count(&document, "bs"), plan.bs_count());
        }
        assert_eq!(escaped("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
