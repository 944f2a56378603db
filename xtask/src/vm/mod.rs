//! `cargo xtask vm`: a command in a guest kernel, with the host's files read-only underneath.
//!
//! ```text
//! vm            the command; also what `cargo xtask conformance` calls
//!  └ enclosure  this program again, in namespaces that go with it
//!     └ session   memory for the files of the run, the guest's process, its output, its end
//!        └ guest    this program a third time, as process 1 of the guest
//! ```

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};

mod console;
mod emulator;
mod enclosure;
pub(crate) mod guest;
mod initramfs;
mod kernel;
mod modules;
mod packages;
mod plug;
mod qemu;
mod registers;
pub(crate) mod session;
mod task;
mod uml;

pub(crate) use enclosure::command;
pub(crate) use session::Order;

/// The exit code of a run whose guest failed, as against the command in it.
pub(crate) const GUEST_FAILED: u8 = 125;

/// The exit code of a run whose guest was killed because the plug was pulled.
pub(crate) const POWER_LOST: u8 = 137;

/// Run a command in a guest kernel, or open a shell there.
///
/// The guest sees the host's files; what it writes goes with it. It has /run, /tmp, /dev, /proc and /sys of its own,
/// and the command runs as root. Its output, exit code and time limit are carried over; its standard input is empty.
/// Nothing is installed on the host, root is not needed, and nothing is left behind, not even by a run that is killed.
///
/// Exit codes: the command's; 124 where the time ran out; 125 where the guest failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kind of guest; without it the kind that the kernel is for.
    #[arg(long, value_enum)]
    on: Option<Machine>,
    #[command(flatten)]
    options: Options,
    /// The command and its arguments; without them a shell.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
pub(crate) enum Machine {
    /// User Mode Linux: a kernel that is an ordinary program, from Debian's package user-mode-linux.
    Uml,
    /// An emulated machine, with KVM where that works.
    Qemu,
}

impl Machine {
    /// In one word, as on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uml => "uml",
            Self::Qemu => "qemu",
        }
    }
}

/// What can be chosen of a guest.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// A kernel to use instead of Debian's: a User Mode Linux program, or one for machines (bzImage, vmlinux).
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The modules of that kernel: a directory named by its release.
    #[arg(long, value_name = "DIRECTORY", requires = "kernel")]
    modules: Option<PathBuf>,
    /// The guest's memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(64..))]
    memory: u32,
    /// End the guest after so many seconds; 0 for never.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
    /// Show what the guest's kernel prints, on standard error.
    #[arg(long)]
    console: bool,
}

impl Options {
    /// Whether the caller has a kernel, and so wants a guest.
    pub(crate) fn names_kernel(&self) -> bool {
        self.kernel.is_some()
    }

    /// Whether the caller wants to see the console.
    pub(crate) fn shows_console(&self) -> bool {
        self.console
    }

    /// The order to run a command, with the files that it needs there at its hand: `keep` are directories that the guest
    /// must show even where it has a directory of its own in their place.
    pub(crate) fn order(
        &self,
        machine: Option<Machine>,
        command: Vec<OsString>,
        keep: Vec<PathBuf>,
    ) -> Result<Order> {
        let kernel = match &self.kernel {
            Some(file) => kernel::given(machine, file, self.modules.as_deref())?,
            None => kernel::fetched(machine.unwrap_or(Machine::Uml))?,
        };
        let emulator = (kernel.machine == Machine::Qemu).then(emulator::emulator).transpose()?;
        let folder = std::env::current_dir().context("failed to find the working directory")?;
        Ok(Order {
            kernel,
            emulator,
            command,
            folder,
            keep,
            memory: self.memory,
            timeout: self.timeout,
            console: self.console,
            disk: None,
            plug: false,
        })
    }
}

/// Why this host can have no guest; none where it can. Fetches what a guest takes.
pub(crate) fn unavailable() -> Option<String> {
    kernel::fetched(Machine::Uml).err().map(|error| format!("there is no guest kernel: {error:#}"))
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let is_shell = args.command.is_empty();
    if is_shell {
        use std::io::IsTerminal as _;
        ensure!(
            std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
            "a shell needs a terminal; to run a command: cargo xtask vm -- COMMAND"
        );
    }
    let order = args.options.order(args.on, args.command.clone(), vec![crate::workspace::root()])?;
    let mut command = command(&order)?;
    if !is_shell {
        command.stdin(Stdio::null());
    }
    let status = command.status().context("failed to start the guest's session")?;
    Ok(enclosure::exit_code(status))
}
