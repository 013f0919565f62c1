//! `simulate FIRST END [VIEWS [NODES BYZANTINE LOSS_PERCENT]]`: runs the simulator over the seeds FIRST..END and prints
//! its report as JSON.

use dtwn_chain::sim::{SimOptions, run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u32> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let number = |index: usize| numbers.get(index).copied();
    let (Some(first), Some(end)) = (number(0), number(1)) else {
        return Err("usage: simulate FIRST END [VIEWS [NODES BYZANTINE LOSS_PERCENT]]".into());
    };
    let small = |index: usize| number(index).map(u16::try_from).transpose();
    let options = SimOptions {
        seeds: first.into()..end.into(),
        views: number(2).unwrap_or(50).into(),
        nodes: small(3)?,
        byzantine: small(4)?,
        loss: number(5).map(|percent| f64::from(percent) / 100.0),
        ..SimOptions::default()
    };
    println!("{}", serde_json::to_string_pretty(&run(&options)?)?);
    Ok(())
}
