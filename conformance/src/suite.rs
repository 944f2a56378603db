//! Running the cases on one driver.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};
use std::time::{Duration, Instant};

use layerstack_core::layers::{Config, Layers};
use layerstack_core::options::Options;
use layerstack_core::registry::{OpenRequest, Registration, Registry};
use layerstack_core::{ErrorKind, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::case::{Case, Stop, Verdict};
use crate::scene::Scene;
use crate::subject::Subject;
use crate::{cases, errand, kernel};

/// After this time a case counts as one that does not end.
const PATIENCE: Duration = Duration::from_secs(600);

/// How a [`Suite`] opens a root.
pub type Opener = fn(&'static Registration, &Path, &Config) -> Result<Box<dyn Subject>>;

/// A driver and what the suite has to know to judge it.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    pub(crate) registration: &'static Registration,
    pub(crate) open: Opener,
}

/// Runs the suite on a driver, with the command line of a test binary: all of a driver's `tests/conformance.rs`.
#[must_use]
pub fn main(registration: &'static Registration) -> ExitCode {
    Suite::new(registration).main()
}

impl Suite {
    /// The suite for a driver behind the front of core.
    #[must_use]
    pub fn new(registration: &'static Registration) -> Self {
        Self { registration, open: open_layers }
    }

    /// With something else in the place of the front; for the suite's own test.
    #[must_use]
    pub fn with_opener(mut self, open: Opener) -> Self {
        self.open = open;
        self
    }

    /// The configuration that names the driver, with the options in `LAYERSTACK_CONFORMANCE_OPTIONS`: `key=value`,
    /// separated by spaces.
    pub(crate) fn config(&self) -> Config {
        let options = std::env::var("LAYERSTACK_CONFORMANCE_OPTIONS").unwrap_or_default();
        let pairs = options.split_whitespace().filter_map(|option| option.split_once('='));
        pairs.fold(Config::new().with_driver(self.registration.name), |config, (key, value)| {
            config.with_option(key, value)
        })
    }

    /// Runs the suite with the command line of a test binary, and `--require`: what did not run counts as failed. With
    /// `--probe` alone it runs no case: where the driver cannot work here, it prints why, and the exit code is 3.
    #[must_use]
    pub fn main(self) -> ExitCode {
        if let Some(code) = errand::serve(&self) {
            return code;
        }
        let (require, arguments): (Vec<_>, Vec<_>) =
            std::env::args_os().partition(|argument| argument == "--require");
        if arguments.iter().any(|argument| argument == "--probe") {
            return self.probe();
        }
        let arguments = Arguments::from_iter(arguments);
        if arguments.list {
            let trials = cases::all().map(|case| Trial::test(case.full_name(), || Ok(()))).collect();
            return libtest_mimic::run(&arguments, trials).exit_code();
        }
        match Stage::set_up(self, !require.is_empty()) {
            Ok(stage) => {
                let stage = Arc::new(stage);
                let trials = cases::all().map(|case| trial(&stage, case)).collect();
                let code = libtest_mimic::run(&arguments, trials).exit_code();
                stage.take_down();
                code
            }
            Err(flaw) => refuse(&flaw),
        }
    }

    fn probe(self) -> ExitCode {
        match Stage::set_up(self, false) {
            Ok(Stage { unavailable: None, .. }) => ExitCode::SUCCESS,
            Ok(Stage { unavailable: Some(reason), .. }) => {
                let _ = writeln!(std::io::stdout(), "{reason}");
                ExitCode::from(UNAVAILABLE)
            }
            Err(flaw) => refuse(&flaw),
        }
    }
}

/// Says why the suite cannot run at all.
fn refuse(flaw: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {flaw}");
    ExitCode::from(2)
}

/// The exit code that says that the driver cannot work here.
const UNAVAILABLE: u8 = 3;

fn open_layers(
    registration: &'static Registration,
    root: &Path,
    config: &Config,
) -> Result<Box<dyn Subject>> {
    let registry = Registry::new(&[registration])?;
    Ok(Box::new(Layers::open(root, &registry, config)?))
}

/// What all cases of a run share.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) suite: Suite,
    pub(crate) small: Option<PathBuf>,
    /// Held by the case that uses the small store.
    pub(crate) turn: Mutex<()>,
    store: PathBuf,
    /// Held alone by a case that starts processes, shared by all others.
    floor: RwLock<()>,
    /// Holds the store where nobody named one.
    _scratch: Option<tempfile::TempDir>,
    /// Why no case can run.
    unavailable: Option<String>,
    require: bool,
    report: Option<Mutex<std::fs::File>>,
    count: AtomicUsize,
}

