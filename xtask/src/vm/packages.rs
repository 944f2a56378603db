//! Debian packages, fetched and unpacked without root and without installing anything.
//!
//! apt works on a state of its own: the host's mirrors, proxies and keys, and lists of packages in the user's cache.
//! Each package is unpacked in a directory that is named by its version; it appears there whole, and stays.
//!
//! ```text
//! packages/lock                        held while something is changed
//! packages/apt/{lists,sources.list,…}  apt's own state
//! packages/NAME_VERSION_ARCH/          an unpacked package
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

use crate::{process, workspace};

/// Lists older than this are fetched anew. What they name is on the mirrors for longer.
const FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What the names of packages begin with that are not whole yet.
const HALF: &str = "half-";

/// The packages in the user's cache.
#[derive(Debug)]
pub(crate) struct Packages {
    home: PathBuf,
}

impl Packages {
    /// The cache, made if it is not there.
    pub(crate) fn open() -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            ensure!(
                process::find(program).is_some(),
                "a guest's kernel comes from Debian's packages, and this host has no {program}; give one with: --kernel \
                 FILE"
            );
        }
        let home = workspace::cache()?.join("vm/packages");
        fs::create_dir_all(&home).with_context(|| format!("failed to make {}", home.display()))?;
        // The paths are used in the guest, where relative ones mean something else.
        let home = home.canonicalize().with_context(|| format!("failed to find {}", home.display()))?;
        Ok(Self { home })
    }

    /// The directory with the files of a package, fetched if it is not there yet.
    pub(crate) fn unpacked(&self, name: &str) -> Result<PathBuf> {
        self.unpacked_and(name, |_| Ok(()))
    }

    /// The same; what has to be done once with a fetched tree is done before anybody sees it.
    pub(crate) fn unpacked_and(&self, name: &str, finish: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
        let download = |apt: &Apt, scratch: &Path| {
            process::output(apt.get().current_dir(scratch).args(["download", name])).map(drop)
        };
        self.provide(name, "", download, finish)
    }

    /// The same with the files of all packages that it needs in one tree, down to the C library.
    pub(crate) fn unpacked_with_all(&self, name: &str) -> Result<PathBuf> {
        let download = |apt: &Apt, scratch: &Path| {
            fs::create_dir(scratch.join("partial"))?;
            let archives = format!("Dir::Cache::archives={}/", scratch.display());
            let mut install = apt.get();
            install.args(["install", "--yes", "--download-only", "--no-install-recommends", name]);
            process::output(install.args(["--option", &archives, "--option", "Debug::NoLocking=1"])).map(drop)
        };
        self.provide(name, "+all", download, |_| Ok(()))
    }

    /// What a package that only names others needs first: its newest version's.
    pub(crate) fn first_dependency(&self, name: &str) -> Result<String> {
        let _lock = self.lock()?;
        let apt = self.apt()?;
        let known = apt.first_dependency(name);
        // The lists may be older than the package.
        known.or_else(|_| apt.update().and_then(|()| apt.first_dependency(name)))
    }

    fn lock(&self) -> Result<File> {
        let lock = File::create(self.home.join("lock")).context("failed to make the lock of the packages")?;
        lock.lock().context("failed to lock the packages")?;
        Ok(lock)
    }

    /// apt with lists.
    fn apt(&self) -> Result<Apt> {
        let apt = Apt::new(&self.home.join("apt"))?;
        let is_other = apt.set_sources()?;
        if (is_other || apt.age().is_none_or(|age| age > FRESH))
            && let Err(error) = apt.update()
        {
            // Without a network the old lists do, and what was fetched then.
            ensure!(apt.age().is_some(), "{error:#}");
        }
        Ok(apt)
    }

    /// A tree named by the package's version, made of the archives that `download` puts into a directory.
    fn provide(
        &self,
        name: &str,
        suffix: &str,
        download: impl Fn(&Apt, &Path) -> Result<()>,
        finish: impl Fn(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let _lock = self.lock()?;
        self.sweep()?;
        let apt = self.apt()?;
        let attempt = || -> Result<PathBuf> {
            let archive = apt.file_name(name)?;
            let target = self.home.join(format!("{}{suffix}", archive.trim_end_matches(".deb")));
            if !target.exists() {
                eprintln!("fetching {name} from Debian's packages; this is done once");
                let scratch = tempfile::Builder::new().prefix(HALF).tempdir_in(&self.home)?;
                download(&apt, scratch.path())?;
                let tree = scratch.path().join("tree");
                unpack(scratch.path(), &tree)?;
                finish(&tree)?;
                fs::rename(&tree, &target).with_context(|| format!("failed to make {}", target.display()))?;
            }
            Ok(target)
        };
        // A list can be older than the package, and name what the mirror no longer has.
        attempt().or_else(|_| apt.update().and_then(|()| attempt()))
    }

    /// Removes what runs that were killed had half fetched. The caller has the lock.
    fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.home)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(HALF) {
                fs::remove_dir_all(entry.path())
                    .with_context(|| format!("failed to remove {}", entry.path().display()))?;
            }
        }
        Ok(())
    }
}

