//! What a command works with: the store, the output, the progress bars.

use std::io::{self, Write};
use std::path::Path;

use layerstack::options::Options;
use layerstack::{Config, Error, LayerId, Result};
use layerstack_store::{Progress, Step, Store, StoreConfig};
use serde::Serialize;

use crate::arguments::{Format, Global};
use crate::failure::{Done, Failure, complain, failed};
use crate::interrupt::Interrupt;
use crate::output::{write_json, write_out};
use crate::progress::Bars;
use crate::text;

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Session {
    global: Global,
}

impl Session {
    pub(crate) fn new(global: Global) -> Self {
        Self { global }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.global.root
    }

    pub(crate) fn quiet(&self) -> bool {
        self.global.quiet
    }

    /// The options given with `--storage-opt`.
    pub(crate) fn options(&self) -> Done<Options> {
        Options::parse(&self.global.storage_options).map_err(failed("read the command line"))
    }

    /// What the configuration file says, and over it what the command line says.
    pub(crate) fn config(&self, options: &Options) -> Done<Config> {
        let mut config = match &self.global.config {
            Some(file) => Config::from_file(file).map_err(failed("read the configuration"))?,
            None => Config::new(),
        };
        if let Some(driver) = &self.global.driver {
            config = config.with_driver(driver);
        }
        for (key, value) in options.iter() {
            config = config.with_option(key, value);
        }
        Ok(config)
    }

    pub(crate) fn open(&self) -> Done<Store> {
        self.open_with(&self.options()?)
    }

    /// Opens the store with these options, and tells what opening it mended.
    pub(crate) fn open_with(&self, options: &Options) -> Done<Store> {
        let config = StoreConfig::new(self.config(options)?);
        let store = Store::open(self.root(), &config).map_err(failed("open the store"))?;
        if !self.quiet() {
            store.recovered().iter().for_each(|mended| complain(&format!("mended: {mended}")));
        }
        Ok(store)
    }

    /// Takes the signals from now on, and shows progress unless the user wants it quiet.
    pub(crate) fn watch(&self) -> Done<Watch> {
        let interrupt = Interrupt::watch().map_err(|error| {
            failed("take the signals")(Error::from_io(error, "set the action of a signal"))
        })?;
        let bars = if self.quiet() { None } else { Some(Bars::default()) };
        Ok(Watch { interrupt, bars })
    }

    /// Prints a result: as JSON, or as the text that `text` writes.
    pub(crate) fn print<T, F>(&self, result: &T, text: F) -> Done
    where
        T: Serialize + ?Sized,
        F: FnOnce(&mut dyn Write) -> io::Result<()>,
    {
        match self.global.format {
            Format::Json => write_json(result),
            Format::Text => write_out(text),
        }
    }
}

/// An id as the tables show it: whole, or its first digits.
pub(crate) fn shown_id(id: &LayerId, whole: bool) -> String {
    if whole { id.to_string() } else { text::short_id(id.as_str()).to_owned() }
}

/// Watches a long operation: shows how far it is, and stops it when the user wants.
#[derive(Debug)]
pub(crate) struct Watch {
    interrupt: Interrupt,
    bars: Option<Bars>,
}

impl Watch {
    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Ends the watch: the operation's result, with the user's wish as the reason where there was one.
    pub(crate) fn end<T>(self, action: impl Into<String>, result: Result<T>) -> Done<T> {
        result.map_err(
            |error| {
                if self.interrupt.requested() { Failure::Interrupted } else { failed(action)(error) }
            },
        )
    }
}

impl Progress for Watch {
    fn report(&self, step: &Step<'_>) {
        if let Some(bars) = &self.bars {
            bars.report(step);
        }
    }

    fn stopped(&self) -> bool {
        self.interrupt.requested()
    }
}
