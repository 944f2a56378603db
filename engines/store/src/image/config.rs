//! The image configuration: what is read of it, and how a commit extends it.
//!
//! A config is kept byte for byte as it came, since its digest is the image's id; only what the store needs is
//! taken from it. A commit starts from the parent's document, so that keys that are unknown here live on.

use layerstack::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};

use super::manifest::parse;
use crate::digest::Digest;
use crate::platform::Platform;

/// What the store reads of a config (OCI image-spec config.md).
#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) created: Option<String>,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    rootfs: RootFs,
    #[serde(default)]
    history: Option<Vec<History>>,
}

#[derive(Debug, Clone, serde::Deserialize)]
struct RootFs {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// One step of an image's history.
#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct History {
    #[serde(default)]
    pub(crate) created: Option<String>,
    #[serde(default)]
    pub(crate) created_by: Option<String>,
    #[serde(default)]
    pub(crate) author: Option<String>,
    #[serde(default)]
    pub(crate) comment: Option<String>,
    #[serde(default)]
    pub(crate) empty_layer: bool,
}

impl Config {
    /// Reads a config.
    ///
    /// # Errors
    /// `InvalidInput` where it is not one, `Unsupported` for a root file system that is not layers.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let config: Self = parse(bytes, "the image's config")?;
        match config.rootfs.kind.as_str() {
            "layers" => Ok(config),
            other => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the image's root file system is of type \"{}\", not of layers",
                    other.escape_debug()
                ),
            )),
        }
    }

    /// The digests of the layers' plain tars, lowest first.
    pub(crate) fn diff_ids(&self) -> &[Digest] {
        self.rootfs.diff_ids.as_deref().unwrap_or_default()
    }

    /// What the image runs on.
    pub(crate) fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
        }
    }

    /// The steps that made the image, oldest first.
    pub(crate) fn history(&self) -> &[History] {
        self.history.as_deref().unwrap_or_default()
    }
}

/// What a commit adds to a config.
#[derive(Debug)]
pub(crate) struct Commit<'a> {
    /// The digest of the new layer's tar.
    pub(crate) diff_id: &'a Digest,
    /// The time of the commit, RFC 3339.
    pub(crate) created: &'a str,
    pub(crate) message: Option<&'a str>,
    pub(crate) author: Option<&'a str>,
    /// The container's id, for the history.
    pub(crate) container: &'a str,
    pub(crate) changes: &'a [Change],
}

/// The config of an image with one more layer, from the parent's.
///
/// # Errors
/// `Corrupt` where the parent's config is not an object of the expected form.
pub(crate) fn committed(parent: &[u8], commit: &Commit<'_>) -> Result<Vec<u8>> {
    let broken = |what: &str| Error::new(ErrorKind::Corrupt, format!("the parent image's config has {what}"));
    let mut config: Map<String, Value> = parse(parent, "the parent image's config")?;
    // Docker's configs carry what was true of the parent's build and of no other image.
    for stale in ["id", "parent", "container", "container_config", "docker_version", "parent_id", "throwaway"]
    {
        config.remove(stale);
    }
    config.insert("created".into(), commit.created.into());
    match commit.author {
        Some(author) => config.insert("author".into(), author.into()),
        None => config.remove("author"),
    };
    let diff_ids = config
        .get_mut("rootfs")
        .and_then(|rootfs| rootfs.as_object_mut())
        .ok_or_else(|| broken("no root file system"))?
        .entry("diff_ids")
        .or_insert_with(|| json!([]))
        .as_array_mut()
        .ok_or_else(|| broken("diff ids that are not a list"))?;
    let layers_before = diff_ids.len();
    diff_ids.push(commit.diff_id.as_str().into());

    let mut step = Map::new();
    step.insert("created".into(), commit.created.into());
    step.insert("created_by".into(), format!("layerstack commit {}", commit.container).into());
    if let Some(author) = commit.author {
        step.insert("author".into(), author.into());
    }
    if let Some(message) = commit.message {
        step.insert("comment".into(), message.into());
    }
    let history = config.entry("history").or_insert_with(|| json!([]));
    if history.is_null() {
        *history = json!([]);
    }
    let history = history.as_array_mut().ok_or_else(|| broken("a history that is not a list"))?;
    // A history is optional, but one that there is has a step for each layer: those that have none get an empty one.
    let is_of_layer = |step: &&Value| step.get("empty_layer") != Some(&Value::Bool(true));
    let told = history.iter().filter(is_of_layer).count();
    history.extend(std::iter::repeat_n(json!({}), layers_before.saturating_sub(told)));
    history.push(step.into());

    if !commit.changes.is_empty() {
        let settings = config.entry("config").or_insert_with(|| json!({}));
        if settings.is_null() {
            *settings = json!({});
        }
        let settings = settings.as_object_mut().ok_or_else(|| broken("settings that are not an object"))?;
        for change in commit.changes {
            change.apply(settings);
        }
    }
    serde_json::to_vec(&config)
        .map_err(|error| Error::new(ErrorKind::Other, "write the image's config").with_source(error))
}

