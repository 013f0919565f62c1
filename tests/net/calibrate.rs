//! `dtwn calibrate` from end to end: it trains, and fits a curve.

use serde_json::{Value, json};

use crate::common::Rig;

#[test]
fn a_curve_is_fitted_to_real_trainings() {
    let rig = Rig::as_caller();
    let topology = rig.topology();
    let arguments =
        ["calibrate", topology.to_str().unwrap(), "--fractions", "0.02,0.06,0.2", "--json", "--quiet"];
    let few = [
        "--rounds",
        "2",
        "--seeds",
        "1",
        "--set",
        "learning.test_samples=200",
        "--set",
        "learning.held_out=0",
    ];
    let said = rig.run(arguments.into_iter().chain(few)).ok().json();
    let number = |value: &Value| value.as_f64().filter(|number| number.is_finite());
    for key in ["theta_a", "theta_p", "theta_a_error", "theta_p_error", "residual", "r_squared"] {
        assert!(number(&said["fit"][key]).is_some(), "{key} in {said:#}");
    }
    for key in ["theta_a", "theta_p", "theta_a_error", "theta_p_error"] {
        assert!(number(&said["fit"][key]) > Some(0.0), "{key} in {said:#}");
    }
    assert_eq!((&said["dataset"], &said["rounds"]), (&json!("synthetic"), &json!(2)), "{said:#}");
    // 8 users of 500 samples.
    assert_eq!(said["samples_held"], 4000.0, "{said:#}");
    let trainings = said["trainings"].as_array().unwrap();
    assert_eq!(trainings.len(), 3, "{said:#}");
    let mut accuracies = Vec::new();
    for (training, (fraction, samples)) in trainings.iter().zip([(0.02, 80.0), (0.06, 240.0), (0.2, 800.0)]) {
        assert_eq!((&training["fraction"], &training["samples"]), (&json!(fraction), &json!(samples)));
        assert_eq!(training["seed"], 4, "{training:#}");
        // The untrained model, and one a round.
        let by_round = training["accuracy_by_round"].as_array().unwrap();
        assert_eq!((by_round.len(), &by_round[2]), (3, &training["accuracy"]), "{training:#}");
        accuracies.push(number(&training["accuracy"]).unwrap());
    }
    // The curve is one through these: no further off at any than its residual allows.
    let fitted = |samples: f64| {
        1.0 - number(&said["fit"]["theta_a"]).unwrap()
            * samples.powf(-number(&said["fit"]["theta_p"]).unwrap())
    };
    let squares: f64 = accuracies
        .iter()
        .zip([80.0, 240.0, 800.0])
        .map(|(reached, samples)| (reached - fitted(samples)).powi(2))
        .sum();
    let residual = (squares / 3.0).sqrt();
    assert!((residual - number(&said["fit"]["residual"]).unwrap()).abs() < 1e-9, "{residual} in {said:#}");
}
