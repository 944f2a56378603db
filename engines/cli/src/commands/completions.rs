//! `layerstack completions`

use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Done;
use crate::output::write_out;

/// Print the completion script for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Done {
    // The generator panics where it cannot write, so it gets memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::grammar(), "layerstack", &mut script);
    write_out(|out| out.write_all(&script))
}