impl Stage {
    fn set_up(suite: Suite, require: bool) -> std::result::Result<Self, String> {
        let name = suite.registration.name;
        if !kernel::may_mount() {
            return Err(format!(
                "the suite mounts file systems, for which this process lacks CAP_SYS_ADMIN: run it as root, \
                 sudo env \"PATH=$PATH\" cargo xtask conformance --driver {name}"
            ));
        }
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let (scratch, store) = match variable("LAYERSTACK_CONFORMANCE_STORE") {
            Some(store) => (None, store),
            None => {
                let scratch = tempfile::Builder::new().prefix("layerstack-conformance-").tempdir();
                let scratch = scratch.map_err(|error| format!("make a store: {error}"))?;
                let store = scratch.path().to_owned();
                (Some(scratch), store)
            }
        };
        let store = store.canonicalize().map_err(|error| format!("store {}: {error}", store.display()))?;
        let report = match variable("LAYERSTACK_CONFORMANCE_REPORT") {
            None => None,
            Some(path) => {
                let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
                Some(Mutex::new(file.map_err(|error| format!("report {}: {error}", path.display()))?))
            }
        };
        let probe = store.join("probe");
        let options = Options::new();
        let probed = (suite.registration.probe)(&OpenRequest::new(&probe, &options));
        let unavailable = match probed {
            Ok(()) => None,
            Err(error) if error.kind() == ErrorKind::Unavailable => Some(error.to_string()),
            Err(error) => return Err(format!("probe of driver {name}: {error:?}")),
        };
        Ok(Self {
            suite,
            small: variable("LAYERSTACK_CONFORMANCE_SMALL_STORE"),
            turn: Mutex::new(()),
            floor: RwLock::new(()),
            store,
            _scratch: scratch,
            unavailable,
            require,
            report,
            count: AtomicUsize::new(0),
        })
    }

    fn take_down(&self) {
        // A case that did not end can still hold something; the scratch directory then stays for a look at it.
        let _ = kernel::take_away_all(&self.store);
    }

    fn scene(self: &Arc<Self>, case: &Case) -> Verdict<Scene> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{count}-{}", std::process::id(), case.group);
        Scene::new(self.clone(), &self.store, &name, case.alone)
    }

    fn write_report(&self, case: &Case, verdict: &Verdict, seconds: f64) {
        let Some(report) = &self.report else { return };
        let (outcome, reason) = match verdict {
            Ok(()) => ("passed", None),
            Err(Stop::Failed(reason)) => ("failed", Some(reason)),
            Err(Stop::NotOffered(reason)) => ("not-offered", Some(reason)),
            Err(Stop::NotRun(reason)) => ("not-run", Some(reason)),
        };
        let line = serde_json::json!({
            "driver": self.suite.registration.name,
            "group": case.group,
            "case": case.name,
            "clause": case.clause(),
            "outcome": outcome,
            "reason": reason,
            "seconds": seconds,
        });
        let mut file = report.lock().unwrap_or_else(PoisonError::into_inner);
        // Who asked for the report finds a case missing in it.
        let _ = writeln!(file, "{line}");
    }
}

fn trial(stage: &Arc<Stage>, case: &'static Case) -> Trial {
    let stage = stage.clone();
    Trial::ignorable_test(case.full_name(), move || {
        let start = Instant::now();
        let verdict = match &stage.unavailable {
            Some(reason) => Err(Stop::NotRun(reason.clone())),
            None => run(&stage, case),
        };
        stage.write_report(case, &verdict, start.elapsed().as_secs_f64());
        match verdict {
            Ok(()) => Ok(Completion::Completed),
            Err(Stop::NotOffered(reason)) => Ok(Completion::ignored_with(format!("not offered: {reason}"))),
            Err(Stop::NotRun(reason)) if !stage.require => {
                Ok(Completion::ignored_with(format!("not run: {reason}")))
            }
            Err(Stop::NotRun(reason)) => Err(Failed::from(format!("required, but not run: {reason}"))),
            Err(Stop::Failed(what)) => Err(Failed::from(format!("clause: {}\n{what}", case.clause()))),
        }
    })
}

/// Runs a case on a thread of its own, so that one that panics or never ends is a failed case and no more.
fn run(stage: &Arc<Stage>, case: &'static Case) -> Verdict {
    let (shared, alone) = if case.alone {
        (None, Some(stage.floor.write().unwrap_or_else(PoisonError::into_inner)))
    } else {
        (Some(stage.floor.read().unwrap_or_else(PoisonError::into_inner)), None)
    };
    let verdict = run_on_the_floor(stage, case);
    drop((shared, alone));
    verdict
}

fn run_on_the_floor(stage: &Arc<Stage>, case: &'static Case) -> Verdict {
    let scene = Arc::new(stage.scene(case)?);
    let (sender, receiver) = mpsc::channel();
    let inner = scene.clone();
    let thread = std::thread::Builder::new().name(case.full_name()).spawn(move || {
        let verdict = (case.run)(&inner);
        // Nobody waits any more after the time has run out.
        let _ = sender.send(verdict);
    })?;
    let verdict = match receiver.recv_timeout(PATIENCE) {
        Ok(verdict) => verdict,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            return Err(Stop::Failed(format!("did not end within {} seconds", PATIENCE.as_secs())));
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(Stop::Failed(panic_message(thread.join()))),
    };
    let verdict = match verdict {
        Err(Stop::Failed(what)) => Err(Stop::Failed(format!("{what}\n    {}", scene.dump()))),
        // One reason, however many cases have it.
        Err(Stop::NotOffered(reason)) => Err(Stop::NotOffered(scene.without_its_place(&reason))),
        other => other,
    };
    verdict.and(scene.clear())
}

fn panic_message(ended: std::thread::Result<()>) -> String {
    let payload = ended.err();
    let text = payload.as_ref().and_then(|payload| {
        payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
    });
    format!("panicked: {}", text.unwrap_or("without a message"))
}
