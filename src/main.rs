//! dtwn: a Digital Twin Wireless Network emulator.
//!
//! One program with many faces: the command line, the session that holds a network, and the agents of nodes that do not learn.
//! See `docs/architecture.md` for the map.

mod agent;
mod agent_program;
mod capacity;
mod chain;
mod cli;
mod client;
mod commands;
mod error;
mod exit;
mod init;
mod machine;
mod recording;
mod registry;
mod report;
mod session;
mod state;
mod tui;

use std::{io::Write, process::ExitCode};

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    error::Result,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    dtwn_node::logging::start();
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = error.code();
            // A reader that has seen enough (`dtwn ps | head -1`) is no reason to complain.
            if !matches!(&error, error::Error::Output(source) if source.kind() == std::io::ErrorKind::BrokenPipe)
            {
                let _ = writeln!(std::io::stderr(), "{:?}", miette::Report::new(error));
            }
            ExitCode::from(code)
        }
    }
}

fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Up(args) => commands::up::run(&args),
        Command::Attach(args) => commands::attach::run(&args),
        Command::Down(args) => commands::down::run(&args),
        Command::Ps(args) => commands::ps::run(&args),
        Command::Status(args) => commands::status::run(&args),
        Command::Events(args) => commands::events::run(&args),
        Command::Logs(args) => commands::logs::run(&args),
        Command::Exec(args) => commands::exec::run(args),
        Command::Link(command) => commands::steer::link(&command),
        Command::Partition(args) => commands::steer::partition(&args),
        Command::Heal(args) => commands::steer::heal(&args),
        Command::Poison(args) => commands::steer::poison(&args),
        Command::Kill(args) => commands::steer::node(&args, dtwn_proto::control::NodeAction::Kill),
        Command::Pause(args) => commands::steer::node(&args, dtwn_proto::control::NodeAction::Pause),
        Command::Resume(args) => commands::steer::node(&args, dtwn_proto::control::NodeAction::Resume),
        Command::Restart(args) => commands::steer::node(&args, dtwn_proto::control::NodeAction::Restart),
        Command::Capture(args) => commands::capture::run(&args),
        Command::Runs(command) => commands::runs::run(&command),
        Command::Replay(args) => commands::replay::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Model(command) => commands::model::run(&command),
        Command::Validate(args) => commands::validate::run(&args),
        Command::Graph(args) => commands::graph::run(&args),
        Command::Chain(command) => commands::chain::run(&command),
        Command::Train(args) => commands::train::run(&args),
        Command::Compare(args) => commands::compare::run(&args),
        Command::Figures(args) => commands::figures::run(&args),
        Command::Calibrate(args) => commands::calibrate::run(&args),
        Command::Simulate(cli::SimulateCommand::Chain(args)) => commands::simulate::chain(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Completions { shell } => commands::manual::completions(shell),
        Command::Man { dir } => commands::manual::pages(&dir),
        Command::Session(args) => session::run(&args.run_dir, &args.name).map(|()| exit::OK),
        Command::Init(args) => init::run(&args).map(|()| exit::OK),
        Command::Agent { .. } => agent::run().map(|()| exit::OK),
        Command::Probe { what } => commands::doctor::probe(what),
    }
}
