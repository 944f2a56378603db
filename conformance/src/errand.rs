//! Another process that works on the same root: the suite's own binary, started again with an errand in its
//! environment.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use layerstack_core::layers::{Base, MountRequest};
use layerstack_core::options::Options;
use layerstack_core::{Error, LayerId, Result};
use serde::{Deserialize, Serialize};

use crate::case::{Stop, Verdict};
use crate::power_loss;
use crate::subject::Subject;
use crate::suite::Suite;

/// The environment variable that holds an errand.
const VARIABLE: &str = "LAYERSTACK_CONFORMANCE_ERRAND";

/// One call of the front.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Step {
    /// `create`
    Create(LayerId, Option<LayerId>),
    /// `import` from a file.
    Import(LayerId, Option<LayerId>, PathBuf),
    /// `apply` from a file.
    Apply(LayerId, PathBuf),
    /// `seal`
    Seal(LayerId),
    /// `remove`
    Remove(LayerId),
    /// `mount`, to stay when the process has ended; read-write where the layer is writable.
    Mount(LayerId),
    /// `unmount`
    Unmount(LayerId),
    /// Mounts a layer, says so, and keeps the mount until the process is killed.
    Hold(LayerId),
    /// Mounts a layer, writes a file of this length in it, unmounts.
    Write(LayerId, usize),
    /// `diff` to nowhere.
    Diff(LayerId),
}

/// What became of a [`Step`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// It succeeded.
    Well,
    /// It failed: the kind in words, and the message.
    Refused(String, String),
}

/// A process to be started.
#[derive(Debug)]
pub struct Errand {
    orders: Steps,
    kill: Vec<(&'static str, String)>,
    /// Whether no other case runs meanwhile.
    alone: bool,
}

/// What the environment holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Orders {
    /// Do some steps and report on each.
    Steps(Steps),
    /// Work until the kernel is killed: what `cargo xtask power-loss` starts.
    PowerLoss(power_loss::Orders),
}

#[derive(Debug, Serialize, Deserialize)]
struct Steps {
    root: PathBuf,
    steps: Vec<Step>,
}

impl Errand {
    pub(crate) fn new(root: &Path, steps: Vec<Step>, alone: bool) -> Self {
        let orders = Steps { root: root.to_owned(), steps };
        Self { orders, kill: Vec::new(), alone }
    }

    /// Kills itself at the nth pass, from 1, of a kill point.
    #[must_use]
    pub fn killed_at(mut self, point: &str, nth: usize) -> Self {
        self.kill.push(("LAYERSTACK_KILL_AT", format!("{point}:{nth}")));
        self
    }

    /// Appends the names of the kill points that it passes to a file.
    #[must_use]
    pub fn logging_to(mut self, log: &Path) -> Self {
        self.kill.push(("LAYERSTACK_KILL_LOG", log.display().to_string()));
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(self) -> Verdict<Running> {
        if !self.alone {
            return Err(Stop::failed("a case that starts processes has to be listed behind `alone`"));
        }
        let orders = serde_json::to_string(&Orders::Steps(self.orders)).map_err(Stop::failed)?;
        let child = Command::new(std::env::current_exe()?)
            .env(VARIABLE, orders)
            .envs(self.kill)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Running(child))
    }

    /// Runs the process to its end.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn run(self) -> Verdict<Report> {
        self.start()?.finish()
    }
}

/// A process on its way. It is killed when this is dropped, as happens where a case fails meanwhile.
#[derive(Debug)]
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is no longer there to be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Kills it without warning.
    ///
    /// # Errors
    /// What the kernel gives.
    pub fn kill(&mut self) -> Verdict {
        Ok(self.0.kill()?)
    }

    /// Waits until it has written a line, or has ended.
    ///
    /// # Errors
    /// Where its output cannot be read.
    pub fn wait_for_a_line(&mut self) -> Verdict {
        if let Some(out) = &mut self.0.stdout {
            let mut byte = [0_u8];
            while out.read(&mut byte)? == 1 && byte[0] != b'\n' {}
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Where its output cannot be read.
    pub fn finish(mut self) -> Verdict<Report> {
        // To the end of one, then of the other: what goes to standard error is at most a line, which the pipe holds.
        let (mut text, mut complaints) = (String::new(), String::new());
        if let Some(out) = &mut self.0.stdout {
            out.read_to_string(&mut text)?;
        }
        if let Some(errors) = &mut self.0.stderr {
            errors.read_to_string(&mut complaints)?;
        }
        let status = self.0.wait()?;
        let done = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Report { done, status, complaints })
    }
}