/// Unpacks all archives of a directory into one tree.
fn unpack(archives: &Path, tree: &Path) -> Result<()> {
    let mut found = false;
    for entry in fs::read_dir(archives)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|extension| extension == "deb") {
            process::output(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(tree))?;
            found = true;
        }
    }
    ensure!(found, "apt-get fetched nothing");
    Ok(())
}

/// apt with a state of its own.
struct Apt {
    home: PathBuf,
}

impl Apt {
    fn new(home: &Path) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(home.join(folder))
                .with_context(|| format!("failed to make {}", home.display()))?;
        }
        let apt = Self { home: home.to_owned() };
        fs::write(apt.home.join("status"), "")?;
        let host = process::output(Command::new("apt-config").arg("dump"))?;
        fs::write(apt.home.join("apt.conf"), apt.configuration(&host))?;
        Ok(apt)
    }

    /// The host's configuration without its places and its hooks, which are for the host's state, and ours.
    fn configuration(&self, host: &str) -> String {
        const LEFT_OUT: [&str; 9] = [
            "APT::Update",
            "APT::Sandbox",
            "DPkg",
            "Dir::State",
            "Dir::Cache",
            "Dir::Etc::source",
            "Dir::Etc::main",
            "Dir::Etc::parts",
            "Acquire::Languages",
        ];
        let is_kept = |line: &&str| {
            let extra = line.strip_prefix("Acquire::IndexTargets::deb::");
            !LEFT_OUT.iter().any(|name| line.starts_with(name))
                && extra.is_none_or(|rest| rest.starts_with("Packages"))
        };
        let kept: Vec<&str> = host.lines().filter(is_kept).collect();
        let home = self.home.display();
        format!(
            "{}\nAPT::Sandbox::User \"\";\nAcquire::Languages \"none\";\nDir::State \"{home}\";\n\
             Dir::State::lists \"{home}/lists/\";\nDir::State::status \"{home}/status\";\n\
             Dir::Cache \"{home}/cache\";\nDir::Etc::sourcelist \"{home}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n",
            kept.join("\n")
        )
    }

    fn get(&self) -> Command {
        let mut command = self.program("apt-get");
        command.arg("--quiet=2");
        command
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("APT_CONFIG", self.home.join("apt.conf"));
        command
    }

    fn first_dependency(&self, name: &str) -> Result<String> {
        // The newest version comes first, be it in the backports.
        let text = process::output(self.program("apt-cache").args(["show", name]))?;
        first_dependency(&text).with_context(|| format!("{name} needs no other package"))
    }

    /// How old the lists are; none where there are none.
    fn age(&self) -> Option<Duration> {
        let made = fs::metadata(self.home.join("updated")).and_then(|data| data.modified()).ok()?;
        Some(SystemTime::now().duration_since(made).unwrap_or_default())
    }

    /// Takes over the mirrors that the host uses; true where they are not those of the last time.
    fn set_sources(&self) -> Result<bool> {
        let lists = format!("Dir::State::lists={}/host/", self.home.display());
        fs::create_dir_all(self.home.join("host/partial"))?;
        let mut names = Command::new("apt-get");
        let uris = process::output(names.args(["update", "--print-uris", "--option", &lists]))?;
        let mut sources = sources(&uris);
        ensure!(!sources.is_empty(), "this host's apt has no source of Debian's packages");
        sources.extend(backports(&sources));
        let (file, lines) =
            (self.home.join("sources.list"), sources.iter().map(Source::line).collect::<String>());
        if fs::read_to_string(&file).is_ok_and(|old| old == lines) {
            return Ok(false);
        }
        fs::write(&file, lines).with_context(|| format!("failed to write {}", file.display()))?;
        Ok(true)
    }

    /// Fetches the lists of packages.
    fn update(&self) -> Result<()> {
        // A mirror that lacks one of them is told as a warning only, and a network that is not there too.
        process::output(self.get().arg("update"))?;
        let lists = fs::read_dir(self.home.join("lists"))?.flatten();
        let found = lists.filter(|entry| entry.file_name().to_string_lossy().contains("_Packages")).count();
        ensure!(found > 0, "apt-get could not fetch the lists of packages of this host's mirrors");
        Ok(fs::write(self.home.join("updated"), "")?)
    }

    /// The name of the newest archive of a package: its name, version and architecture.
    fn file_name(&self, name: &str) -> Result<String> {
        let text = process::output(self.get().args(["download", "--print-uris", name]))?;
        file_name(&text).with_context(|| format!("apt-get does not say what file holds {name}"))
    }
}

