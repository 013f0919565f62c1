//! `dtwn validate`: checks topology files.

use dtwn_model::{Plan, topology};
use miette::Diagnostic;

use super::{
    print_line,
    up::{check_data, check_policy, overrides_of},
};
use crate::{
    cli::ValidateArgs,
    error::{Error, Result},
    exit,
};

/// Checks every file, and says of each whether it holds a network.
///
/// # Errors
/// None for a wrong file: that is printed, and ends in an exit code, so that one call checks all.
pub fn run(args: &ValidateArgs) -> Result<u8> {
    let mut wrong = 0;
    for file in &args.files {
        match check(file, args) {
            Ok(text) => print_line(&text)?,
            Err(error) => {
                wrong += 1;
                let error: Box<dyn Diagnostic + Send + Sync> = Box::new(error);
                eprintln!("{:?}", miette::Report::new_boxed(error));
            }
        }
    }
    Ok(if wrong == 0 { exit::OK } else { exit::CONFIGURATION })
}

fn check(file: &std::path::Path, args: &ValidateArgs) -> Result<String> {
    let loaded = topology::load(file, &overrides_of(&args.overrides))?;
    let plan = Plan::new(&loaded.topology).map_err(Error::from)?;
    check_data(&plan)?;
    check_policy(file, &plan)?;
    if args.print {
        return Ok(loaded.topology.render()?);
    }
    Ok(format!(
        "{}: ok, {} nodes, {} users, {} links",
        file.display(),
        plan.nodes.len(),
        plan.user_count(),
        plan.links.len()
    ))
}
