//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::commands::Command;

/// Keeps container images, stacks their layers, and gives each container a writable layer on top.
#[derive(Debug, Parser)]
#[command(name = "layerstack", version, max_term_width = 100, after_long_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The id of `--storage-opt` where it stands after the command.
const LATE_OPTIONS: &str = "late_storage_options";

impl Arguments {
    /// The grammar.
    ///
    /// Of an argument that clap calls global, values after the command replace those before it. Storage options are to
    /// add up, so each command has an argument of its own for them.
    pub(crate) fn grammar() -> clap::Command {
        Self::command().mut_subcommands(|command| {
            let late = Arg::new(LATE_OPTIONS)
                .long("storage-opt")
                .value_name("KEY=VALUE")
                .action(ArgAction::Append)
                .help("An option of the storage driver, as before the command")
                .help_heading("Store options");
            command.arg(late)
        })
    }

    /// Reads a command line, the program's name first.
    pub(crate) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let matches = Self::grammar().try_get_matches_from(words)?;
        let mut arguments = Self::from_arg_matches(&matches)?;
        let late = matches.subcommand().and_then(|(_, of_command)| of_command.get_many(LATE_OPTIONS));
        arguments.global.storage_options.extend(late.into_iter().flatten().cloned());
        Ok(arguments)
    }
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store options")]
pub(crate) struct Global {
    /// The directory that everything is kept in
    #[arg(
        long,
        global = true,
        env = "LAYERSTACK_ROOT",
        value_name = "DIR",
        default_value = "/var/lib/layerstack"
    )]
    pub(crate) root: PathBuf,

    /// The storage driver; without it the one that the root has layers of, else the best that works here
    #[arg(
        long,
        global = true,
        env = "LAYERSTACK_DRIVER",
        value_name = "NAME",
        visible_alias = "storage-driver"
    )]
    pub(crate) driver: Option<String>,

    /// An option of the storage driver, or "sync"; `layerstack drivers` lists them. May be given several times
    #[arg(long = "storage-opt", value_name = "KEY=VALUE")]
    pub(crate) storage_options: Vec<String>,

    /// A file with Docker's keys "storage-driver" and "storage-opts"; the command line has precedence
    #[arg(long, global = true, env = "LAYERSTACK_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How results are printed
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) format: Format,

    /// Print only ids and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document.
    Json,
}

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed, for a reason that has no code of its own
    2  the command line is wrong
    3  no such image, container or layer
    4  the name is taken
    5  in use: mounted, or something stands on it
    6  this host, or the driver, does not offer it
    7  no space left, or a quota is reached
    8  a privilege is missing
    9  damaged: a digest differs, or `check` found something
  130  interrupted
  141  standard output was closed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Arguments::grammar().debug_assert();
    }

    #[test]
    fn storage_options_before_and_after_the_command_add_up() {
        let words = ["layerstack", "--storage-opt", "a=1", "create", "--storage-opt", "b=2", "x"];
        let arguments = Arguments::read(words.map(OsString::from)).unwrap();
        assert_eq!(arguments.global.storage_options, ["a=1", "b=2"]);
        let arguments = Arguments::read(["layerstack", "ps"].map(OsString::from)).unwrap();
        assert!(arguments.global.storage_options.is_empty());
    }
}
