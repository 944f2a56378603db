//! The suite tests itself: the front on vfs is broken one thing at a time, and the cases that must find it do.
//!
//! `table.txt` says for each breakage which cases fail. It is compared word for word: a case that no longer fails for
//! its own clause, and one that fails for a clause which is not its own, both show. A case that no breakage makes
//! fail is an error. `LAYERSTACK_SELF_TEST_BLESS=TEXT` writes the table anew, for the breakages with this text in their
//! names, to be read before it is committed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "writing the table tells how it goes")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};

use layerstack_conformance::Suite;
use libtest_mimic::{Arguments, Failed, Trial};

mod breakages;
mod broken;
mod tar;

use breakages::BREAKAGES;

/// The cases that take long. They run only for a breakage whose aim is in the same group or is one of them.
const LONG: [&str; 11] = [
    "crash::",
    "depth::",
    "space::",
    "quota::",
    "diff::random_",
    "hostile::random_damage",
    "concurrency::processes_",
    "metadata::sparse_files",
    "capabilities::what_is_shared",
    "status::usage_does_not_count",
    "regressions::a_hundred_and_thirty",
];

/// Cases in which threads race: whether they meet a breakage that shows only if one of them wins is chance, so that
/// they count for the breakages that show in any case, and are not compared for the others.
const BY_CHANCE: [&str; 2] = [
    "concurrency::a_child_is_created_while_its_parent_is_removed",
    "concurrency::threads_create_the_same_layer",
];

