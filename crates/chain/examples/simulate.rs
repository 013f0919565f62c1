//! `simulate A B [views]`: runs the simulator over the seeds A..B and prints its report as JSON.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [first, end, ..] = numbers[..] else { return Err("usage: simulate FIRST END [VIEWS]".into()) };
    let views = numbers.get(2).copied().unwrap_or(50);
    let options = dtwn_chain::sim::SimOptions { seeds: first..end, views, ..Default::default() };
    println!("{}", serde_json::to_string_pretty(&dtwn_chain::sim::run(&options)?)?);
    Ok(())
}
