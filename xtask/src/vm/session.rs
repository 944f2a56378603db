//! One run of a guest, from inside its enclosure: makes what the guest needs, starts it, passes its output on, and says
//! how it ended.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::console::Console;
use super::emulator::Emulator;
use super::kernel::Kernel;
use super::plug::Plug;
use super::qemu::{self, Accelerator};
use super::task::{self, Share, Task};
use super::{GUEST_FAILED, Machine, POWER_LOST, uml};
use crate::workspace;

/// The exit code of a run that took too long, as timeout(1) has it.
const TIMED_OUT: u8 = 124;

/// How often the output is looked for.
const TICK: Duration = Duration::from_millis(20);

/// A guest that gives no sign of life for so long hangs. One that is emulated needs its time to boot.
const PATIENCE: Duration = Duration::from_secs(120);

/// With KVM it boots in a few seconds, where that works.
const SHORT_PATIENCE: Duration = Duration::from_secs(20);

/// Variables of the host that mean nothing in the guest, which has those directories afresh.
const OF_THE_HOST: [&str; 2] = ["TMPDIR", "XDG_RUNTIME_DIR"];

/// A run of this program inside an enclosure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The order, as JSON.
    order: String,
}

/// What is to be run, where.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Order {
    pub(crate) kernel: Kernel,
    /// What an emulated machine runs on.
    pub(crate) emulator: Option<Emulator>,
    /// The command and its arguments; none for a shell.
    pub(crate) command: Vec<OsString>,
    /// The command's working directory.
    pub(crate) folder: PathBuf,
    /// Directories that stay visible in the guest wherever they are.
    pub(crate) keep: Vec<PathBuf>,
    /// In MiB.
    pub(crate) memory: u32,
    /// In seconds; 0 for as long as it takes.
    pub(crate) timeout: u64,
    /// Whether to show the console.
    pub(crate) console: bool,
    /// A file that the guest has as its disk.
    pub(crate) disk: Option<PathBuf>,
    /// Whether the guest is killed outright when our standard input ends, as by a power loss.
    pub(crate) plug: bool,
}

impl Order {
    /// The kind of guest.
    pub(crate) fn machine(&self) -> Machine {
        self.kernel.machine
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let ended =
        serde_json::from_str(&args.order).map_err(anyhow::Error::from).and_then(|order| run_order(&order));
    Ok(ExitCode::from(ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        GUEST_FAILED
    })))
}

fn run_order(order: &Order) -> Result<u8> {
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let share = memory_for_files()?;
    share.prepare(&task(order, &program))?;
    let shell = order.command.is_empty();
    let terminal = if shell { Some(rustix::termios::tcgetattr(io::stdin())?) } else { None };
    let ended = match order.kernel.machine {
        Machine::Uml => {
            let disk = order.disk.as_deref();
            let mut command = uml::command(&order.kernel, &program, &share, order.memory, disk, shell)?;
            follow(&mut command, PATIENCE, &share, order)
        }
        Machine::Qemu if order.disk.is_some() => bail!("a disk takes a kernel of User Mode Linux"),
        Machine::Qemu => emulate(&program, &share, order),
    };
    if let Some(before) = terminal {
        // The guest has set it to pass every key on.
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Flush, &before);
    }
    ended
}

/// Runs the guest on an emulated machine, the fastest that it comes to life on.
fn emulate(program: &Path, share: &Share, order: &Order) -> Result<u8> {
    let emulator = order.emulator.as_ref().context("there is no emulator")?;
    let attempt = |accelerator, patience| {
        let (kernel, shell) = (&order.kernel, order.command.is_empty());
        let mut command = qemu::command(kernel, emulator, accelerator, program, share, order.memory, shell)?;
        follow(&mut command, patience, share, order)
    };
    if qemu::may_use_kvm() {
        match attempt(Accelerator::Kvm, SHORT_PATIENCE) {
            Err(error) if share.pulse() == 0 => {
                qemu::note_no_kvm();
                let error = error.to_string();
                let what = error.split(';').next().unwrap_or_default();
                eprintln!("KVM does not run this kernel here, so it is emulated: {what}");
            }
            ended => return ended,
        }
    }
    attempt(Accelerator::Tcg, PATIENCE)
}

/// A file system in memory, at a place in the enclosure's own table of mounts, so that it goes with the enclosure.
fn memory_for_files() -> Result<Share> {
    let place = workspace::cache()?.join("vm/share");
    fs::create_dir_all(&place).with_context(|| format!("failed to make {}", place.display()))?;
    let place = place.canonicalize()?;
    rustix::mount::mount("layerstack-vm", &place, "tmpfs", rustix::mount::MountFlags::empty(), c"mode=0700")
        .with_context(|| format!("failed to mount memory on {}", place.display()))?;
    Ok(Share::at(place))
}