fn main() -> ExitCode {
    if std::env::var_os(broken::VARIABLE).is_some() {
        return Suite::new(&layerstack_vfs::REGISTRATION).with_opener(broken::open).main();
    }
    let arguments = Arguments::from_args();
    let place = Arc::new(Place::new());
    let table = read_table();
    if let Ok(text) = std::env::var("LAYERSTACK_SELF_TEST_BLESS") {
        return bless(&place, &text, table);
    }
    let mut trials = vec![
        Trial::test("nothing is broken", {
            let place = place.clone();
            move || expect(&place.failing("nothing", None)?, &BTreeSet::new(), None)
        }),
        Trial::test("every case is made to fail by something", {
            let (place, table) = (place.clone(), table.clone());
            move || every_case_fails_somewhere(&place, &table)
        }),
    ];
    for breakage in BREAKAGES {
        let expected = table.get(breakage.name).cloned().unwrap_or_default();
        let place = place.clone();
        trials.push(Trial::test(breakage.name, move || {
            if !expected.contains(breakage.aim) {
                return Err(Failed::from(format!("the table does not have {} for it", breakage.aim)));
            }
            expect(&place.failing(breakage.name, Some(breakage.aim))?, &expected, Some(breakage.aim))
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn expect(found: &BTreeSet<String>, expected: &BTreeSet<String>, aim: Option<&str>) -> Result<(), Failed> {
    let mut lines = String::new();
    // What a breakage aims at it makes fail in any case.
    let by_chance = |case: &&String| BY_CHANCE.contains(&case.as_str()) && aim != Some(case.as_str());
    for case in found.difference(expected).filter(|case| !by_chance(case)) {
        let _ = write!(lines, "\n  fails, and it is not its clause: {case}");
    }
    for case in expected.difference(found).filter(|case| !by_chance(case)) {
        let _ = write!(lines, "\n  does not find it: {case}");
    }
    if lines.is_empty() { Ok(()) } else { Err(Failed::from(lines)) }
}

fn every_case_fails_somewhere(
    place: &Place,
    table: &BTreeMap<String, BTreeSet<String>>,
) -> Result<(), Failed> {
    let failing: BTreeSet<_> = table.values().flatten().cloned().collect();
    let cases = place.cases()?;
    let never: Vec<_> = cases.iter().filter(|case| !failing.contains(*case)).cloned().collect();
    let unknown: Vec<_> = failing.iter().filter(|case| !cases.contains(*case)).cloned().collect();
    if never.is_empty() && unknown.is_empty() {
        return Ok(());
    }
    Err(Failed::from(format!(
        "no breakage makes fail: {}; no such case: {}",
        never.join(", "),
        unknown.join(", ")
    )))
}

/// Where the broken suites run: in memory, each with a store of its own.
struct Place {
    scratch: Option<tempfile::TempDir>,
}

impl Place {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let builder = || tempfile::Builder::new().prefix("layerstack-self-test-").to_owned();
        let scratch = builder().tempdir_in(memory).or_else(|_| builder().tempdir());
        Self { scratch: scratch.ok() }
    }

    /// The names of the cases that fail with one thing broken.
    fn failing(&self, breakage: &str, aim: Option<&str>) -> Result<BTreeSet<String>, Failed> {
        let scratch = self.scratch.as_ref().ok_or("there is no room for stores")?;
        let store = tempfile::tempdir_in(scratch.path())?;
        let report = store.path().join("report");
        let (large, small) = (store.path().join("large"), store.path().join("small"));
        std::fs::create_dir(&large)?;
        std::fs::create_dir(&small)?;
        // The small store is a file system of its own, with as many inodes as an ext4 of its size has; in a table of
        // mounts that goes with the process, so that nothing is left even of one that is killed.
        let mount =
            "mount -t tmpfs -o size=64m,nr_inodes=16384,mode=0755 layerstack \"$1\" && shift && exec \"$@\"";
        let mut child = Command::new("unshare");
        child.args(["--mount", "--propagation", "private", "--", "sh", "-c", mount, "sh"]);
        child.arg(&small).arg(std::env::current_exe()?).args(["--quiet", "--test-threads", "2"]);
        for long in LONG.iter().filter(|long| !aim.is_some_and(|aim| same_kind(aim, long))) {
            child.args(["--skip", long]);
        }
        child
            .env(broken::VARIABLE, breakage)
            .env("LAYERSTACK_CONFORMANCE_STORE", &large)
            .env("LAYERSTACK_CONFORMANCE_SMALL_STORE", &small)
            .env("LAYERSTACK_CONFORMANCE_REPORT", &report)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let ended = child.output()?;
        let lines = std::fs::read_to_string(&report).unwrap_or_default();
        if lines.is_empty() {
            let complaint = String::from_utf8_lossy(&ended.stderr).into_owned();
            return Err(Failed::from(format!("the suite did not run: {} {complaint}", ended.status)));
        }
        let mut failing = BTreeSet::new();
        for line in lines.lines() {
            let record: serde_json::Value = serde_json::from_str(line)?;
            if record["outcome"] == "failed" {
                let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
                failing.insert(format!("{}::{}", text("group"), text("case")));
            }
        }
        Ok(failing)
    }

    fn cases(&self) -> Result<BTreeSet<String>, Failed> {
        let mut child = Command::new(std::env::current_exe()?);
        let listed = child.arg("--list").env(broken::VARIABLE, "nothing").output()?;
        let text = String::from_utf8_lossy(&listed.stdout);
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }
}

/// Whether a breakage that aims at one case is to be tried on these long ones.
fn same_kind(aim: &str, long: &str) -> bool {
    match long.strip_suffix("::") {
        Some(group) => aim.split("::").next() == Some(group),
        None => aim.starts_with(long) || long.starts_with(aim),
    }
}

fn table_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/self_test/table.txt")
}

/// The table: a breakage at the start of a line, the cases that it makes fail indented below it.
fn read_table() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(table_path()).unwrap_or_default();
    let mut table: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match line.strip_prefix("  ") {
            Some(case) => {
                table.entry(name.clone()).or_default().insert(case.to_owned());
            }
            None => name = line.to_owned(),
        }
    }
    table
}

fn bless(place: &Place, filter: &str, mut table: BTreeMap<String, BTreeSet<String>>) -> ExitCode {
    let left = Mutex::new(BREAKAGES.iter().filter(|breakage| breakage.name.contains(filter)));
    let found = Mutex::new(&mut table);
    let work = || {
        while let Some(breakage) = left.lock().ok().and_then(|mut left| left.next()) {
            match place.failing(breakage.name, Some(breakage.aim)) {
                Ok(cases) => {
                    let missed = if cases.contains(breakage.aim) { "" } else { "; NOT THE ONE IT AIMS AT" };
                    println!("{}: {} cases{missed}", breakage.name, cases.len());
                    if let Ok(mut table) = found.lock() {
                        table.insert(breakage.name.to_owned(), cases);
                    }
                }
                Err(error) => println!("{}: {error:?}", breakage.name),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let mut text = String::new();
    for breakage in BREAKAGES {
        let _ = writeln!(text, "{}", breakage.name);
        for case in table.get(breakage.name).into_iter().flatten() {
            let _ = writeln!(text, "  {case}");
        }
    }
    match std::fs::write(table_path(), text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