/// One change of an image's settings, written as a line of a Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// `CMD`, `ENTRYPOINT`, `USER`, …: replaces the setting of this key.
    Set(&'static str, Value),
    /// `ENV`: replaces the variable or adds it.
    Env(String, String),
    /// `LABEL`, `EXPOSE`, `VOLUME`: adds to the object of this key.
    Insert(&'static str, String, Value),
    /// `ONBUILD`: adds to the list of this key.
    Push(&'static str, String),
}

impl Change {
    /// Reads one line; a line may hold several changes (`ENV A=1 B=2`).
    ///
    /// # Errors
    /// `InvalidInput` naming the line and the instructions that are known.
    pub(crate) fn parse(line: &str) -> Result<Vec<Self>> {
        let wrong = |flaw: &str| {
            Error::new(ErrorKind::InvalidInput, format!("change \"{}\" {flaw}", line.escape_debug()))
        };
        let (instruction, rest) =
            line.trim().split_once(char::is_whitespace).ok_or_else(|| wrong("has no argument"))?;
        let rest = rest.trim();
        let pairs = || pairs(rest).ok_or_else(|| wrong("is not of the form KEY=VALUE …"));
        Ok(match instruction.to_ascii_uppercase().as_str() {
            "CMD" => vec![Self::Set("Cmd", command(rest))],
            "ENTRYPOINT" => vec![Self::Set("Entrypoint", command(rest))],
            "USER" => vec![Self::Set("User", rest.into())],
            "WORKDIR" => vec![Self::Set("WorkingDir", rest.into())],
            "STOPSIGNAL" => vec![Self::Set("StopSignal", rest.into())],
            "ENV" => pairs()?.into_iter().map(|(key, value)| Self::Env(key, value)).collect(),
            "LABEL" => {
                pairs()?.into_iter().map(|(key, value)| Self::Insert("Labels", key, value.into())).collect()
            }
            "EXPOSE" => words(rest)
                .ok_or_else(|| wrong("has an open quote"))?
                .into_iter()
                .map(|port| if port.contains('/') { port } else { format!("{port}/tcp") })
                .map(|port| Self::Insert("ExposedPorts", port, json!({})))
                .collect(),
            "VOLUME" => list(rest)
                .or_else(|| words(rest))
                .ok_or_else(|| wrong("has an open quote"))?
                .into_iter()
                .map(|path| Self::Insert("Volumes", path, json!({})))
                .collect(),
            "ONBUILD" => vec![Self::Push("OnBuild", rest.to_owned())],
            _ => {
                return Err(wrong(
                    "has an unknown instruction (known: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, \
                     STOPSIGNAL, USER, VOLUME, WORKDIR)",
                ));
            }
        })
    }

    fn apply(&self, settings: &mut Map<String, Value>) {
        match self {
            Self::Set(key, value) => {
                settings.insert((*key).to_owned(), value.clone());
            }
            Self::Env(key, value) => {
                let prefix = format!("{key}=");
                let new = Value::from(format!("{prefix}{value}"));
                let is_it = |old: &&mut Value| old.as_str().is_some_and(|old| old.starts_with(&prefix));
                with_array(settings, "Env", |variables| match variables.iter_mut().find(is_it) {
                    Some(old) => *old = new,
                    None => variables.push(new),
                });
            }
            Self::Insert(key, name, value) => {
                let slot = settings.entry(*key).or_insert_with(|| json!({}));
                if !slot.is_object() {
                    *slot = json!({});
                }
                slot[name] = value.clone();
            }
            Self::Push(key, text) => with_array(settings, key, |list| list.push(text.as_str().into())),
        }
    }
}

/// Changes the list under `key`, which is made where it is absent or null.
fn with_array(settings: &mut Map<String, Value>, key: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let slot = settings.entry(key).or_insert_with(|| json!([]));
    if !slot.is_array() {
        *slot = json!([]);
    }
    if let Value::Array(list) = slot {
        change(list);
    }
}

/// A command in exec form (`["a", "b"]`) as it is, in shell form through `/bin/sh -c`, as in a Dockerfile.
fn command(text: &str) -> Value {
    match list(text) {
        Some(words) => json!(words),
        None => json!(["/bin/sh", "-c", text]),
    }
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `KEY=VALUE` words; also the old form `KEY VALUE` with one pair.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    let split = |word: &String| {
        let (key, value) = word.split_once('=')?;
        (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
    };
    match words.iter().map(split).collect::<Option<Vec<_>>>() {
        Some(pairs) if !pairs.is_empty() => Some(pairs),
        _ if words.first().is_some_and(|first| !first.contains('=')) => {
            let (key, value) = text.split_once(char::is_whitespace)?;
            Some(vec![(key.to_owned(), value.trim().to_owned())])
        }
        _ => None,
    }
}

/// Words separated by white space, with quotes and backslashes as in a shell. None where a quote stays open.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().push(characters.next()?),
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                quote = Some(character);
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(config: &Value, lines: &[&str]) -> Value {
        let changes: Vec<_> = lines.iter().flat_map(|line| Change::parse(line).unwrap()).collect();
        let diff_id = Digest::of(b"new");
        let commit = Commit {
            diff_id: &diff_id,
            created: "2026-01-02T03:04:05Z",
            message: Some("why"),
            author: Some("me"),
            container: "c1",
            changes: &changes,
        };
        let bytes = committed(&serde_json::to_vec(config).unwrap(), &commit).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_history_has_a_step_for_each_layer_after_a_commit() {
        let old: Vec<_> = [b"a", b"b"].iter().map(|name| Digest::of(*name).to_string()).collect();
        for (history, steps) in [
            (json!(null), vec![json!(null), json!(null), json!("why")]),
            (
                json!([{"comment": "1"}, {"comment": "2", "empty_layer": true}]),
                vec![json!("1"), json!("2"), json!(null), json!("why")],
            ),
            (json!([{"comment": "1"}, {"comment": "2"}]), vec![json!("1"), json!("2"), json!("why")]),
        ] {
            let parent = json!({"rootfs": {"type": "layers", "diff_ids": old}, "history": history});
            let new = change(&parent, &[]);
            let comments: Vec<_> = new["history"]
                .as_array()
                .unwrap()
                .iter()
                .map(|step| step.get("comment").cloned().unwrap_or_default())
                .collect();
            assert_eq!(comments, steps);
        }
    }

    #[test]
    fn a_commit_extends_the_parents_config() {
        let parent = json!({
            "architecture": "amd64", "os": "linux", "x-unknown": 1, "container": "old",
            "config": {"Env": ["PATH=/bin", "A=0"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"old").as_str()]},
            "history": [{"created_by": "first"}],
        });
        let new = change(
            &parent,
            &[
                r#"CMD ["a", "b"]"#,
                "ENTRYPOINT run me",
                "ENV A=1 B='x y'",
                "EXPOSE 80 53/udp",
                "LABEL k=v",
                "USER me",
                "WORKDIR /w",
                "VOLUME /v",
                "ENV OLD some value",
                "STOPSIGNAL SIGINT",
                "ONBUILD RUN x",
            ],
        );
        assert_eq!(new["x-unknown"], 1);
        assert!(new.get("container").is_none());
        assert_eq!(new["rootfs"]["diff_ids"][1], Digest::of(b"new").as_str());
        assert_eq!(new["history"][1]["comment"], "why");
        assert_eq!(new["author"], "me");
        let settings = &new["config"];
        assert_eq!(settings["Cmd"], json!(["a", "b"]));
        assert_eq!(settings["Entrypoint"], json!(["/bin/sh", "-c", "run me"]));
        assert_eq!(settings["Env"], json!(["PATH=/bin", "A=1", "B=x y", "OLD=some value"]));
        assert_eq!(settings["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
        assert_eq!(settings["Labels"], json!({"k": "v"}));
        assert_eq!(settings["Volumes"], json!({"/v": {}}));
        assert_eq!(settings["User"], "me");
        assert_eq!(settings["StopSignal"], "SIGINT");
        assert_eq!(settings["OnBuild"], json!(["RUN x"]));
    }

    #[test]
    fn a_config_with_nulls_takes_changes_too() {
        let parent = json!({
            "config": null, "history": null, "rootfs": {"type": "layers"},
        });
        let new = change(&parent, &["ENV A=1"]);
        assert_eq!(new["config"]["Env"], json!(["A=1"]));
        assert_eq!(new["history"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_wrong_change_is_refused_with_the_line() {
        for line in ["", "CMD", "RUN x", "ENV =1", "LABEL 'open", "COPY a b"] {
            let error = Change::parse(line).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{line}");
        }
    }

    #[test]
    fn a_root_file_system_that_is_not_layers_is_refused() {
        let error = Config::parse(br#"{"rootfs": {"type": "layers+base"}}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
