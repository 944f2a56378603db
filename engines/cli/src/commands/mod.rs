//! The commands, one module each.

use clap::Subcommand;

use crate::failure::Done;
use crate::session::Session;

mod check;
mod commit;
mod completions;
mod create;
mod df;
mod diff;
mod drivers;
mod history;
mod images;
mod info;
mod inspect;
mod load;
mod mount;
mod prune;
mod ps;
mod rm;
mod rmi;
mod save;
mod tag;
mod tree;
mod umount;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Info(info::Args),
    Drivers(drivers::Args),
    Load(load::Args),
    Images(images::Args),
    History(history::Args),
    Tag(tag::Args),
    Rmi(rmi::Args),
    Save(save::Args),
    Create(create::Args),
    Ps(ps::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    Diff(diff::Args),
    Commit(commit::Args),
    Rm(rm::Args),
    Inspect(inspect::Args),
    Tree(tree::Args),
    Df(df::Args),
    Prune(prune::Args),
    Check(check::Args),
    Completions(completions::Args),
}

/// Does what the command line says.
pub(crate) fn run(command: Command, session: &Session) -> Done {
    match command {
        Command::Info(args) => info::run(&args, session),
        Command::Drivers(args) => drivers::run(&args, session),
        Command::Load(args) => load::run(args, session),
        Command::Images(args) => images::run(&args, session),
        Command::History(args) => history::run(&args, session),
        Command::Tag(args) => tag::run(&args, session),
        Command::Rmi(args) => rmi::run(&args, session),
        Command::Save(args) => save::run(&args, session),
        Command::Create(args) => create::run(args, session),
        Command::Ps(args) => ps::run(&args, session),
        Command::Mount(args) => mount::run(&args, session),
        Command::Umount(args) => umount::run(&args, session),
        Command::Diff(args) => diff::run(&args, session),
        Command::Commit(args) => commit::run(args, session),
        Command::Rm(args) => rm::run(&args, session),
        Command::Inspect(args) => inspect::run(&args, session),
        Command::Tree(args) => tree::run(&args, session),
        Command::Df(args) => df::run(&args, session),
        Command::Prune(args) => prune::run(&args, session),
        Command::Check(args) => check::run(&args, session),
        Command::Completions(args) => completions::run(&args),
    }
}