/// A part of a mirror.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    mirror: String,
    suite: String,
}

impl Source {
    fn line(&self) -> String {
        const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let keys = if Path::new(KEYS).exists() { format!("[signed-by={KEYS}] ") } else { String::new() };
        format!("deb {keys}{} {} main\n", self.mirror, self.suite)
    }
}

/// Debian's parts among the files that apt would fetch: lines of the form `'MIRROR/dists/SUITE/InRelease' NAME …`.
fn sources(uris: &str) -> Vec<Source> {
    let files = uris.lines().filter_map(|line| line.strip_prefix('\'')?.split_once('\'').map(|(uri, _)| uri));
    let releases = files.filter_map(|uri| uri.strip_suffix("/InRelease")?.split_once("/dists/"));
    let debian = releases.filter(|(mirror, _)| {
        let archive = mirror.trim_end_matches('/').rsplit('/').next();
        matches!(archive, Some("debian" | "debian-security"))
    });
    debian.map(|(mirror, suite)| Source { mirror: mirror.to_owned(), suite: suite.to_owned() }).collect()
}

/// The backports of the release among some sources, where newer kernels are.
fn backports(sources: &[Source]) -> Option<Source> {
    let is_release = |source: &&Source| !source.suite.contains('-') && !source.mirror.contains("security");
    let release = sources.iter().find(is_release)?;
    let suite = format!("{}-backports", release.suite);
    let absent = sources.iter().all(|source| source.suite != suite);
    absent.then(|| Source { mirror: release.mirror.clone(), suite })
}

/// The first package in the field `Depends` of a package's description.
fn first_dependency(description: &str) -> Option<String> {
    let field = description.lines().find_map(|line| line.strip_prefix("Depends: "))?;
    field.split([',', ' ', '|']).next().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The file's name in a line of the form `'URI' NAME SIZE CHECKSUM`.
fn file_name(line: &str) -> Option<String> {
    let name = line.trim().strip_prefix('\'')?.split_once("' ")?.1.split(' ').next()?;
    (name.ends_with(".deb") && !name.contains('/')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mirrors_are_used_and_no_others() {
        let uris = "'http://mirror/debian/dists/bookworm/InRelease' mirror_x 0 \n\
                    'http://mirror/debian/dists/bookworm/main/binary-amd64/Packages.xz' y 0 \n\
                    'http://other/debian-security/dists/bookworm-security/InRelease' z 0 \n\
                    'https://example/node/dists/nodistro/InRelease' z 0 \n";
        let sources = sources(uris);
        let wanted =
            [("http://mirror/debian", "bookworm"), ("http://other/debian-security", "bookworm-security")];
        let found: Vec<_> =
            sources.iter().map(|source| (source.mirror.as_str(), source.suite.as_str())).collect();
        assert_eq!(found, wanted);
        assert!(sources[0].line().ends_with("http://mirror/debian bookworm main\n"));
        let backports = backports(&sources).unwrap();
        assert_eq!(
            (backports.mirror.as_str(), backports.suite.as_str()),
            ("http://mirror/debian", "bookworm-backports")
        );
        assert_eq!(super::backports(&[backports]), None);
    }

    #[test]
    fn a_package_that_names_another_is_followed() {
        let text = "Package: linux-image-amd64\nVersion: 6.12.1-1\nDepends: linux-image-6.12.1-amd64 (= 6.12.1-1), x\n";
        assert_eq!(first_dependency(text).as_deref(), Some("linux-image-6.12.1-amd64"));
        assert_eq!(first_dependency("Package: x\n"), None);
    }

    #[test]
    fn the_version_is_in_the_archives_name() {
        let line = "'http://m/pool/b/busybox/busybox-static_1.35.0-4_amd64.deb' busybox-static_1%3a1.35.0-4_amd64.deb 92 SHA256:1\n";
        assert_eq!(file_name(line).as_deref(), Some("busybox-static_1%3a1.35.0-4_amd64.deb"));
        assert_eq!(file_name("E: no package"), None);
        assert_eq!(file_name("'x' ../../a.deb 1"), None);
    }

    #[test]
    fn hooks_and_places_of_the_host_are_left_out() {
        let apt = Apt { home: "/cache".into() };
        let host = "Acquire::http::Proxy \"http://p\";\nAPT::Update::Post-Invoke:: \"rm\";\nDir::State \"var\";\n\
                    Acquire::IndexTargets::deb::DEP-11::x \"\";\nAcquire::IndexTargets::deb::Packages::x \"\";\n";
        let ours = apt.configuration(host);
        assert!(
            ours.starts_with("Acquire::http::Proxy \"http://p\";\nAcquire::IndexTargets::deb::Packages::x")
        );
        assert!(ours.contains("\nDir::State \"/cache\";\n"));
        assert!(!ours.contains("Post-Invoke") && !ours.contains("DEP-11"));
    }
}
