//! What TCP settings and batching change: the network of the finality block with one thing different at a time.

use super::finality::{figures, under_load};
use crate::{Bench, Network, Result, common::report::Report};

/// A variant: its name, top-level keys, keys of `[chain]`.
const VARIANTS: [(&str, &str, &str); 9] = [
    ("as it is", "", ""),
    ("TCP as the kernel has it", "tcp = \"kernel\"", ""),
    ("rto_min 200 ms", "tcp = { rto_min = \"200 ms\" }", ""),
    ("no quickack", "tcp = { quickack = false }", ""),
    ("back-off of thin streams", "tcp = { thin_linear_timeouts = false }", ""),
    ("blocks of 16 KiB", "", "max_block = \"16 KiB\""),
    ("blocks of 1 MiB", "", "max_block = \"1 MiB\""),
    ("certificates sent on demand", "", "eager_certificates = false"),
    ("repeats after 200 ms", "", "retry = \"200 ms\""),
];

pub fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let losses: &[u32] = if bench.quick { &[20] } else { &[0, 10, 20] };
    let variants = if bench.quick { &VARIANTS[..2] } else { &VARIANTS };
    for &loss_percent in losses {
        for &(name, top, chain) in variants {
            let network = Network { loss_percent, top, chain, ..Network::default() };
            let outcome = under_load(bench, &network)?;
            let mut row = outcome.row("settings", format!("{loss_percent} %, {name}"), None);
            row.measured += &figures(&outcome);
            row.reference = "-".to_owned();
            report.add(vec![row]);
        }
    }
    Ok(())
}
