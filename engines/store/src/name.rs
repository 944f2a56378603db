//! Names of images and containers.

use layerstack::{Error, ErrorKind, Result};

use crate::digest::is_sha256_hex;

/// An image's name in the form in which it is kept and shown: `repository:tag`. A missing tag is `latest`, and the
/// default registry is left out as Docker leaves it out, so `docker.io/library/debian` is `debian:latest`.
///
/// The grammar is that of <https://pkg.go.dev/github.com/distribution/reference>.
///
/// # Errors
/// `InvalidInput` saying what is wrong with the name.
pub(crate) fn normalize(name: &str) -> Result<String> {
    let wrong = |flaw: &str| {
        let shown: String = name.chars().take(300).flat_map(char::escape_debug).collect();
        Error::new(ErrorKind::InvalidInput, format!("image name \"{shown}\" {flaw}"))
    };
    if name.len() > 255 {
        return Err(wrong("is longer than 255 bytes"));
    }
    if name.contains('@') {
        return Err(wrong("has a digest; a name is of the form repository:tag"));
    }
    // A colon before the last slash belongs to the port of a registry.
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "latest"),
    };
    let repository = repository
        .strip_prefix("docker.io/library/")
        .or_else(|| repository.strip_prefix("docker.io/"))
        .unwrap_or(repository);
    if !is_tag(tag) {
        return Err(wrong("has a tag that is not 1 to 128 characters of [A-Za-z0-9_.-]"));
    }
    let mut components = repository.split('/');
    let first = components.next().unwrap_or_default();
    let rest: Vec<&str> = components.collect();
    let first_is_registry = !rest.is_empty() && is_registry(first);
    if !(first_is_registry || is_component(first)) || !rest.iter().all(|component| is_component(component)) {
        return Err(wrong("has a repository that is not lower-case letters, digits and single separators"));
    }
    if is_sha256_hex(repository) {
        return Err(wrong("would be mistaken for an image id"));
    }
    Ok(format!("{repository}:{tag}"))
}

/// Whether `text` can be the tag of an image.
pub(crate) fn is_tag(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=128).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-'])
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let good_port =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    good_port
        && !host.is_empty()
        && host.bytes().all(allowed)
        && !host.starts_with(['.', '-'])
        && !host.ends_with(['.', '-'])
        && (port.is_some() || host.contains('.') || host == "localhost")
}

fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_well =
        bytes.first().copied().is_some_and(alphanumeric) && bytes.last().copied().is_some_and(alphanumeric);
    let mut separators = bytes.split(|byte| alphanumeric(*byte)).filter(|separator| !separator.is_empty());
    let good = |separator: &[u8]| {
        matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
    };
    ends_well && separators.all(good)
}

/// Checks the name of a container: `[A-Za-z0-9][A-Za-z0-9_.-]*`, as Docker has it, 128 characters at most.
///
/// # Errors
/// `InvalidInput` saying what is allowed.
pub(crate) fn check_container(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let good = name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(allowed)
        && !is_sha256_hex(name);
    if good {
        return Ok(());
    }
    let shown: String = name.chars().take(140).flat_map(char::escape_debug).collect();
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!(
            "container name \"{shown}\" is not of the form [A-Za-z0-9][A-Za-z0-9_.-]*, 128 characters at most"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_one_form() {
        for (name, normal) in [
            ("debian", "debian:latest"),
            ("debian:12", "debian:12"),
            ("docker.io/library/debian:12", "debian:12"),
            ("docker.io/me/tool", "me/tool:latest"),
            ("localhost:5000/a/b__c", "localhost:5000/a/b__c:latest"),
            ("localhost:5000/a:1", "localhost:5000/a:1"),
            ("ghcr.io/A", ""),
            ("Registry.Example/a--b.c", "Registry.Example/a--b.c:latest"),
            ("Debian", ""),
            ("", ""),
            (":x", ""),
            ("a:", ""),
            ("a:-x", ""),
            ("a..b", ""),
            ("a//b", ""),
            ("../a", ""),
            ("a@sha256:0", ""),
            (&"a".repeat(64), ""),
        ] {
            let got = normalize(name).unwrap_or_default();
            assert_eq!(got, normal, "{name}");
        }
    }

    #[test]
    fn container_names_are_dockers() {
        assert!(check_container("web-1.a_b").is_ok());
        for name in ["", "-a", ".a", "a/b", "a b", &"a".repeat(64)] {
            assert!(check_container(name).is_err(), "{name}");
        }
    }
}
