//! Files read, merged and refused.

mod hostile;

use super::*;
use crate::units::{Hertz, Interval, Metres, Probability};
use miette::Diagnostic;

const SMALL: &str = r#"
[run]
name = "t"
seed = 7

[[bs]]
id = "bs1"
position_m = [200, 0]
cpu_hz = "2.6 GHz"

[[bs]]
id = "bs2"
position_m = [0, 200]
cpu_hz = 1.8e9

[[users]]
id = "ug1"
count = 3
around = "bs1"
"#;

fn read(text: &str) -> Result<Topology, TopologyError> {
    parse("t.toml", text.to_owned(), &Overrides::default()).map(|loaded| loaded.topology)
}

fn small_and(more: &str) -> String {
    format!("{SMALL}\n{more}")
}

fn variables(pairs: &[(&str, &str)]) -> Overrides {
    Overrides::from_variables(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
}

/// The text that a problem points at, its message and its help.
fn pointed(problem: &Problem) -> (String, String, String) {
    let text = problem.source.inner();
    let start = problem.span.offset();
    let spot = text[start..start + problem.span.len()].to_owned();
    (spot, problem.message.clone(), problem.help.clone().unwrap_or_default())
}

/// Expects exactly one problem.
fn one(text: &str) -> (String, String, String) {
    let error = read(text).unwrap_err();
    assert_eq!(error.problems().len(), 1, "{:#?}", error.problems());
    pointed(&error.problems()[0])
}

#[test]
fn fills_in_defaults() {
    let topology = read(SMALL).unwrap();
    assert_eq!(topology.bs[0].cpu_hz, Hertz::new(2.6e9));
    assert_eq!(topology.bs[1].cpu_hz, Hertz::new(1.8e9));
    assert_eq!(topology.bs[0].coverage, Metres::new(150.0));
    assert_eq!(topology.radio, Radio::default());
    assert_eq!(topology.run.seed, 7);
    assert_eq!((topology.node_count(), topology.user_count()), (4, 3));
}

#[test]
fn a_partial_section_keeps_the_defaults_of_its_class() {
    let topology = read(&small_and("[link.uplink]\nloss = \"5%\"")).unwrap();
    assert_eq!(topology.link.uplink.loss, Loss::Uniform(Probability::new(0.05).unwrap()));
    assert_eq!(topology.link.uplink.delay, LinkClasses::default().uplink.delay);
    assert_ne!(LinkClasses::default().uplink.delay, LinkSettings::default().delay);
}

#[test]
fn reads_every_form_of_value() {
    let topology = read(&small_and(
        r#"
        [radio]
        se_max = "none"
        fading = "rayleigh"
        interference = { downlink = "-85 dBm" }
        [link.access]
        loss = { good_to_bad = "1%", bad_to_good = 0.25 }
        arq = { attempts_max = 3 }
        queue = "64 KiB"
        discipline = "fifo"
        [[link.override]]
        from = "bs1"
        to = "bs2"
        rate = "10mbit"
        up = false
        [tcp]
        congctl = "reno"
        "#,
    ))
    .unwrap();
    assert_eq!(topology.radio.se_max, OrNone::None);
    assert_eq!(topology.radio.interference.uplink, OrNone::None);
    assert!(matches!(topology.link.access.loss, Loss::GilbertElliott(ge) if ge.bad_to_good.get() == 0.25));
    let arq = topology.link.access.arq.get().unwrap();
    assert_eq!((arq.attempts_max, arq.turnaround), (3, Interval::from_millis(8)));
    assert_eq!(topology.link.overrides[0].up, Some(false));
    assert!(matches!(&topology.tcp, Tcp::Tuned(tuning) if tuning.congctl == "reno" && tuning.quickack));
    let kernel = read(&format!("tcp = \"kernel\"\n{SMALL}")).unwrap();
    assert_eq!(kernel.tcp, Tcp::Kernel);
}

#[test]
fn layers_lie_in_their_order() {
    let seed = |overrides: &Overrides| parse("t", SMALL.to_owned(), overrides).unwrap().topology.run.seed;
    let mut overrides = Overrides::default();
    assert_eq!(seed(&overrides), 7);
    overrides = variables(&[("DTWN_RUN__SEED", "8"), ("DTWN_LOG", "debug"), ("HOME", "/root")]);
    assert_eq!(seed(&overrides), 8);
    overrides.set("run.seed=9");
    assert_eq!(seed(&overrides), 9);
    overrides.flag("--seed 10", "run.seed", "10");
    assert_eq!(seed(&overrides), 10);
    // Flags win however they were given.
    overrides.set("run.seed=11");
    assert_eq!(seed(&overrides), 10);
}

#[test]
fn overrides_reach_everywhere() {
    let mut overrides = variables(&[("DTWN_BS__BS2__CPU_HZ", "3 GHz"), ("DTWN_TCP", "kernel")]);
    overrides.set("bs.0.position_m=[1, 2]");
    overrides.set("link.access.loss=5%");
    overrides.set("link.uplink.loss.good_to_bad=0.1");
    overrides.set("run.name = x");
    // A number in TOML, but a name here.
    overrides.set("learning.poison.bs2=nan");
    let topology = parse("t", SMALL.to_owned(), &overrides).unwrap().topology;
    assert_eq!(topology.bs[1].cpu_hz, Hertz::new(3e9));
    assert_eq!(topology.tcp, Tcp::Kernel);
    assert_eq!(topology.bs[0].position_m, crate::geometry::Position { x: 1.0, y: 2.0 });
    assert_eq!(topology.link.access.loss.mean(), 0.05);
    assert!(matches!(topology.link.uplink.loss, Loss::GilbertElliott(ge) if ge.good_to_bad.get() == 0.1));
    assert_eq!(topology.run.name, "x");
    assert_eq!(topology.learning.poison["bs2"], Poison::Nan);
}

#[test]
fn a_rendered_topology_loads_to_itself() {
    let text = small_and(
        "[[bs]]\nid = \"r\"\ncount = 3\nring = \"333.3 m\"\n[radio]\nse_max = \"none\"\n[link.access]\nloss = {}\n\
         arq = {}\n[[link.override]]\nfrom = \"ug1\"\nto = \"bs2\"\nrate = \"1 Mbit/s\"\n\
         [[users]]\nid = \"ug2\"\npositions_m = [[0.1, 200.7]]\nsamples = [3]\n\
         [[users]]\nid = \"ug3\"\naround = \"r2\"\nsamples = { min = 1, max = 9 }\n",
    );
    for head in ["", "tcp = \"kernel\"\n"] {
        let first = parse("a.toml", format!("{head}{text}"), &Overrides::default()).unwrap();
        let again = parse("b.toml", first.rendered.clone(), &Overrides::default()).unwrap();
        assert_eq!(first.topology, again.topology);
        assert_eq!((first.rendered, &first.hash), (again.rendered, &again.hash));
        assert_eq!(first.hash.len(), 64);
        let mut other = Overrides::default();
        other.set("run.seed=8");
        assert_ne!(parse("c.toml", format!("{head}{text}"), &other).unwrap().hash, first.hash);
    }
}

#[test]
fn one_entry_may_stand_for_many_bs() {
    let topology = read("[[bs]]\nid = \"bs\"\ncount = 100\nring = \"250 m\"\ncpu_hz = \"2 GHz\"").unwrap();
    assert_eq!(topology.bs.len(), 100);
    assert_eq!((topology.bs[0].id.as_str(), topology.bs[99].id.as_str()), ("bs1", "bs100"));
    assert!(
        topology
            .bs
            .iter()
            .all(|bs| (bs.position_m.distance(topology.mbs.position_m).get() - 250.0).abs() < 1e-9)
    );
    // A problem with one of the many points at the entry.
    let (spot, message, _) =
        one("[[bs]]\nid = \"a\"\nposition_m = [1, 1]\n[[bs]]\nid = \"b\"\ncount = 2\ncpu_hz = -1");
    assert_eq!(spot, "-1");
    assert!(message.contains("cpu_hz"), "{message}");
    assert!(one("[[bs]]\nid = \"b\"\ncount = 300").1.contains("at most 254"));
    assert!(one("[[bs]]\nid = \"b\"\ncount = 4000000000").1.contains("at most 254"));
    assert!(one("[[bs]]\nid = \"b\"\nring = \"3 m\"").1.contains("count"));
    assert!(one("[[bs]]\nid = \"b\"\ncount = 2\nring = \"3 m\"\ngrid = \"3 m\"").1.contains("not both"));
    assert_eq!(one("[[bs]]\nid = \"b\"\ncount = \"two\"").0, "\"two\"");
}

#[test]
fn unknown_keys_are_refused_at_any_depth() {
    let (spot, message, help) = one(&small_and("[radio]\nbandwith = \"30 MHz\""));
    assert_eq!((spot.as_str(), message.as_str()), ("bandwith", "`radio` has no key `bandwith`"));
    assert!(help.starts_with("did you mean `bandwidth`? known: subchannels, "), "{help}");
    assert_eq!(one(&small_and("[radio.power]\nmbss = \"1 dBm\"")).0, "mbss");
    assert_eq!(one(&small_and("[link.access]\nloss = { bad_to_god = 1 }")).0, "bad_to_god");
    assert_eq!(one(&small_and("[tcp]\nquickak = true")).0, "quickak");
    assert_eq!(one(&small_and("[link.access.arq]\nretries = 3")).0, "retries");
    let (spot, message, help) = one(&small_and("[radoi]\nx = 1"));
    assert_eq!((spot.as_str(), message.as_str()), ("radoi", "a topology has no key `radoi`"));
    assert!(help.starts_with("did you mean `radio`?"), "{help}");
    let (spot, _, help) = one("[[bs]]\nid = \"a\"\nposition_m = [1, 2]\nrings = \"3 m\"");
    assert_eq!(spot, "rings");
    assert!(help.starts_with("did you mean `ring`?"), "{help}");
}

#[test]
fn numbers_out_of_range_are_refused_where_they_stand() {
    for (text, spot) in [
        ("[radio]\nsubchannels = 0", "0"),
        ("[radio]\nsubchannels = -3", "-3"),
        ("[radio]\nsubchannels = 2.5", "2.5"),
        ("[radio]\nbandwidth = \"-30 MHz\"", "\"-30 MHz\""),
        ("[radio]\nbandwidth = 30", "30"),
        ("[radio]\nbandwidth = \"nan Hz\"", "\"nan Hz\""),
        ("[radio]\npath_loss_exponent = nan", "nan"),
        ("[radio]\npath_loss_exponent = inf", "inf"),
        ("[radio]\nse_max = -inf", "-inf"),
        ("[radio]\nse_max = 0", "0"),
        ("[radio]\nfading_memory = 1.0", "1.0"),
        ("[radio]\ncoherence_time = \"0 s\"", "\"0 s\""),
        ("[link.access]\nloss = 1.5", "1.5"),
        ("[link.access]\nloss = \"101%\"", "\"101%\""),
        ("[link.access]\nloss = nan", "nan"),
        ("[link.access]\nloss = { loss_bad = -0.1 }", "-0.1"),
        ("[link.access]\nduplicate = 2", "2"),
        ("[link.access]\ndelay = \"-1 ms\"", "\"-1 ms\""),
        ("[link.access]\ndelay = \"2 h\"", "\"2 h\""),
        ("[link.access]\nmtu = \"100 B\"", "\"100 B\""),
        ("[link.access]\nrate = \"0 Mbit/s\"", "\"0 Mbit/s\""),
        ("[link.access]\nqueue = \"0 B\"", "\"0 B\""),
        ("[link.access.arq]\nattempts_max = 0", "0"),
        ("[cost]\nb_min = 0", "0"),
        ("[cost]\nb_max = 1.01", "1.01"),
        ("[cost]\ntheta_th = 1", "1"),
        ("[cost]\nxi = inf", "inf"),
        ("[tcp]\nrto_min = \"0 ms\"", "\"0 ms\""),
        ("[mbs]\nposition_m = [nan, 0]", "[nan, 0]"),
        ("[mbs]\nposition_m = [1]", "[1]"),
        ("[mbs]\nposition_m = [0, \"far\"]", "\"far\""),
    ] {
        assert_eq!(one(&small_and(text)).0, spot, "{text}");
    }
    for (line, spot) in [
        ("seed = -1", "-1"),
        ("dilation = 0.5", "0.5"),
        ("dilation = nan", "nan"),
        ("name = \"a/b\"", "\"a/b\""),
    ] {
        let text = SMALL
            .replace("seed = 7", line)
            .replace(if line.starts_with("name") { "name = \"t\"\n" } else { "\0" }, "");
        assert_eq!(one(&text).0, spot, "{line}");
    }
}

#[test]
fn messages_say_what_would_be_right() {
    let (_, message, help) = one(&small_and("[radio]\nfading = \"rayliegh\""));
    assert_eq!(message, "\"rayliegh\" is no value of `radio.fading`");
    assert_eq!(help, "did you mean `rayleigh`? known: none, rayleigh");
    let (_, message, help) = one(&small_and("[link.access]\ndelay = 10"));
    assert_eq!(
        message,
        "`link.access.delay`: invalid type: integer `10`, expected a time with its unit, like \"10 ms\""
    );
    assert_eq!(help, "expected a time with its unit, like \"10 ms\"");
    let (_, message, _) = one(&small_and("[link.access]\nloss = 1.5"));
    assert!(
        message.contains("\"1.5\" is not a probability from 0 to 1; write it like 0.05 or \"5%\""),
        "{message}"
    );
    let (_, message, help) = one(&small_and("[radio]\nsubchannels = 0"));
    assert_eq!(
        (message.as_str(), help.as_str()),
        ("`radio.subchannels` = 0 is out of range", "allowed: 1 to 1024")
    );
}

#[test]
fn names_must_be_unique_and_meet_somebody() {
    let (spot, message, help) = one(&small_and("[[bs]]\nid = \"bs1\"\nposition_m = [1, 1]"));
    assert_eq!((spot.as_str(), message.as_str()), ("\"bs1\"", "`bs1` is the name of two nodes"));
    assert_eq!(help, "`bs[0]` has it already");
    assert_eq!(one(&small_and("[[users]]\nid = \"bs2\"\naround = \"bs2\"")).0, "\"bs2\"");
    assert_eq!(one(&small_and("[mbs]\nid = \"ug1\"")).1, "`ug1` is the name of two nodes");
    let (spot, message, help) = one(&small_and("[[link.override]]\nfrom = \"bs1\"\nto = \"bs7\"\nloss = 1"));
    assert_eq!((spot.as_str(), message.as_str()), ("\"bs7\"", "there is nobody called `bs7` for this link"));
    assert_eq!(help, "did you mean `bs1`?");
    let (spot, _, help) = one(&small_and("[[link.override]]\nfrom = \"ug1.4\"\nto = \"bs1\""));
    assert_eq!((spot.as_str(), help.as_str()), ("\"ug1.4\"", "the users of `ug1` are ug1.1 to ug1.3"));
    for user in ["ug1.0", "ug1.03", "ug1.+3", "ug1.", "ug9.1"] {
        assert_eq!(
            one(&small_and(&format!("[[link.override]]\nfrom = \"{user}\"\nto = \"bs1\""))).0,
            format!("\"{user}\"")
        );
    }
    assert_eq!(one(&small_and("[[link.override]]\nfrom = \"bs1\"\nto = \"bs1\"")).0, "\"bs1\"");
    assert!(one(&small_and("[[link.override]]\nfrom = \"bs1\"")).1.contains("needs `to`"));
    assert_eq!(one(&small_and("[[users]]\nid = \"ug2\"\naround = \"bs3\"")).0, "\"bs3\"");
    for id in ["BS9", "9bs", "a b", "a.b", "", "bs", "localhost", "a-"] {
        let error = one(&small_and(&format!("[[bs]]\nid = \"{id}\"\nposition_m = [1, 1]")));
        assert_eq!(error.0, format!("\"{id}\""));
    }
}

#[test]
fn users_need_a_place_within_reach() {
    assert!(one(&small_and("[[users]]\nid = \"a\"")).1.contains("where the users of `a` are"));
    assert!(
        one(&small_and("[[users]]\nid = \"a\"\ncount = 2\npositions_m = [[200, 0]]"))
            .1
            .contains("2 users but 1")
    );
    let (spot, message, _) = one(&small_and("[[users]]\nid = \"a\"\npositions_m = [[900, 0]]"));
    assert_eq!((spot.as_str(), message.as_str()), ("[900, 0]", "user 1 is 700 m from `bs1`"));
    assert_eq!(
        one(&small_and("[[users]]\nid = \"a\"\naround = \"bs1\"\nmax_distance = \"1 km\"")).0,
        "\"1 km\""
    );
    assert_eq!(
        one(&small_and("[[users]]\nid = \"a\"\naround = \"bs1\"\nmin_distance = \"1 km\"")).0,
        "\"1 km\""
    );
    assert_eq!(one(&small_and("[[users]]\nid = \"a\"\naround = \"bs1\"\ncount = 0")).0, "0");
    assert_eq!(one(&small_and("[[users]]\nid = \"a\"\naround = \"bs1\"\nsamples = 0")).0, "0");
    assert_eq!(one(&small_and("[[users]]\nid = \"a\"\naround = \"bs1\"\nsamples = [1, 2]")).0, "[1, 2]");
    assert_eq!(one(&small_and("[[users]]\nid = \"a\"\naround = \"bs1\"\nsamples = -5")).0, "-5");
    assert!(one(&small_and("[[bs]]\nid = \"x\"")).1.contains("has no position"));
}

#[test]
fn limits_are_those_of_the_addresses() {
    assert_eq!(one("[run]\nseed = 1").1, "there is no BS");
    let bs = |count| format!("[[bs]]\nid = \"b\"\ncount = {count}\n");
    assert_eq!(read(&bs(254)).unwrap().node_count(), 255);
    assert!(one(&bs(255)).1.contains("at most 254"));
    let explicit: String =
        (0..255).map(|i| format!("[[bs]]\nid = \"b{i}\"\nposition_m = [{i}, 1]\n")).collect();
    assert!(one(&explicit).1.contains("255 BSs are more than there are addresses for"));
    let users = |count| format!("{}[[users]]\nid = \"u\"\naround = \"b1\"\ncount = {count}\n", bs(1));
    assert_eq!(read(&users(32_768)).unwrap().user_count(), 32_768);
    assert!(one(&users(32_769)).1.contains("32769 users"));
    assert!(one(&users(4_294_967_295u32)).1.contains("4294967295 users"));
    let groups: String =
        (0..255).map(|i| format!("[[users]]\nid = \"u{i}\"\naround = \"b1\"\n")).collect::<String>() + &bs(1);
    assert!(one(&groups).1.contains("255 user groups"));
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = "[radio]\nsubchannels = 0\nfadin = 1\nbandwidth = 3\n[[bs]]\nid = \"a\"\n[[users]]\nid = \"a\"\naround = \"z\"\n";
    let mut overrides = variables(&[("DTWN_RUN__DILATION", "0")]);
    overrides.set("link.access.loss=2");
    let error = parse("t.toml", text.to_owned(), &overrides).unwrap_err();
    let spots: Vec<String> = error.problems().iter().map(|problem| pointed(problem).0).collect();
    assert_eq!(spots, ["0", "fadin", "3", "[[bs]]", "\"a\"", "\"z\"", "2", "0"]);
    assert_eq!(error.to_string(), "t.toml: 8 problems");
    assert_eq!(error.related().unwrap().count(), 8);
}

#[test]
fn what_follows_from_a_problem_is_not_told() {
    let count = |text: &str| read(text).unwrap_err().problems().len();
    // The id is the problem, not those who use it.
    assert_eq!(count(&SMALL.replace("id = \"bs1\"", "id = 1")), 1);
    assert_eq!(count("bs = 3\n[[users]]\nid = \"u\"\naround = \"bs1\""), 1);
    // Something else being wrong hides nobody.
    let text = small_and(
        "[[users]]\nid = \"u\"\naround = \"bs9\"\ncount = -1\n[[link.override]]\nfrom = \"bs1\"\nto = \"bs8\"",
    );
    assert_eq!(count(&format!("tcp = 1\n{text}")), 4);
}

#[test]
fn overrides_are_named_in_errors() {
    let refuse = |overrides: &Overrides| {
        let error = parse("t.toml", SMALL.to_owned(), overrides).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{:#?}", error.problems());
        error.problems()[0].clone()
    };
    let problem = refuse(&variables(&[("DTWN_RADIO__SUBCHANNELS", "0")]));
    assert_eq!(problem.origin, Origin::Environment("DTWN_RADIO__SUBCHANNELS".to_owned()));
    assert_eq!(problem.source.inner().as_str(), "DTWN_RADIO__SUBCHANNELS=0");
    assert_eq!((pointed(&problem).0.as_str(), problem.key.as_str()), ("0", "radio.subchannels"));
    assert!(problem.to_string().ends_with("(environment variable DTWN_RADIO__SUBCHANNELS)"), "{problem}");

    let set = |text: &str| {
        let mut overrides = Overrides::default();
        overrides.set(text);
        refuse(&overrides)
    };
    assert_eq!(pointed(&set("radio.bandwith=3 MHz")).0, "radio.bandwith");
    assert_eq!(pointed(&set("radio.fading.deep=3")).0, "3");
    assert_eq!(pointed(&set("link.access.delay=3")).0, "3");
    assert_eq!(set("link.access.delay=3").origin, Origin::Set("link.access.delay=3".to_owned()));
    assert_eq!(set("run.seed").message, "`run.seed` sets nothing");
    assert!(set("bs.7.cpu_hz=1").help.unwrap().contains("entries: 0 to 1, or bs1, bs2"));
    assert!(set("bs.bs3.cpu_hz=1").message.contains("no entry \"bs3\""));
    assert!(set("run..seed=1").message.contains("part of it is empty"));
    assert!(set("nowhere.at=1").message.contains("a topology has no key `nowhere`"));
    assert_eq!(pointed(&set("bs=3")).0, "3");

    let mut flags = Overrides::default();
    flags.flag("--dilation 0", "run.dilation", "0");
    assert_eq!(refuse(&flags).origin, Origin::Flag("--dilation 0".to_owned()));

    let typo = refuse(&variables(&[("DTWN_RADIO_SUBCHANNELS", "3")]));
    assert!(typo.help.unwrap().contains("two underscores"));
}

#[test]
fn files_that_are_no_topology() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    let error = |path: &std::path::Path| load(path, &Overrides::default()).unwrap_err();

    assert!(matches!(error(&path), TopologyError::Read { .. }));
    assert!(error(&path).help().unwrap().to_string().contains("no such file"));
    assert!(error(dir.path()).help().unwrap().to_string().contains("directory"));

    std::fs::write(&path, b"[run]\nname = \"\xff\xfe\"\n").unwrap();
    let TopologyError::NotUtf8 { offset, at, text, .. } = error(&path) else { panic!("not told") };
    assert_eq!((offset, at.offset()), (14, 14));
    assert!(text.inner().is_char_boundary(at.offset() + at.len()));

    std::fs::write(&path, "[run\nname = \"x\"\n[[bs]]\nid = \n").unwrap();
    let error = error(&path);
    assert!(error.problems().len() >= 2, "{error:?}");
    assert!(error.problems()[0].message.starts_with("not TOML: "), "{error:?}");
    assert!(matches!(error.problems()[0].origin, Origin::File { line: 1, .. }), "{error:?}");

    std::fs::write(&path, SMALL).unwrap();
    assert_eq!(load(&path, &Overrides::default()).unwrap().topology, read(SMALL).unwrap());
    assert!(one("").1.contains("no BS"));
}

#[test]
fn every_problem_can_be_drawn() {
    let error = read(&small_and("[radio]\nsubchannels = 0\n[link.access]\ndelay = 3")).unwrap_err();
    let mut drawn = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
        .render_report(&mut drawn, &error)
        .unwrap();
    for part in [
        "2 problems",
        "t.toml:22:15",
        "subchannels = 0",
        "radio.subchannels",
        "allowed: 1 to 1024",
        "delay = 3",
    ] {
        assert!(drawn.contains(part), "{part} is not in\n{drawn}");
    }
}
