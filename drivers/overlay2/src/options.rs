//! The options of the driver and of its layers.

use layerstack_core::mount::{Access, MountOption};
use layerstack_core::options::{OptionSpec, Options};
use layerstack_core::{Error, ErrorKind, Result};

/// Options of the driver.
pub(crate) const DRIVER: &[OptionSpec] = &[
    OptionSpec {
        name: "overlay2.mountopt",
        help: "options of overlayfs for all mounts, parted by commas: metacopy=on, redirect_dir=on, volatile, uuid=…, \
               xino=…",
    },
    OptionSpec {
        name: "overlay2.size",
        help: "the size limit of each new layer, such as 10G; by default there is none",
    },
    OptionSpec {
        name: "overlay2.override_kernel_check",
        help: "true or false; without effect, taken because Docker takes it",
    },
];

/// Options of a layer.
pub(crate) const LAYER: &[OptionSpec] =
    &[OptionSpec { name: "size", help: "how many bytes the layer may add to its parent, such as 10G" }];

/// What the options of the driver say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The size limit of each new layer, in bytes.
    pub(crate) size: Option<u64>,
    /// Copy up only the metadata where only that changes. Brings `redirect_dir` with it.
    pub(crate) metacopy: bool,
    /// Rename directories of lower layers in place.
    pub(crate) redirect_dir: bool,
    /// Never flush: after a crash of the host a layer that was mounted is lost.
    pub(crate) volatile: bool,
    /// `uuid` and `xino`, as given.
    other: Vec<(String, String)>,
}

impl Settings {
    pub(crate) fn parse(options: &Options, userxattr: bool) -> Result<Self> {
        options.boolean("overlay2.override_kernel_check")?;
        let mut settings = Self { size: options.size("overlay2.size")?, ..Self::default() };
        let given = options.get("overlay2.mountopt").unwrap_or_default();
        for option in given.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            settings.take(option)?;
        }
        if userxattr && (settings.metacopy || settings.redirect_dir) {
            return Err(wrong(
                given,
                "in a user namespace overlayfs offers neither metacopy nor redirect_dir",
            ));
        }
        Ok(settings)
    }

    fn take(&mut self, option: &str) -> Result<()> {
        match option.split_once('=') {
            Some(("metacopy", "on")) => self.metacopy = true,
            Some(("redirect_dir", "on")) => self.redirect_dir = true,
            // What is the case anyway.
            Some(("metacopy" | "index", "off") | ("redirect_dir", "follow")) => {}
            Some((key @ ("uuid" | "xino"), value)) => self.other.push((key.to_owned(), value.to_owned())),
            None if option == "volatile" => self.volatile = true,
            Some(("index" | "nfs_export", _)) => {
                return Err(wrong(
                    option,
                    "with it a file can change under a name that the upper directory does not hold, and the diff of \
                     a layer would miss that",
                ));
            }
            _ => {
                return Err(wrong(
                    option,
                    "known: metacopy=on, redirect_dir=on, volatile, uuid=on|off|null|auto, xino=on|off|auto",
                ));
            }
        }
        Ok(())
    }

    /// The options for a mount, those that name layers aside.
    ///
    /// All that decides how a layer is read or written is given, so that defaults of the host's kernel do not matter.
    pub(crate) fn mount_options(&self, access: Access, metacopy: bool, userxattr: bool) -> Vec<MountOption> {
        let value = |key: &str, value: &str| MountOption::Value(key.to_owned(), value.to_owned());
        let mut options = vec![value("index", "off")];
        if userxattr {
            options.push(MountOption::Flag("userxattr".to_owned()));
        } else {
            let metacopy = metacopy || self.metacopy;
            // overlayfs takes metacopy only together with redirect_dir=on.
            let redirect = if metacopy || self.redirect_dir { "on" } else { "follow" };
            options.push(value("redirect_dir", redirect));
            options.push(value("metacopy", if metacopy { "on" } else { "off" }));
        }
        options.extend(self.other.iter().map(|(key, text)| value(key, text)));
        if self.volatile && access == Access::ReadWrite {
            options.push(MountOption::Flag("volatile".to_owned()));
        }
        options
    }
}

fn wrong(option: &str, why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("overlay2.mountopt cannot have \"{option}\": {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, userxattr: bool) -> Result<Settings> {
        Settings::parse(&Options::parse([format!("overlay2.mountopt={text}")]).unwrap(), userxattr)
    }

    fn shown(options: &[MountOption]) -> Vec<String> {
        let mut plan = layerstack_core::mount::MountPlan::bind("/", Access::ReadOnly, "/");
        plan.fstype = "overlay".to_owned();
        plan.options = options.to_vec();
        plan.to_spec().options[1..].to_vec()
    }

    #[test]
    fn the_options_of_a_mount_leave_nothing_to_the_host() {
        let plain = Settings::default();
        assert_eq!(
            shown(&plain.mount_options(Access::ReadWrite, false, false)),
            ["index=off", "redirect_dir=follow", "metacopy=off"]
        );
        assert_eq!(
            shown(&plain.mount_options(Access::ReadOnly, true, false)),
            ["index=off", "redirect_dir=on", "metacopy=on"]
        );
        assert_eq!(shown(&plain.mount_options(Access::ReadWrite, false, true)), ["index=off", "userxattr"]);
        let volatile = parse("volatile, xino=off", false).unwrap();
        assert_eq!(
            shown(&volatile.mount_options(Access::ReadWrite, false, false)),
            ["index=off", "redirect_dir=follow", "metacopy=off", "xino=off", "volatile"]
        );
        assert!(
            !shown(&volatile.mount_options(Access::ReadOnly, false, false)).contains(&"volatile".to_owned())
        );
    }

    #[test]
    fn what_would_break_the_driver_is_refused_with_the_reason() {
        for (text, userxattr, reason) in [
            ("lowerdir=/x", false, "known: metacopy=on"),
            ("nodev", false, "known: metacopy=on"),
            ("index=on", false, "would miss that"),
            ("metacopy=on", true, "user namespace"),
            ("redirect_dir=nofollow", false, "known"),
        ] {
            let error = parse(text, userxattr).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(reason), "{error}");
        }
        assert!(parse("metacopy=on,redirect_dir=on,volatile", false).unwrap().metacopy);
    }
}
