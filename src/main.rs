//! The binary `crier`: reads the command line, runs one verb, and is the only place that exits. Floor 4.

use std::process::ExitCode;

use clap::Parser;
use crier::commands::{self, Arguments};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not mistakes. A closed pipe leaves nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { commands::Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    commands::dispatch(arguments).into()
}