fn task(order: &Order, program: &Path) -> Task {
    let shell = order.command.is_empty();
    let command = if shell {
        vec![std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())]
    } else {
        order.command.clone()
    };
    let of_the_host = |name: &OsString| OF_THE_HOST.iter().any(|other| name == other);
    let mut keep = order.keep.clone();
    keep.push(order.folder.clone());
    keep.extend(program.parent().map(Path::to_owned));
    keep.extend(order.kernel.modules.clone());
    keep.extend(order.kernel.busybox.iter().filter_map(|file| file.parent()).map(Path::to_owned));
    Task {
        command,
        environment: std::env::vars_os().filter(|(name, _)| !of_the_host(name)).collect(),
        folder: order.folder.clone(),
        terminal: shell.then(|| {
            PathBuf::from(match order.kernel.machine {
                Machine::Uml => uml::TERMINAL,
                Machine::Qemu => qemu::TERMINAL,
            })
        }),
        keep,
        modules: order.kernel.modules.clone(),
        busybox: order.kernel.busybox.clone(),
    }
}

/// Runs the guest until the command in it has ended. The guest's processes end with this one.
fn follow(command: &mut Command, patience: Duration, share: &Share, order: &Order) -> Result<u8> {
    let (reader, writer) = io::pipe().context("failed to make a pipe for the console")?;
    command.stdout(writer.try_clone()?).stderr(writer);
    if !order.command.is_empty() {
        command.stdin(Stdio::null());
    }
    let started = Instant::now();
    let mut guest = command
        .spawn()
        .with_context(|| format!("failed to start the guest {}", order.kernel.file.display()))?;
    // The command holds the writing ends, and the console ends with the last of them.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let console = Console::read(reader, order.console);
    let mut output = Output::new(share)?;
    let plug = order.plug.then(|| Plug::of(io::stdin()));
    let limit = (order.timeout > 0).then(|| Duration::from_secs(order.timeout));
    let mut alive = (share.pulse(), Instant::now());
    let failure = loop {
        let status = guest.try_wait().context("failed to wait for the guest")?;
        let end = share.end()?;
        output.pass_on()?;
        if let Some(code) = end {
            return Ok(code);
        }
        if plug.as_ref().is_some_and(Plug::is_pulled) {
            let _ = guest.kill();
            end_all_others();
            // What it came to say before, which a promise may be in.
            console.end();
            output.pass_on()?;
            return Ok(POWER_LOST);
        }
        if let Some(status) = status {
            break format!("the guest died ({status})");
        }
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            eprintln!("error: the guest was ended after {} seconds, as asked", order.timeout);
            return Ok(TIMED_OUT);
        }
        let pulse = share.pulse();
        if pulse != alive.0 {
            alive = (pulse, Instant::now());
        } else if alive.1.elapsed() > patience {
            break format!("the guest hangs: no sign of life for {} seconds", patience.as_secs());
        }
        std::thread::sleep(TICK);
    };
    let _ = guest.kill();
    end_all_others();
    bail!("{failure}; {}", console.end())
}

/// Kills what the guest's main process has left behind, which would hold the console open. This process is the first of
/// its namespace, so that nobody else is met; it is not met itself (kill(2), pid -1).
fn end_all_others() {
    if std::process::id() == 1 {
        let _ =
            rustix::process::kill_process_group(rustix::process::Pid::INIT, rustix::process::Signal::KILL);
    }
}

/// The command's output, passed on as it comes.
struct Output {
    streams: [(File, Box<dyn Write>); 2],
}

impl Output {
    fn new(share: &Share) -> Result<Self> {
        let open = |name| File::open(share.file(name)).with_context(|| format!("failed to open {name}"));
        let (out, err) = (open(task::STDOUT)?, open(task::STDERR)?);
        Ok(Self { streams: [(out, Box::new(io::stdout())), (err, Box::new(io::stderr()))] })
    }

    fn pass_on(&mut self) -> Result<()> {
        let mut buffer = [0; 1 << 16];
        for (from, to) in &mut self.streams {
            loop {
                let count = from.read(&mut buffer).context("failed to read the guest's output")?;
                if count == 0 {
                    break;
                }
                to.write_all(&buffer[..count]).context("failed to pass the guest's output on")?;
            }
            to.flush()?;
        }
        Ok(())
    }
}