/// What a process did.
#[derive(Debug)]
pub struct Report {
    /// A line for each step that it came to.
    pub done: Vec<Done>,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub complaints: String,
}

impl Report {
    /// Whether a signal ended it.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        self.status.signal() == Some(9)
    }

    /// Fails the case unless the process ended well and each step did.
    ///
    /// # Errors
    /// Where something did not go well.
    #[track_caller]
    pub fn must_be_well(&self) -> Verdict {
        let well = self.status.success() && self.done.iter().all(|done| *done == Done::Well);
        if well { Ok(()) } else { Err(Stop::failed(format_args!("another process: {self:?}"))) }
    }
}

/// Does the errand that the environment holds, if any.
pub(crate) fn serve(suite: &Suite) -> Option<ExitCode> {
    let orders = std::env::var(VARIABLE).ok()?;
    let served = match serde_json::from_str(&orders) {
        Ok(Orders::Steps(orders)) => serve_steps(suite, &orders).map_err(|error| format!("{error:?}")),
        Ok(Orders::PowerLoss(orders)) => power_loss::serve(suite, &orders).map_err(|stop| stop.reason()),
        Err(error) => Err(error.to_string()),
    };
    Some(match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The process that waits for this one shows it; there is nobody else to tell if it is gone.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    })
}

fn serve_steps(suite: &Suite, orders: &Steps) -> Result<()> {
    let config = suite.config();
    let layers = (suite.open)(suite.registration, &orders.root, &config)?;
    for step in &orders.steps {
        let done = match perform(&*layers, step) {
            Ok(()) => Done::Well,
            Err(error) => Done::Refused(error.kind().as_str().to_owned(), format!("{error:?}")),
        };
        let line = serde_json::to_string(&done).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .map_err(|error| Error::from_io(error, "report"))?;
    }
    Ok(())
}

fn perform(layers: &dyn Subject, step: &Step) -> Result<()> {
    let open = |path: &Path| {
        std::fs::File::open(path).map_err(|error| Error::from_io(error, "open the tar").with_path(path))
    };
    match step {
        Step::Create(id, parent) => layers.create(id, parent.as_ref(), &Options::new()),
        Step::Import(id, parent, tar) => {
            layers.import(id, parent.as_ref(), &mut open(tar)?, &mut |_| Ok(())).map(drop)
        }
        Step::Apply(id, tar) => layers.apply(id, &mut open(tar)?).map(drop),
        Step::Seal(id) => layers.seal(id),
        Step::Remove(id) => layers.remove(id),
        Step::Mount(id) => layers.mount(id, &MountRequest::default().persistent()).map(drop),
        Step::Hold(id) => {
            let _mount = layers.mount(id, &MountRequest::default())?;
            let mut out = std::io::stdout().lock();
            writeln!(out, "mounted")
                .and_then(|()| out.flush())
                .map_err(|error| Error::from_io(error, "report"))?;
            loop {
                std::thread::park();
            }
        }
        Step::Unmount(id) => layers.unmount(id, None),
        Step::Write(id, length) => {
            let mount = layers.mount(id, &MountRequest::default())?;
            let path = mount.target().join("written");
            let written = std::fs::write(&path, vec![b'w'; *length])
                .map_err(|error| Error::from_io(error, "write").with_path(path));
            mount.unmount()?;
            written
        }
        Step::Diff(id) => layers.diff(id, Base::Parent, &mut std::io::sink()).map(drop),
    }
}
