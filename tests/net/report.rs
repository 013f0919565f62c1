//! `dtwn report` of real runs, opened in a browser.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::common::{Rig, Session};

/// A run in which a link was disturbed and a node killed; still up.
fn disturbed(rig: &Rig) -> Session<'_> {
    let session = rig.up(&[]);
    session.verb(&["link", "set", "bs1", "mbs", "--loss", "5%"]).ok();
    session.verb(&["kill", "bs2"]).ok();
    session.wait_for_event("node_started", |what| what["node"] == "bs2" && what["restarts"] == 1);
    session.wait_for_event("transfer", |_| true);
    session.settle_samples(4);
    session
}

impl Session<'_> {
    /// Waits until the run has so many samples.
    fn settle_samples(&self, count: usize) {
        crate::common::wait_for("samples", || {
            let samples = self.events().iter().filter(|event| event["what"]["type"] == "sample").count();
            (samples >= count).then_some(())
        });
    }
}

fn report(rig: &Rig, run_dir: &Path) -> String {
    rig.run(["report", run_dir.to_str().unwrap(), "-o", "-"]).ok().stdout
}

/// Opens a page in headless Chromium.
fn chromium(rig: &Rig, arguments: &[&str], page: &Path) -> Output {
    let mut command = Command::new("chromium");
    command
        // Tests may run as root, for which Chromium refuses its sandbox; it opens nothing but our own page.
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        .args(["--enable-logging=stderr", "--window-size=1000,1400"])
        .arg(format!("--user-data-dir={}", rig.path().join("chromium").display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .env("HOME", rig.path());
    command.output().expect("the tests of the report need chromium: scripts/setup --test")
}

fn complaints(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| line.contains("CONSOLE")).map(ToOwned::to_owned).collect()
}

/// The page with a script in it that measures what is drawn: the page itself allows none.
fn measured(rig: &Rig, html: &str) -> Value {
    const SCRIPT: &str = r#"<script>
        const box = (element) => element.getBoundingClientRect();
        const plots = [...document.querySelectorAll("svg.plot")].map((svg) => {
            const own = box(svg);
            const outside = [...svg.querySelectorAll("text")].filter((text) => {
                const its = box(text);
                return its.left < own.left - 1 || its.right > own.right + 1 || its.top < own.top - 1
                    || its.bottom > own.bottom + 1;
            });
            const lines = [...svg.querySelectorAll("path.line")].map((line) => line.getTotalLength());
            return { title: svg.querySelector("title").textContent, width: own.width, height: own.height,
                outside: outside.map((text) => text.textContent), longest: Math.max(0, ...lines),
                dots: svg.querySelectorAll("circle.dot").length };
        });
        const wide = document.documentElement.scrollWidth - innerWidth;
        document.body.innerHTML = "";
        document.body.textContent = "MEASURED" + JSON.stringify({ plots, wide }) + "MEASURED";
    </script></body>"#;
    let (before, rest) = html.split_once("<meta http-equiv=\"Content-Security-Policy\"").unwrap();
    let (_, rest) = rest.split_once('>').unwrap();
    let page = rig.path().join("measured.html");
    fs::write(&page, format!("{before}{rest}").replace("</body>", SCRIPT)).unwrap();
    let output = chromium(rig, &["--dump-dom"], &page);
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let json = dom.split("MEASURED").nth(1).unwrap_or_else(|| panic!("nothing was measured: {dom}"));
    serde_json::from_str(&json.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")).unwrap()
}

fn written(rig: &Rig, name: &str, html: &str) -> PathBuf {
    let page = rig.path().join(name);
    fs::write(&page, html).unwrap();
    page
}

#[test]
fn a_browser_shows_the_report_without_complaint() {
    let rig = Rig::as_caller();
    let session = disturbed(&rig);
    let (name, run_dir) = (session.name.clone(), session.run_dir.clone());
    session.down();
    let html = report(&rig, &run_dir);
    for part in [
        "The run was stopped on request",
        "signal 9",
        "loss 5",
        "Topology (BLAKE3)",
        "tcp_notsent_lowat",
        "bs1&gt;mbs",
        "Fidelity ",
    ] {
        assert!(html.contains(part), "no {part}");
    }
    // One file: nothing is fetched, and nothing runs.
    for link in ["src=", "<script", "@import", "url("] {
        assert!(!html.contains(link), "{link}");
    }

    let page = written(&rig, "report.html", &html);
    let picture = rig.path().join("report.png");
    let output = chromium(&rig, &["--dump-dom"], &page);
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(dom.contains(&format!("<title>{name} · dtwn report</title>")), "{dom:.300}");
    assert_eq!(complaints(&output), Vec::<String>::new());
    chromium(&rig, &[&format!("--screenshot={}", picture.display())], &page);
    assert!(fs::metadata(&picture).unwrap().len() > 10_000);
    // A page with a fault is complained of, or the check above could not fail.
    let faulty = html.replace("</body>", "<img src=\"https://example.invalid/x.png\"></body>");
    let output = chromium(&rig, &["--dump-dom"], &written(&rig, "faulty.html", &faulty));
    assert_ne!(complaints(&output), Vec::<String>::new());

    let measured = measured(&rig, &html);
    let plots = measured["plots"].as_array().unwrap();
    let titles: Vec<_> = plots.iter().map(|plot| plot["title"].as_str().unwrap()).collect();
    for title in [
        "Faults and interventions",
        "Carried by the busiest links",
        "Lateness of deliveries",
        "CPU",
        "Memory",
    ] {
        assert!(titles.contains(&title), "no {title} among {titles:?}");
    }
    for plot in plots {
        assert!(plot["width"].as_f64().unwrap() > 400.0 && plot["height"].as_f64().unwrap() > 50.0, "{plot}");
        assert_eq!(plot["outside"], Value::Array(vec![]), "{plot}");
        // Of a run's only round there is one point, and no line.
        let draws = plot["longest"].as_f64().unwrap() > 20.0 || plot["dots"].as_u64().unwrap() > 0;
        assert!(draws || plot["title"] == "Faults and interventions", "{plot}");
    }
    assert!(measured["wide"].as_f64().unwrap() <= 0.0, "the page is {} pixels too wide", measured["wide"]);
}

#[test]
fn a_run_that_goes_on_or_was_cut_off_is_reported_as_such() {
    let rig = Rig::as_caller();
    let session = disturbed(&rig);
    let run_dir = session.run_dir.clone();
    assert!(report(&rig, &run_dir).contains("The run still goes on"));
    session.kill();
    assert!(report(&rig, &run_dir).contains("The recording was cut off"));
    // What kill -9 of a machine leaves: half a record.
    let events = run_dir.join("events.dtwn");
    let bytes = fs::read(&events).unwrap();
    fs::write(&events, &bytes[..bytes.len() - 5]).unwrap();
    assert!(report(&rig, &run_dir).contains("torn at byte"));
    // A name, its beginning and `latest` mean the same run.
    let out = rig.out();
    for run in [run_dir.file_name().unwrap().to_str().unwrap(), session.name.as_str(), "latest"] {
        let file = rig.path().join("by-name.html");
        let arguments = ["report", run, "--out", out.to_str().unwrap(), "-o", file.to_str().unwrap()];
        rig.run(arguments).ok();
        assert!(fs::read_to_string(&file).unwrap().contains(&session.name));
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn what_is_no_run_is_refused() {
    let rig = Rig::as_caller();
    fs::create_dir(rig.path().join("empty")).unwrap();
    rig.run(["report", "empty"]).code(1).says("empty is no recorded run: there is no events.dtwn in it");
    rig.run(["report", "small.toml"]).code(1).says("a run is the directory");
    rig.run(["report", "nothing-of-the-kind"]).code(1).says("no run in runs");
    fs::write(rig.path().join("empty/events.dtwn"), "hello, world, hello").unwrap();
    rig.run(["report", "empty"]).code(1).says("not an event file");
    assert!(!rig.path().join("report.html").exists());
}
